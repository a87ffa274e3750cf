//! A live view of a connection table on a terminal: who fills it, how fast, until when there is room, and one connection in detail.
//!
//! [`TopState`] is what the user has chosen, changed by keys alone; [`TopSnapshot`] is what is shown, taken from a
//! [`LiveFeed`](keepstate_live::LiveFeed); drawing is a function of the two. [`run`] puts them on a terminal, which afterwards is as it was. A connection is deleted only after the
//! user has confirmed it.
mod draw;
mod keys;
mod once;
mod run;
mod snapshot;
mod state;
mod sticky;
mod terminal;
mod text;

pub use draw::draw;
pub use keys::TopAction;
pub use once::screen_text;
pub use run::{FindingSource, TopError, run};
pub use snapshot::{FindingLine, TopSnapshot};
pub use state::{TopPane, TopPrompt, TopState};

#[cfg(test)]
mod tests;
