//! The kernel's devices, addresses, routes and neighbours (rtnetlink): read whole, then followed.
//!
//! [`message`] is the codec, without IO; [`Watcher`] asks, follows, and asks the kernel to find a neighbour. It never changes a route or an address.
pub mod message;
mod monitor;

pub use message::{RtAddress, RtLink, RtMessage, RtNeighbour, RtRoute};
pub use monitor::{RtChanges, RtMonitor};
