//! Linux's own connection table and knobs, as an operator meets them.
//!
//! What is read from files comes through a [`Root`], so that another machine's files (an image, a support bundle) are read as this
//! machine's are. This crate says what is there; what it means is said by `keepstate-advisor`, which never reads anything itself.

pub mod addresses;
pub mod boot;
pub mod counters;
pub mod ctnetlink;
pub mod dependents;
pub mod devices;
pub mod kernel_log;
pub mod memory;
pub mod namespace;
pub mod netlink;
pub mod nfqueue;
pub mod notify;
pub mod offload;
pub mod packet;
pub mod peer;
pub mod private;
pub mod processors;
pub mod program;
mod root;
pub mod route;
pub mod rules;
pub mod sample;
pub mod signal;
pub mod slab;
pub mod snmp;
pub mod sockets;
pub mod sysctl;
pub mod tun;
pub mod uptime;
pub mod xdp;

pub use root::{Root, Unreadable};
