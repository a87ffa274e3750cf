//! The flows that are offloaded, counted; and those that were revoked.
use crate::ConnId;
use alloc::vec::Vec;

/// Flows that are out.
#[derive(Debug, Default)]
pub(crate) struct OffloadState {
    pub(crate) count: usize,
    pub(crate) revoked: Vec<ConnId>,
}
