//! The program's parts, as modules: what `main` puts together.

pub mod amount;
pub mod capture;
pub mod check;
pub mod cli;
pub mod collect;
pub mod completions;
pub mod conntrack;
pub mod control;
pub mod disable;
pub mod doctor;
pub mod each;
pub mod filter;
pub mod follower;
pub mod format;
pub mod gateway;
pub mod lab;
pub mod man;
pub mod moment;
pub mod mqtt;
pub mod notes;
pub mod options;
pub mod progress;
pub mod replay;
pub mod ring;
pub mod ruleset;
pub mod screen;
pub mod services;
pub mod simulate;
pub mod size;
pub mod sysctl;
pub mod tune;
pub mod verbosity;
pub mod watch;

#[cfg(test)]
mod sample;
