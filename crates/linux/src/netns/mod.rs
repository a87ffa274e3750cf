//! Network namespaces: [which there are](list) and what is inside one ([`Netns`]), and new ones without a name ([`AnonNetns`]).
//!
//! Whoever works inside a namespace does so on a thread of its own, which enters, works and ends: the calling thread never leaves its namespace.
mod anonymous;
mod discover;
mod enter;

pub use anonymous::{AnonNetns, become_root_in_user_namespace};
pub use discover::{HiddenNetns, Netns, NetnsList, current, find, list};
