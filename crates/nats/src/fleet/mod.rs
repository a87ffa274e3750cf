//! The fleet: nodes that say they are there and answer questions; nothing is written at a node.
//!
//! ```text
//! bucket keepstate_fleet_<fleet>             a NodeRecord by node, gone when it is stopped, or a day after it has died
//! keepstate.<fleet>.<node>.stats|doctor|list questions; the answer goes to whoever has asked
//! ```
//! Who may ask whom is decided by NATS' own permissions on these subjects.
mod client;
mod node;
mod protocol;

pub use client::FleetClient;
pub use node::{FleetAnswers, FleetNode};
pub use protocol::{FleetQuestion, NodeKind, NodeRecord};
