//! Linux's connection tracking from user space, and the kernel interfaces that a gateway needs.
//!
//! Files are read through a [`SysRoot`], so that another machine's files (an image, a support bundle) are read like this
//! machine's. This crate reports what is there; what it means is for `keepstate-advisor`, which does no IO.

mod address_field;
pub mod addresses;
pub mod af_packet;
pub mod atomic_file;
pub mod boot;
pub mod cgroup;
pub mod command;
pub mod cpus;
pub mod ct_users;
pub mod ctnetlink;
pub mod file_access;
pub mod kernel_log;
mod mapped_memory;
pub mod meminfo;
pub mod multicast_groups;
pub mod netdev;
pub mod netlink;
pub mod netns;
pub mod nfqueue;
pub mod nic_allowances;
pub mod no_blocking;
mod open_in_root;
pub mod peercred;
pub mod poll;
pub mod priority;
pub mod privileges;
pub mod proc_conntrack;
pub mod proc_ct_stat;
pub mod process_parent;
pub mod raw_socket;
pub mod routes;
pub mod rtnetlink;
mod ruleset_drops;
pub mod ruleset_scan;
pub mod sd_notify;
pub mod signal;
pub mod slabinfo;
pub mod snmp;
pub mod sock_diag;
pub mod socket_query;
pub mod sockstat;
pub mod sysctl;
mod sysroot;
pub mod tc;
pub mod tun;
pub mod uptime;
pub mod virtio_net;
pub mod xfrm;

pub use sysroot::{FileError, SysRoot};
