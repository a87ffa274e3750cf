//! A sans-IO router: connection tracking and NAT by [`keepstate_engine`], an nftables ruleset by [`keepstate_rules`], and what a router itself answers.
//!
//! A [`Router`] takes packets and the time, and gives out packets, each with the interface it leaves by. It knows the machine by its [`FibTable`] of interfaces,
//! addresses and routes. It has no clock, no sockets and no threads: a driver reads and writes the packets.
//!
//! # How to drive it
//!
//! | call | when |
//! |---|---|
//! | [`poll(now)`](Router::poll) | once before the first packet, then at `next_wake` and between batches of packets |
//! | [`handle(packet, iif, now)`](Router::handle) | for each packet received; the error is the reason of a drop |
//! | [`poll_output()`](Router::poll_output) | after each of these, until it is empty: the packets to send |
//! | [`poll_log()`](Router::poll_log) | now and then, until it is empty: lines for the log |
//! | [`next_wake(now)`](Router::next_wake) | before waiting for packets: when to call `poll` at the latest |
//!
//! Nothing else has to be called. `now` must not go back. It is nanoseconds since an epoch of the driver's choice; it must be a clock that nobody sets. Rules that match dates take it for
//! the time since 1970, unless [`Router::set_wall_clock`] tells otherwise. Optional inputs: [`Router::handle_gso`] for large TCP packets, [`Router::send_host_unreachable`] when a
//! neighbour does not answer, [`Router::replace_program`], [`Router::replace_fib`] and [`Router::replace_services`] when the configuration changes.
//!
//! ```
//! use keepstate_engine::{Engine, Instant, Secret, Sysctls};
//! use keepstate_router::{Egress, FibTable, Interface, Route, Router};
//! use keepstate_rules::{NoIncludes, compile, parse_with};
//!
//! let rules = "table ip nat { chain post { type nat hook postrouting priority srcnat; oifname wan0 masquerade; } }";
//! let (ruleset, sources) = parse_with("example.nft", rules, &NoIncludes, &[])?;
//! let lan = Interface::new(1, "lan0", 1500).with_address([10, 1, 0, 1].into(), 24);
//! let wan = Interface::new(2, "wan0", 1500).with_address([192, 0, 2, 1].into(), 24);
//! let fib = FibTable::new(vec![lan, wan], vec![Route::new([0; 4].into(), 0, 2)]);
//! let mut now = Instant::from_secs(1);
//! // Use random secrets in earnest.
//! let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
//! let mut router = Router::new(engine, compile(&ruleset, &sources)?, fib, (1, 2));
//!
//! // One turn of a driver's loop; a UDP packet from 10.1.0.7 has come in by lan0.
//! # let packet = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x46, 0x8c, 10, 1, 0, 7, 198, 51, 100, 9, 0x9c, 0x40, 0, 53, 0, 8, 0, 0];
//! router.poll(now);
//! router.handle(&packet, 1, now)?;
//! while let Some(out) = router.poll_output() {
//!     let Egress::Forward { oif, next_hop, packet } = out else { continue };
//!     assert_eq!((oif, next_hop), (2, [198, 51, 100, 9].into()));
//!     assert_eq!(packet[12..16], [192, 0, 2, 1], "the source is translated");
//! }
//! while let Some(line) = router.poll_log() {
//!     println!("{line}");
//! }
//! // Nothing comes in until the next wake: the connection expires.
//! while let Some(due) = router.next_wake(now) {
//!     now = due;
//!     router.poll(now);
//! }
//! assert_eq!(router.engine().count(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! `examples/tun_firewall.rs` is a whole program between two TUN interfaces, `examples/simulation.rs` one on a virtual clock.
#![warn(clippy::disallowed_methods, clippy::disallowed_types)]
mod cluster_duty;
mod fib;
mod icmp_error;
mod icmp_ratelimit;
mod icmp_redirect;
mod ip_fragment;
mod ipv4_options;
mod known_flow;
mod route_oracle;
mod route_scope;
mod route_table;
mod router;
pub mod service;
mod shard_addresses;
mod source_address;
mod syn_class;
mod synproxy;

pub use cluster_duty::{ClusterDuty, DutyCounters};
pub use fib::{FibChange, FibTable, Interface, LINK_TYPE_NONE, RoutePage};
pub use icmp_ratelimit::IcmpLimits;
pub use known_flow::{FlowOffloadStats, FlowReport, FlowSource, FlowTarget, FlowWay, KnownFlow};
pub use route_oracle::{RouteAnswer, RouteOracle, RouteQuery};
pub use route_table::{Route, RoutePlacement};
pub use router::{
    DropReason, Egress, InterfaceCounts, LogLine, MarkedEgress, PacketTap, Router, RouterCounters, TappedPacket,
    WallClock,
};
pub use shard_addresses::{ConnectionShard, ShardAddresses};
pub use source_address::SourceAddress;
pub use syn_class::{MAX_CLASSES as MAX_SYN_CLASSES, SynClass};
pub use synproxy::SynproxyStats;
