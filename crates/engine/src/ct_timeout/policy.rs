//! A timeout policy and its name.
use crate::{Sysctl, Sysctls};
use alloc::vec::Vec;

/// Names a policy of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutPolicyId(pub(crate) u16);

/// What a policy says.
#[derive(Debug)]
pub(crate) struct TimeoutPolicy {
    pub(crate) settings: Vec<(Sysctl, u32)>,
    pub(crate) sysctls: Sysctls,
}
