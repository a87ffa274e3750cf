//! `keepstate disable` in namespaces of its own: with real rules, real traffic, and without the right to look.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test speaks by panicking, its helpers too")]
mod audit;
mod ladder;
mod place;
