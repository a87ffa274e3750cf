//! A live view of a connection table on a terminal: who fills it, how fast, until when there is room, and one connection in detail.
//!
//! [`TopState`] is what the user has chosen, changed by keys alone; [`TopSnapshot`] is what is shown, taken from a
//! [`LiveFeed`](keepstate_live::LiveFeed); drawing is a function of the two. [`run`] puts them on a terminal, which afterwards is as it was. A connection is deleted only after the
//! user has confirmed it. [`run_fleet`] shows the nodes of a fleet and the shards that they share.
mod draw;
mod fleet;
mod keys;
mod once;
mod paint;
mod run;
mod snapshot;
mod state;
mod sticky;
mod terminal;
mod text;

pub use draw::draw;
pub use fleet::{FleetState, fleet_screen_text, run_fleet};
pub use keys::TopAction;
pub use once::screen_text;
pub use run::{FindingSource, TopError, run};
pub use snapshot::{FindingLine, SwitchOn, TopSnapshot};
pub use state::{TopPane, TopPrompt, TopState};

#[cfg(test)]
mod tests;
