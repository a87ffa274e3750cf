//! The same ruleset and the same traffic through the kernel's netfilter and through `keepstate gateway --interface`, each in namespaces of its own: what clients and servers see must be the same.
//!
//! A case is a ruleset, what is prepared (`r ip route add …`: a command in a namespace), and steps (see [`twin::Lab::step`]). What each step shows is written beside it, as the kernel has shown it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod clashes;
#[path = "../common/mod.rs"]
mod common;
mod crossings;
mod events;
mod fragments;
mod frames;
mod ftp;
mod icmp;
mod icmp_limits;
mod icmp_states;
mod later_rules;
mod led_back;
mod listings;
mod local_nat;
mod many_zones;
mod maps;
mod metas;
mod nat;
mod nat_addresses;
mod odd_protocols;
mod one_direction;
mod own_output;
mod own_ports;
#[path = "../common/peers.rs"]
mod peers;
mod priorities;
mod proxies;
mod quotes;
mod reflections;
mod rejects;
#[path = "../common/router_netns.rs"]
mod router_netns;
mod set_changes;
mod shadows;
mod sockets;
mod tcp_changes;
mod tproxy;
mod tunnels;
mod twin;
mod unanswered;
mod zones;

use common::report_skipped;
