//! rtnetlink: the kernel's interfaces, addresses, routes and neighbours; dumped, then monitored.
//!
//! [`message`] is the codec, without IO; [`RtMonitor`] dumps and monitors, [`RtRouteSocket`] asks for a packet's way, [`NeighbourResolver`] asks the kernel to resolve a neighbour,
//! [`AddressSocket`] gives interfaces the addresses that move between machines. No route is ever changed.
mod address_change;
mod fields;
pub mod message;
mod monitor;
mod neighbour_message;
mod route_message;
mod route_query;

pub use address_change::AddressSocket;
pub use message::{RouteSelectors, RtAddress, RtLink, RtMessage, RtNextHop, RtPlacement, RtRoute};
pub use monitor::{NeighbourResolver, RtChanges, RtMonitor, dump_links, dump_neighbours};
pub use neighbour_message::{NeighbourState, RtNeighbour};
pub use route_message::{RtRouteAnswer, RtRouteQuery};
pub use route_query::RtRouteSocket;
