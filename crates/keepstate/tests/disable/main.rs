//! `keepstate disable` in namespaces of its own: with real rules, real traffic, and without the right to look.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test that cannot go on has failed")]
mod audit;
mod netns_pair;
mod notrack_plan;
