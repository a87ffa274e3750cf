//! The program's parts, as modules: what `main` puts together.

pub mod check;
pub mod cli;
pub mod collect;
pub mod completions;
pub mod conntrack;
pub mod control;
pub mod disable;
pub mod doctor;
pub mod each;
pub mod gateway;
pub mod man;
pub mod moment;
pub mod notes;
pub mod options;
pub mod progress;
pub mod replay;
pub mod screen;
pub mod simulate;
pub mod size;
pub mod tune;
pub mod verbosity;
pub mod watch;
