//! The fleet on a terminal: its nodes, the worst first; one node in detail; the shards and who decides them. It only reads.
mod draw;
mod run;
mod state;

pub use run::{fleet_screen_text, run_fleet};
pub use state::FleetState;

#[cfg(test)]
mod tests;
