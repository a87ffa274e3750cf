//! One connection in the model: what a row, a filter and a group need, in some 90 bytes.
//!
//! It begins with a message that has the tuples and is merged with later ones, which leave out what has not changed. The reply direction is kept
//! only where it is not the original one turned round, counters only where they are counted.
use crate::flow_key::{FlowKey, endpoint_text, is_icmp};
use keepstate_linux::ctnetlink::{
    CtCounters, CtFamily, CtFlow, CtLabels, CtProtoInfo, CtSctpInfo, CtTcpInfo, SctpState, Status, TcpState,
};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The protocol's state, or for a protocol without states whether there was an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowState {
    /// TCP's state by its number.
    Tcp(u8),
    /// SCTP's state.
    Sctp(SctpState),
    /// No state, no answer yet.
    Unreplied,
    /// No state, answered.
    Replied,
    /// No state, packets in both directions for some time.
    Assured,
}

impl FlowState {
    /// Its name: the kernel's, or UNREPLIED, REPLIED, ASSURED.
    pub fn name(self) -> &'static str {
        match self {
            FlowState::Tcp(number) => TcpState::from_number(number).map_or("UNKNOWN", TcpState::name),
            FlowState::Sctp(state) => state.name(),
            FlowState::Unreplied => "UNREPLIED",
            FlowState::Replied => "REPLIED",
            FlowState::Assured => "ASSURED",
        }
    }

    fn of_status(status: Status) -> FlowState {
        if status.contains(Status::ASSURED) {
            FlowState::Assured
        } else if status.contains(Status::SEEN_REPLY) {
            FlowState::Replied
        } else {
            FlowState::Unreplied
        }
    }
}

/// A translated connection: who is inside, what the outside sees, and the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatPath {
    /// The end whose address is hidden: the client of source NAT, the server of destination NAT.
    pub inside: String,
    /// The address and port that the peer talks to.
    pub outside: String,
    /// The other end.
    pub peer: String,
}

impl fmt::Display for NatPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} → {} → {}", self.inside, self.outside, self.peer)
    }
}

/// Packets and bytes of both directions, and how fast they grew between the last two readings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FlowMeter {
    pub(crate) counts: [CtCounters; 2],
    pub(crate) bytes_per_second: u64,
    pub(crate) packets_per_second: u64,
    read_at: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FlowRecord {
    pub(crate) key: FlowKey,
    /// The reply direction, if something is translated.
    pub(crate) reply: Option<Box<FlowKey>>,
    pub(crate) meter: Option<Box<FlowMeter>>,
    labels: Option<Box<CtLabels>>,
    pub(crate) id: Option<u32>,
    status: Status,
    mark: u32,
    /// Seconds on the model's clock.
    deadline: u32,
    pub(crate) began: u32,
    pub(crate) state: FlowState,
    /// The dump in which, or after which, it was seen last.
    pub(crate) epoch: u8,
    /// An event told of it during that dump: what the dump says may be older.
    pub(crate) is_newer_than_dump: bool,
}

impl FlowRecord {
    pub(crate) fn new(key: FlowKey, flow: &CtFlow, now: Duration) -> FlowRecord {
        let mut record = FlowRecord {
            key,
            reply: None,
            meter: None,
            labels: None,
            id: None,
            status: Status::empty(),
            mark: 0,
            deadline: 0,
            began: seconds(now),
            state: FlowState::Unreplied,
            epoch: 0,
            is_newer_than_dump: false,
        };
        record.merge(flow, now);
        record
    }

    /// Takes over what the message has.
    pub(crate) fn merge(&mut self, flow: &CtFlow, now: Duration) {
        self.id = flow.id.or(self.id);
        self.mark = flow.mark.unwrap_or(self.mark);
        if let Some(timeout) = flow.timeout {
            self.deadline = seconds(now).saturating_add(timeout);
        }
        if let Some(status) = flow.status {
            self.status = status;
        }
        self.state = match (flow.protoinfo, self.state) {
            (CtProtoInfo::Tcp(CtTcpInfo { state: Some(state), .. }), _) => FlowState::Tcp(state),
            (CtProtoInfo::Sctp(CtSctpInfo { state: Some(state), .. }), _) => FlowState::Sctp(state),
            (_, state @ (FlowState::Tcp(_) | FlowState::Sctp(_))) => state,
            _ => FlowState::of_status(self.status),
        };
        if let Some(reply) = FlowKey::of_tuple(&flow.reply, self.key.zone) {
            let plain = self.key.inverted();
            // The reply's type of an ICMP message differs from the request's without any translation.
            let same = if is_icmp(self.key.protocol) {
                FlowKey { ports: [reply.ports[0], plain.ports[1]], ..reply } == plain
            } else {
                reply == plain
            };
            self.reply = (!same).then(|| Box::new(reply));
        }
        if flow.labels.is_some() {
            self.labels = flow.labels.filter(|labels| *labels != CtLabels::default()).map(Box::new);
        }
        self.measure(flow.counters, now);
    }

