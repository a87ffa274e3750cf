//! Offload bookkeeping: the number of offloaded flows, and the queue of revoked ones.
use crate::ConnId;
use alloc::vec::Vec;

/// The number of offloaded flows, and revoked flows that were not polled yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct OffloadState {
    pub(crate) count: usize,
    pub(crate) revoked: Vec<ConnId>,
}
