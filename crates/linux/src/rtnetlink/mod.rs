//! rtnetlink: the kernel's interfaces, addresses, routes and neighbours; dumped, then monitored.
//!
//! [`message`] is the codec, without IO; [`RtMonitor`] dumps and monitors, [`NeighbourResolver`] asks the kernel to resolve a neighbour. It never changes a route or an address.
pub mod message;
mod monitor;

pub use message::{RtAddress, RtLink, RtMessage, RtNeighbour, RtNextHop, RtPlacement, RtRoute};
pub use monitor::{NeighbourResolver, RtChanges, RtMonitor};
