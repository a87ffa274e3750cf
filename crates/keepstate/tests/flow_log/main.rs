//! Flow logs of a running gateway, as others read them, and `keepstate who`, which answers from them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
mod hourly_files;
mod log_testbed;
mod nats_subjects;
#[path = "../common/peers.rs"]
mod peers;
mod plain_collectors;
mod tls_collectors;
