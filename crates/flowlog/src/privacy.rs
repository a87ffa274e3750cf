//! What of a record is not to be logged is taken out before anything is written (RFC 6888, REQ-12: a carrier's NAT should not log whom its subscribers talk to).
use crate::record::{LogEvent, LogRecord, LogSession, SessionKind};

/// What of addresses is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPrivacy {
    /// Log the peers.
    pub peers: bool,
    /// Log the addresses inside.
    pub inside: bool,
}

impl LogPrivacy {
    /// Takes out of a record what is not to be logged.
    pub fn apply(self, record: &mut LogRecord) {
        match &mut record.event {
            LogEvent::SessionBegin(session) => self.apply_to_session(session),
            LogEvent::SessionEnd(end) => self.apply_to_session(&mut end.session),
            LogEvent::PortBlockTaken(block) | LogEvent::PortBlockReturned(block) if !self.inside => block.inside = None,
            LogEvent::PortsExhausted { peer, .. } if !self.peers => *peer = None,
            _ => (),
        }
    }

    fn apply_to_session(self, session: &mut LogSession) {
        let kind = session.kind();
        if !self.peers {
            match kind {
                SessionKind::FromInside => (session.destination, session.translated_destination) = (None, None),
                SessionKind::ToInside => (session.source, session.translated_source) = (None, None),
            }
        }
        if !self.inside {
            match kind {
                SessionKind::FromInside => session.source = None,
                SessionKind::ToInside => session.translated_destination = None,
            }
        }
    }
}