    /// Takes over counters, and computes rates if there were some before.
    pub(crate) fn measure(&mut self, counters: [Option<CtCounters>; 2], now: Duration) {
        let [Some(original), Some(reply)] = counters else { return };
        let counts = [original, reply];
        let sum = |counts: &[CtCounters; 2], of: fn(&CtCounters) -> u64| counts.iter().map(of).sum::<u64>();
        let mut meter = FlowMeter { counts, read_at: now, ..FlowMeter::default() };
        if let Some(before) = self.meter.as_deref() {
            let passed = now.saturating_sub(before.read_at).as_millis().min(u128::from(u64::MAX));
            let passed = u64::try_from(passed).unwrap_or(u64::MAX).max(1);
            let rate = |of: fn(&CtCounters) -> u64| {
                sum(&counts, of).saturating_sub(sum(&before.counts, of)).saturating_mul(1000) / passed
            };
            (meter.bytes_per_second, meter.packets_per_second) = (rate(|c| c.bytes), rate(|c| c.packets));
        }
        match &mut self.meter {
            Some(kept) => **kept = meter,
            none => *none = Some(Box::new(meter)),
        }
    }

    /// Bytes of both directions.
    pub(crate) fn bytes(&self) -> u64 {
        self.meter.as_deref().map_or(0, |meter| meter.counts.iter().map(|count| count.bytes).sum())
    }

    /// Bytes a second of both directions.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.meter.as_deref().map_or(0, |meter| meter.bytes_per_second)
    }

    /// Seconds until it expires, as far as is known.
    pub(crate) fn remaining(&self, now: Duration) -> u32 {
        self.deadline.saturating_sub(seconds(now))
    }

    /// Writes it into a message, for filters and formats.
    pub(crate) fn fill(&self, flow: &mut CtFlow, now: Duration) {
        let reply = self.reply.as_deref().copied().unwrap_or_else(|| self.key.inverted());
        *flow = CtFlow {
            family: Some(CtFamily::of(self.key.source)),
            original: self.key.tuple(),
            reply: reply.tuple(),
            status: Some(self.status),
            timeout: Some(self.remaining(now)),
            mark: Some(self.mark),
            id: self.id,
            zone: Some(self.key.zone).filter(|zone| *zone != 0),
            protoinfo: match self.state {
                FlowState::Tcp(state) => CtProtoInfo::Tcp(CtTcpInfo { state: Some(state), ..CtTcpInfo::default() }),
                FlowState::Sctp(state) => CtProtoInfo::Sctp(CtSctpInfo { state: Some(state), ..CtSctpInfo::default() }),
                _ => CtProtoInfo::Empty,
            },
            counters: self.meter.as_deref().map_or([None; 2], |meter| meter.counts.map(Some)),
            labels: self.labels.as_deref().copied(),
            ..CtFlow::default()
        };
    }

    /// The translation, if there is one.
    pub(crate) fn nat(&self) -> Option<NatPath> {
        let reply = self.reply.as_deref()?;
        let port = |number: u16| self.key.has_ports().then_some(number);
        let [original, answer] = [&self.key, reply].map(|key| {
            [endpoint_text(key.source, port(key.ports[0])), endpoint_text(key.destination, port(key.ports[1]))]
        });
        let [client, called] = original;
        let [server, returned] = answer;
        Some(match (returned != client, server != called) {
            // Both: the server sees the outside of the client, and the client a service's address.
            (true, true) => NatPath { inside: client, outside: format!("{called} ⇒ {returned}"), peer: server },
            (true, false) => NatPath { inside: client, outside: returned, peer: server },
            (false, _) => NatPath { inside: server, outside: called, peer: client },
        })
    }

    /// Who answers, behind destination NAT.
    pub(crate) fn server(&self) -> (IpAddr, u16) {
        match self.reply.as_deref() {
            Some(reply) => (reply.source, reply.ports[0]),
            None => (self.key.destination, self.key.ports[1]),
        }
    }

    /// The reply direction, if the source is translated: its destination is the outside.
    pub(crate) fn source_nat(&self) -> Option<&FlowKey> {
        let reply = self.reply.as_deref()?;
        let moved = reply.destination != self.key.source || reply.ports[1] != self.key.ports[0];
        (moved && self.key.has_ports()).then_some(reply)
    }
}

/// Whole seconds of the model's clock.
pub(crate) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
