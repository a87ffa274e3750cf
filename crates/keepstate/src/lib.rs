//! The program's parts, as modules: what `main` puts together.

pub mod check;
pub mod cli;
pub mod collect;
pub mod completions;
pub mod conntrack;
pub mod control;
mod control_nft;
pub mod disable;
pub mod doctor;
pub mod gateway;
pub mod lab;
pub mod logging;
pub mod man;
pub mod mqtt;
pub mod per_packet;
pub mod progress;
pub mod replay;
pub mod ruleset_args;
pub mod shared_args;
pub mod simulate;
pub mod size;
pub mod stderr;
pub mod time_arg;
pub mod tui;
pub mod tune;
pub mod unit_args;
pub mod watch;
