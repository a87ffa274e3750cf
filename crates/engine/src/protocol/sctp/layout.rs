//! An association's layout in a record, and the conversion of its updates to a [`TrackResult`].
use super::error::SctpError;
use super::{Sctp, SctpUpdate};
use crate::protocol::{TrackCtx, TrackResult, seconds_to_ticks};
use crate::table::record::HotRecord;
use crate::{Reason, SctpState, Status};

impl Sctp {
    /// Reads the association from a record.
    pub(crate) fn load(hot: &HotRecord) -> Sctp {
        let state = SctpState::ALL.get(usize::from(hot.state)).copied().unwrap_or(SctpState::None);
        Sctp { vtags: [hot.words[0], hot.words[1]], state, flags: hot.flags[0] }
    }

    /// Writes the association into a record.
    pub(crate) fn store(&self, hot: &mut HotRecord) {
        [hot.words[0], hot.words[1]] = self.vtags;
        hot.state = self.state as u8;
        hot.flags[0] = self.flags;
        // An invalid or ignored packet does not report it, yet Linux has set the bit.
        if self.was_established() {
            hot.add_status(Status::ASSURED);
        }
    }

    /// Converts an update to a [`TrackResult`].
    pub(crate) fn track_result(&self, step: Result<SctpUpdate, SctpError>, context: &TrackCtx<'_>) -> TrackResult {
        match step {
            Err(error) => TrackResult::invalid(error.into()),
            Ok(SctpUpdate { ignored: true, changed, .. }) => TrackResult::NoRefresh { reason: None, changed },
            Ok(SctpUpdate { changed, assured, .. }) => TrackResult::Pass {
                timeout: seconds_to_ticks(context.sysctls[self.timeout_sysctl()]),
                changed,
                assured: assured && !context.status.contains(Status::ASSURED),
            },
        }
    }
}

impl From<SctpError> for Reason {
    fn from(error: SctpError) -> Reason {
        match error {
            SctpError::MalformedChunks => Reason::SctpChunks,
            SctpError::UnexpectedFirstChunk => Reason::SctpFirst,
            SctpError::BadVtag => Reason::SctpTag,
            SctpError::InvalidTransition => Reason::SctpState,
            SctpError::UnexpectedInitAck => Reason::SctpInitAck,
        }
    }
}
