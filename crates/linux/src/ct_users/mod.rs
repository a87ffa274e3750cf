//! Users of connection tracking: rules, services, BPF programs, modules; in every network namespace.
//!
//! A [`CtUserAudit`] is taken once. It lists what was found and, no less important, [what could not be checked](NotChecked): "not checked" must never be
//! read as "not there". It changes nothing: it runs only programs that list, and creates or loads no table.
mod audit;
mod bpf;
mod finding;
mod inspect;
pub mod iptables;
pub mod ipvs;
pub mod kernel_module;
pub mod known_service;
pub mod listed_ruleset;
pub mod nftables;
pub mod openvswitch;
mod rule_users;
pub mod tc;
#[cfg(test)]
mod tests;

pub use audit::CtUserAudit;
pub use finding::{Confidence, CtUser, CtUserKind, NotChecked};
pub use inspect::{NetnsInspection, inspect, inspect_netns};
pub use rule_users::table_ct_users;
