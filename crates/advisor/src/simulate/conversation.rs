//! One TCP connection of a client, both ends: what each sends next.
use crate::simulate::packet_builder::{MSS, SimEndpoint, SimPacketBuilder, SimSegment, flag};
use keepstate_engine::{CtInfo, CtVerdict, Engine, Instant, Outcome, Zone};

/// The sequence numbers of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConversation {
    /// The client.
    pub client: SimEndpoint,
    /// The server.
    pub server: SimEndpoint,
    /// The client's next sequence number.
    pub client_seq: u32,
    /// The server's next sequence number.
    pub server_seq: u32,
}

/// The outcome of a few packets sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// All passed, and their entry existed.
    Passed,
    /// All passed, but the entry had expired: it was created again, or the packets were INVALID (which a rule may drop).
    EntryGone(CtInfo),
    /// The table was full: the first was dropped.
    Dropped,
}

/// The path of the packets.
pub struct SimLink<'a> {
    /// The table.
    pub engine: &'a mut Engine,
    /// The packet buffer.
    pub packet_builder: &'a mut SimPacketBuilder,
    /// The time.
    pub now: Instant,
    /// Packets sent.
    pub sent: &'a mut u64,
}

impl SimLink<'_> {
    /// Sends one segment; one that cannot be built counts as dropped.
    pub fn send_tcp(&mut self, segment: &SimSegment) -> SendOutcome {
        *self.sent += 1;
        match self.packet_builder.tcp(segment) {
            Some(packet) => send_outcome(&self.engine.handle(&packet, Zone::default(), self.now)),
            None => SendOutcome::Dropped,
        }
    }

    /// Sends one datagram.
    pub fn send_udp(&mut self, from: SimEndpoint, to: SimEndpoint, data: u16) -> SendOutcome {
        *self.sent += 1;
        match self.packet_builder.udp(from, to, data) {
            Some(packet) => send_outcome(&self.engine.handle(&packet, Zone::default(), self.now)),
            None => SendOutcome::Dropped,
        }
    }
}

fn send_outcome(outcome: &Outcome) -> SendOutcome {
    match (outcome.verdict, outcome.info) {
        (CtVerdict::Drop, _) => SendOutcome::Dropped,
        (CtVerdict::Accept, CtInfo::Established) => SendOutcome::Passed,
        (CtVerdict::Accept, other) => SendOutcome::EntryGone(other),
    }
}

impl TcpConversation {
    fn client_segment(&self, flags: u8, data: u16) -> SimSegment {
        SimSegment { from: self.client, to: self.server, flags, seq: self.client_seq, ack: self.server_seq, data }
    }

    fn server_segment(&self, flags: u8, data: u16) -> SimSegment {
        SimSegment { from: self.server, to: self.client, flags, seq: self.server_seq, ack: self.client_seq, data }
    }

    /// The client's SYN, and the server's SYN-ACK if it arrives.
    pub fn open(&mut self, line: &mut SimLink<'_>) -> SendOutcome {
        let syn = SimSegment { ack: 0, ..self.client_segment(flag::SYN, 0) };
        if line.send_tcp(&syn) == SendOutcome::Dropped {
            return SendOutcome::Dropped;
        }
        self.client_seq = self.client_seq.wrapping_add(1);
        let answer = line.send_tcp(&self.server_segment(flag::SYN | flag::ACK, 0));
        self.server_seq = self.server_seq.wrapping_add(1);
        answer
    }

    /// The end of the handshake.
    pub fn complete_handshake(&mut self, line: &mut SimLink<'_>) -> SendOutcome {
        line.send_tcp(&self.client_segment(flag::ACK, 0))
    }

    /// Bytes from the client and back, both acknowledged.
    pub fn exchange(&mut self, up: u32, down: u16, line: &mut SimLink<'_>) -> SendOutcome {
        let mut first = None;
        let mut rest = up;
        while rest > 0 {
            let data = u16::try_from(rest).unwrap_or(MSS).min(MSS);
            let fate = line.send_tcp(&self.client_segment(flag::ACK | flag::PSH, data));
            if *first.get_or_insert(fate) == SendOutcome::Dropped {
                return SendOutcome::Dropped;
            }
            self.client_seq = self.client_seq.wrapping_add(u32::from(data));
            rest -= u32::from(data);
        }
        line.send_tcp(&self.server_segment(flag::ACK | flag::PSH, down));
        self.server_seq = self.server_seq.wrapping_add(u32::from(down));
        line.send_tcp(&self.client_segment(flag::ACK, 0));
        first.unwrap_or(SendOutcome::Passed)
    }

    /// Both close, the client first.
    pub fn close(&mut self, line: &mut SimLink<'_>) {
        line.send_tcp(&self.client_segment(flag::FIN | flag::ACK, 0));
        self.client_seq = self.client_seq.wrapping_add(1);
        line.send_tcp(&self.server_segment(flag::FIN | flag::ACK, 0));
        self.server_seq = self.server_seq.wrapping_add(1);
        line.send_tcp(&self.client_segment(flag::ACK, 0));
    }

    /// The server resets.
    pub fn reset(&mut self, line: &mut SimLink<'_>) {
        line.send_tcp(&self.server_segment(flag::RST | flag::ACK, 0));
    }

    /// The server closes the connection of a client that is gone.
    pub fn server_close(&mut self, line: &mut SimLink<'_>) {
        line.send_tcp(&self.server_segment(flag::FIN | flag::ACK, 0));
    }
}
