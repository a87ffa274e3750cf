//! A story: knobs, and packets in order. What the grammars write, the judges play, and a ledger prints.
use super::step::Step;
use keepstate_engine::{Knob, Knobs};

/// Knobs and packets. It begins with an empty table.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub knobs: Vec<(Knob, u64)>,
    pub steps: Vec<Step>,
    /// Lasts long on purpose, and waits between bursts; any other story must end before anything can expire.
    pub slow: bool,
}

/// Knobs that stories change: each is put back to its default by a story that does not name it.
pub const CHANGING: &[Knob] = &[
    Knob::Acct,
    Knob::Checksum,
    Knob::GenericTimeout,
    Knob::GreTimeout,
    Knob::GreTimeoutStream,
    Knob::IcmpTimeout,
    Knob::Icmpv6Timeout,
    Knob::SctpTimeoutClosed,
    Knob::SctpTimeoutCookieEchoed,
    Knob::SctpTimeoutCookieWait,
    Knob::SctpTimeoutEstablished,
    Knob::SctpTimeoutHeartbeatSent,
    Knob::SctpTimeoutShutdownAckSent,
    Knob::SctpTimeoutShutdownRecd,
    Knob::SctpTimeoutShutdownSent,
    Knob::TcpBeLiberal,
    Knob::TcpIgnoreInvalidRst,
    Knob::TcpLoose,
    Knob::TcpMaxRetrans,
    Knob::TcpTimeoutClose,
    Knob::TcpTimeoutCloseWait,
    Knob::TcpTimeoutEstablished,
    Knob::TcpTimeoutFinWait,
    Knob::TcpTimeoutLastAck,
    Knob::TcpTimeoutMaxRetrans,
    Knob::TcpTimeoutSynRecv,
    Knob::TcpTimeoutSynSent,
    Knob::TcpTimeoutTimeWait,
    Knob::TcpTimeoutUnacknowledged,
    Knob::UdpTimeout,
    Knob::UdpTimeoutStream,
];

impl Story {
    /// The value of every knob that stories change.
    pub fn values(&self) -> impl Iterator<Item = (Knob, u64)> + '_ {
        CHANGING.iter().map(|knob| {
            let named = self.knobs.iter().find(|(named, _)| named == knob).map(|(_, value)| *value);
            let default = if *knob == Knob::Acct { 1 } else { u64::from(knob.default_value()) };
            (*knob, named.unwrap_or(default))
        })
    }

    /// The engine's knobs for this story.
    pub fn engine_knobs(&self) -> Result<Knobs, keepstate_engine::KnobError> {
        let mut knobs = Knobs::default();
        // Stories are short; a small index makes a fresh engine cheap.
        knobs.set(Knob::Buckets, 4096)?;
        for (knob, value) in self.values() {
            knobs.set(knob, value)?;
        }
        Ok(knobs)
    }

    /// The same story with only some of its steps.
    pub fn with(&self, steps: Vec<Step>) -> Story {
        Story { knobs: self.knobs.clone(), steps, slow: self.slow }
    }
}
