//! Linux's own connection table and knobs, as an operator meets them.
//!
//! What is read from files comes through a [`Root`], so that another machine's files (an image, a support bundle) are read as this
//! machine's are. This crate says what is there; what it means is said by `keepstate-advisor`, which never reads anything itself.

pub mod addresses;
pub mod af_packet;
pub mod anon_netns;
pub mod boot;
pub mod command;
pub mod cpus;
pub mod ct_users;
pub mod ctnetlink;
pub mod kernel_log;
pub mod meminfo;
pub mod netlink;
pub mod netns;
pub mod nfqueue;
pub mod nic_allowances;
pub mod peercred;
pub mod proc_conntrack;
pub mod proc_ct_stat;
pub mod rtnetlink;
pub mod ruleset_scan;
pub mod sd_notify;
pub mod signal;
pub mod slabinfo;
pub mod snmp;
pub mod sockstat;
pub mod sysctl;
mod sysroot;
pub mod tun;
pub mod uptime;
pub mod virtio_net;
pub mod xdp;

pub use sysroot::{FileError, SysRoot};
