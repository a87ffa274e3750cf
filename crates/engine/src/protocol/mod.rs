//! Protocol trackers: how one packet changes its connection.
//!
//! Each tracker is a small value, read from the record and written back ([`Tcp::load`], [`Tcp::store`]). It is created from a first packet and
//! updated by every packet, and must never access tables. Its result is a [`TrackResult`].
pub(crate) mod sctp;
pub(crate) mod stateless;
pub(crate) mod tcp;
mod track_ctx;

use crate::table::record::HotRecord;
use sctp::Sctp;
pub(crate) use tcp::fast_path::FastPathTimeouts;
pub(crate) use tcp::{IgnoredSyn, Tcp};
pub(crate) use track_ctx::{TrackCtx, TrackResult, seconds_to_ticks};

/// The tracker state of an unconfirmed connection; it becomes part of the record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tracker {
    Tcp(Tcp),
    Sctp(Sctp),
    Stateless(stateless::Stateless),
}

impl Tracker {
    /// Writes the state into a record.
    pub(crate) fn store(&self, hot: &mut HotRecord) {
        match self {
            Tracker::Tcp(tcp) => tcp.store(hot),
            Tracker::Sctp(sctp) => sctp.store(hot),
            Tracker::Stateless(stateless) => stateless.store(hot),
        }
    }
}
