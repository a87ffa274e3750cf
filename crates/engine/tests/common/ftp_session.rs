//! FTP control connections, and the data connections they announce.
use super::{Segment, tcp_with};
use keepstate_engine::{
    ConnId, Engine, Entry, ExpectationEntry, Helper, Instant, Outcome, Secret, Sysctl, Sysctls, Zone,
};
use keepstate_wire::Packet;
use std::net::SocketAddr;

pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
pub const SYN_ACK: u8 = SYN | ACK;

/// An engine, and the current time.
pub struct TestEngine {
    pub engine: Engine,
    pub now: Instant,
}

/// A control connection: its two ends, and the next sequence number of each.
pub struct ControlConnection {
    pub client: SocketAddr,
    pub server: SocketAddr,
    next: [u32; 2],
}

/// The sending end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

impl TestEngine {
    /// An engine that attaches the helper to connections to port 21.
    pub fn new() -> TestEngine {
        TestEngine::with(&[])
    }

    /// The same, with the given sysctls.
    pub fn with(settings: &[(Sysctl, u64)]) -> TestEngine {
        let mut sysctls = Sysctls::default();
        for (sysctl, value) in settings {
            sysctls.set(*sysctl, *value).unwrap();
        }
        let mut engine = Engine::new(sysctls, Secret([5; 16]));
        engine.set_auto_helper(6, 21, Helper::Ftp);
        TestEngine { engine, now: Instant::from_secs(1000) }
    }

    pub fn packet(&mut self, bytes: &[u8]) -> Outcome {
        let outcome = self.engine.handle(&Packet::parse(bytes).unwrap(), Zone::default(), self.now);
        self.engine.check_invariants().unwrap();
        outcome
    }

    /// A segment without data.
    pub fn send_empty_segment(&mut self, from: &str, to: &str, flags: u8) -> Outcome {
        let segment = Segment { flags, seq: 1, ack: 1, window: 60_000, ..Segment::default() };
        self.packet(&tcp_with(from.parse().unwrap(), to.parse().unwrap(), &segment, &[]))
    }

    /// A control connection after login: each side has sent a complete line.
    pub fn open_logged_in(&mut self, client: &str, server: &str) -> ControlConnection {
        let mut control = self.open_control(client, server);
        control.send_line(self, Sender::Server, "220 ready\r\n");
        control.send_line(self, Sender::Client, "USER me\r\n");
        control
    }

    /// A control connection after the handshake only.
    pub fn open_control(&mut self, client: &str, server: &str) -> ControlConnection {
        let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
        let mut control = ControlConnection { client, server, next: [1000, 5000] };
        control.send(self, Sender::Client, SYN, b"");
        control.send(self, Sender::Server, SYN_ACK, b"");
        control.send(self, Sender::Client, ACK, b"");
        control
    }

    pub fn entry(&self, conn_id: ConnId) -> Entry {
        self.engine.entry(conn_id, self.now).unwrap()
    }

    /// Every expectation, as `source → destination:port`.
    pub fn expectations(&self) -> Vec<String> {
        let line = |one: ExpectationEntry| {
            let tuple = one.tuple;
            format!("{} → {}", tuple.source, SocketAddr::new(tuple.destination, tuple.destination_key))
        };
        let mut lines: Vec<String> = self.engine.expectations(self.now).map(line).collect();
        lines.sort();
        lines
    }

    pub fn reason_count(&self, name: &str) -> u64 {
        self.engine.reason_counts().find(|(reason, _)| reason.name() == name).unwrap().1
    }

    pub fn advance_ms(&mut self, milliseconds: u64) {
        self.now = Instant(self.now.0 + milliseconds * 1_000_000);
    }
}

impl ControlConnection {
    /// The next segment of one side, as bytes. If it is not passed on, call `mark_lost` before sending it again.
    pub fn segment(&mut self, side: Sender, flags: u8, data: &[u8]) -> Vec<u8> {
        let [from_client, from_server] = self.next;
        let (from, to, seq, ack) = match side {
            Sender::Client => (self.client, self.server, from_client, from_server),
            Sender::Server => (self.server, self.client, from_server, from_client),
        };
        self.next[side as usize] += data.len() as u32 + u32::from(flags & SYN != 0);
        let ack = if flags & ACK == 0 { 0 } else { ack };
        tcp_with(from, to, &Segment { flags, seq, ack, window: 60_000, ..Segment::default() }, data)
    }

    pub fn send(&mut self, world: &mut TestEngine, side: Sender, flags: u8, data: &[u8]) -> Outcome {
        let segment = self.segment(side, flags, data);
        world.packet(&segment)
    }

    pub fn send_line(&mut self, world: &mut TestEngine, side: Sender, text: &str) -> Outcome {
        self.send(world, side, ACK | 8, text.as_bytes())
    }

    /// The last segment of this side, with these data, was lost: the next one repeats it.
    pub fn mark_lost(&mut self, side: Sender, text: &str) {
        self.next[side as usize] -= text.len() as u32;
    }

    pub fn conn_id(&self, world: &TestEngine) -> ConnId {
        let entries = world.engine.entries(world.now);
        let mine = |entry: &Entry| {
            let (source, destination) = (entry.original.source, entry.original.destination);
            SocketAddr::new(source, entry.original.source_key) == self.client
                && SocketAddr::new(destination, entry.original.destination_key) == self.server
        };
        entries.into_iter().find(mine).unwrap().conn_id
    }
}
