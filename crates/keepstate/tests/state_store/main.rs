//! The table kept over a restart: by the module's own hands, with real connections through a gateway that is killed, and with files that are not what they should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "setns(2) has no safe wrapper in std")]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod gateway_testbed;
mod restarts;
