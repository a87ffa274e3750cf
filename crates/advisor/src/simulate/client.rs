//! One connection of a client as both its ends see it: what each would send next.
use crate::simulate::packets::{End, LARGEST, Press, Segment, flag};
use keepstate_engine::{Engine, Info, Instant, Outcome, Verdict, Zone};

/// The client's and the server's next octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    /// Where the client is.
    pub client: End,
    /// Where the server is.
    pub server: End,
    /// Next of the client's octets.
    pub up: u32,
    /// Next of the server's.
    pub down: u32,
}

/// What became of a few packets sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All passed, and their connection was known.
    Passed,
    /// All passed, but the connection had been forgotten: it was entered anew, or the packets were invalid (which a rule might drop).
    Forgotten(Info),
    /// There was no room: the first of them was dropped.
    Dropped,
}

/// What packets pass through.
pub struct Line<'a> {
    /// The table.
    pub engine: &'a mut Engine,
    /// Where packets are written.
    pub press: &'a mut Press,
    /// The time.
    pub now: Instant,
    /// Packets sent.
    pub sent: &'a mut u64,
}

impl Line<'_> {
    /// Sends one segment; a packet that cannot be made (there is none) counts as dropped.
    pub fn send(&mut self, segment: &Segment) -> Fate {
        *self.sent += 1;
        match self.press.segment(segment) {
            Some(packet) => fate(&self.engine.handle(&packet, Zone::default(), self.now)),
            None => Fate::Dropped,
        }
    }

    /// Sends one datagram.
    pub fn ask(&mut self, from: End, to: End, data: u16) -> Fate {
        *self.sent += 1;
        match self.press.question(from, to, data) {
            Some(packet) => fate(&self.engine.handle(&packet, Zone::default(), self.now)),
            None => Fate::Dropped,
        }
    }
}

fn fate(outcome: &Outcome) -> Fate {
    match (outcome.verdict, outcome.info) {
        (Verdict::Drop, _) => Fate::Dropped,
        (Verdict::Accept, Info::Established) => Fate::Passed,
        (Verdict::Accept, other) => Fate::Forgotten(other),
    }
}

impl Talk {
    fn up(&self, flags: u8, data: u16) -> Segment {
        Segment { from: self.client, to: self.server, flags, seq: self.up, ack: self.down, data }
    }

    fn down(&self, flags: u8, data: u16) -> Segment {
        Segment { from: self.server, to: self.client, flags, seq: self.down, ack: self.up, data }
    }

    /// The client's SYN, and the server's answer if it arrives.
    pub fn knock(&mut self, line: &mut Line<'_>) -> Fate {
        let syn = Segment { ack: 0, ..self.up(flag::SYN, 0) };
        if line.send(&syn) == Fate::Dropped {
            return Fate::Dropped;
        }
        self.up = self.up.wrapping_add(1);
        let answer = line.send(&self.down(flag::SYN | flag::ACK, 0));
        self.down = self.down.wrapping_add(1);
        answer
    }

    /// The end of the handshake.
    pub fn enter(&mut self, line: &mut Line<'_>) -> Fate {
        line.send(&self.up(flag::ACK, 0))
    }

    /// So many octets from the client, so many back, and both acknowledged.
    pub fn exchange(&mut self, up: u32, down: u16, line: &mut Line<'_>) -> Fate {
        let mut first = None;
        let mut rest = up;
        while rest > 0 {
            let data = u16::try_from(rest).unwrap_or(LARGEST).min(LARGEST);
            let fate = line.send(&self.up(flag::ACK | flag::PSH, data));
            if *first.get_or_insert(fate) == Fate::Dropped {
                return Fate::Dropped;
            }
            self.up = self.up.wrapping_add(u32::from(data));
            rest -= u32::from(data);
        }
        line.send(&self.down(flag::ACK | flag::PSH, down));
        self.down = self.down.wrapping_add(u32::from(down));
        line.send(&self.up(flag::ACK, 0));
        first.unwrap_or(Fate::Passed)
    }

    /// Both close, the client first.
    pub fn close(&mut self, line: &mut Line<'_>) {
        line.send(&self.up(flag::FIN | flag::ACK, 0));
        self.up = self.up.wrapping_add(1);
        line.send(&self.down(flag::FIN | flag::ACK, 0));
        self.down = self.down.wrapping_add(1);
        line.send(&self.up(flag::ACK, 0));
    }

    /// The server resets.
    pub fn reset(&mut self, line: &mut Line<'_>) {
        line.send(&self.down(flag::RST | flag::ACK, 0));
    }

    /// The server closes towards a client that is gone.
    pub fn give_up(&mut self, line: &mut Line<'_>) {
        line.send(&self.down(flag::FIN | flag::ACK, 0));
    }
}
