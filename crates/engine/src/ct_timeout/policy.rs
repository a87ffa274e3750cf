//! A timeout policy and its id.
use crate::{Sysctl, Sysctls};
use alloc::vec::Vec;

/// Identifies a timeout policy of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutPolicyId(pub(crate) u16);

/// The replaced timeouts (in seconds), and the complete sysctls that result.
#[derive(Clone, Debug)]
pub(crate) struct TimeoutPolicy {
    pub(crate) settings: Vec<(Sysctl, u32)>,
    pub(crate) sysctls: Sysctls,
}
