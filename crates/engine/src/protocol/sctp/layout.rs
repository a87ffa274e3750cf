//! An association in a record, and what its steps mean to the engine.
use super::{Fault, Sctp, Step};
use crate::protocol::{Context, Ruling, ticks};
use crate::table::record::Hot;
use crate::{SctpState, Status, Why};

impl Sctp {
    /// Reads it from a record.
    pub(crate) fn load(hot: &Hot) -> Sctp {
        let state = SctpState::ALL.get(usize::from(hot.state)).copied().unwrap_or(SctpState::None);
        Sctp { tags: [hot.words[0], hot.words[1]], state, flags: hot.flags[0] }
    }

    /// Writes it into a record.
    pub(crate) fn store(&self, hot: &mut Hot) {
        [hot.words[0], hot.words[1]] = self.tags;
        hot.state = self.state as u8;
        hot.flags[0] = self.flags;
        // A ruling of invalid or ignored does not tell, and yet Linux has set the bit.
        if self.was_up() {
            hot.status |= Status::ASSURED.0;
        }
    }

    /// What a step means for the connection.
    pub(crate) fn rule(&self, step: Result<Step, Fault>, context: &Context<'_>) -> Ruling {
        match step {
            Err(fault) => Ruling::invalid(fault.into()),
            Ok(Step { ignored: true, changed, .. }) => Ruling::Quiet { why: None, changed },
            Ok(Step { changed, assured, .. }) => Ruling::Pass {
                timeout: ticks(context.knobs[self.timeout()]),
                changed,
                assured: assured && !context.status.has(Status::ASSURED),
            },
        }
    }
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Why {
        match fault {
            Fault::Chunks => Why::SctpChunks,
            Fault::First => Why::SctpFirst,
            Fault::Tag => Why::SctpTag,
            Fault::State => Why::SctpState,
            Fault::InitAck => Why::SctpInitAck,
        }
    }
}
