//! Target `ftp`: control connections of a few clients with a server, and the data connections they announce, in an engine with the FTP helper.

use crate::FuzzInput;
use crate::packet_gen::{TcpSegmentSpec, ip_packet};
use keepstate_engine::{
    CtInfo, CtVerdict, Engine, Helper, Instant, Outcome, Reason, Secret, Status, Sysctl, Sysctls, Zone,
};
use keepstate_wire::Packet;

/// Words that conversations are built from; the rest are bytes of the input.
const TOKENS: &[&str] = &[
    "PORT ",
    "EPRT ",
    "227 ",
    "229 ",
    "\r\n",
    "\n",
    "192,0,2,2,7,208",
    "192,0,2,1,7,208",
    "(",
    ")",
    "|",
    "|||2000|",
    "|1|192.0.2.2|2000|",
    "|2|2001:db8::2|2000|",
    "|2|2001:db8::1|2000|",
    ",",
    "0",
    "2000",
    "66000",
    "4294967297",
    "USER a\r\n",
    "220 b\r\n",
    "PO",
    "2",
    " ",
    "192,0,2,2,7,209",
];

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const SERVER: u8 = 1;
const CLIENT: u8 = 2;
const CONTROL_PORT: u16 = 21;

/// Runs the conversation in `data`, and checks the invariants.
pub fn ftp(data: &[u8]) {
    run_ftp(data);
}

/// Like [`ftp`], and returns the engine with its counters and reasons.
pub fn run_ftp(data: &[u8]) -> Engine {
    let mut script = FuzzInput::new(data);
    let mut scene = FtpRun::new(&mut script);
    let mut steps = 0u32;
    while let Some(what) = script.next_byte() {
        scene.step(what, &mut script);
        scene.check_expectations();
        // Reading the whole table takes longer than many steps.
        if steps.is_multiple_of(16) {
            scene.engine.check_invariants().expect("a sound table");
        }
        steps += 1;
    }
    scene.engine.flush(scene.now);
    assert_eq!(scene.engine.expectations(scene.now).count(), 0, "no expectation without its master");
    let counters = scene.engine.counters();
    assert_eq!(counters.expect_create, counters.expect_delete, "what was made is gone");
    scene.engine.check_invariants().expect("a sound empty table");
    scene.engine
}

struct FtpRun {
    engine: Engine,
    now: Instant,
    ipv6: bool,
    expect_max: usize,
    /// Next sequence numbers of each side of each control connection.
    next_seq: [[u32; 2]; 3],
}

impl FtpRun {
    fn new(script: &mut FuzzInput<'_>) -> FtpRun {
        let mut sysctls = Sysctls::default();
        let max = script.choose(&[4096usize, 1, 2, 0]);
        for (knob, value) in [(Sysctl::ExpectMax, max as u64), (Sysctl::TcpBeLiberal, 1)] {
            sysctls.set(knob, value).expect("a value in the knob's range");
        }
        let now = Instant::from_secs(1_800_000_000);
        let mut engine = Engine::new(sysctls, Secret([7; 16]));
        engine.set_auto_helper(6, CONTROL_PORT, Helper::Ftp);
        let ipv6 = script.next_byte().unwrap_or(0) & 1 != 0;
        let mut scene = FtpRun { engine, now, ipv6, expect_max: max, next_seq: [[1, 1]; 3] };
        for number in 0..scene.next_seq.len() {
            scene.open_control(number);
        }
        scene
    }

    fn open_control(&mut self, number: usize) {
        self.next_seq[number] = [1, 1];
        self.send_control(number, false, SYN, b"");
        self.send_control(number, true, SYN | ACK, b"");
        self.send_control(number, false, ACK, b"");
    }

    fn step(&mut self, what: u8, script: &mut FuzzInput<'_>) {
        let number = usize::from(what) % self.next_seq.len();
        match what {
            0..=159 => {
                let words = script.next_byte().unwrap_or(0) % 6;
                let payload = (0..words).flat_map(|_| token(script)).collect::<Vec<u8>>();
                self.send_control(number, what & 64 != 0, ACK, &payload);
            }
            // Lost on the path, or retransmitted.
            160..=169 => {
                self.next_seq[number][0] =
                    self.next_seq[number][0].wrapping_sub(u32::from(script.next_byte().unwrap_or(0)))
            }
            170..=179 => {
                self.next_seq[number][1] =
                    self.next_seq[number][1].wrapping_sub(u32::from(script.next_byte().unwrap_or(0)))
            }
            180..=219 => self.send_data_first(script, what & 1 != 0),
            220..=239 => self.advance_time(u64::from(script.next_byte().unwrap_or(0)) * 4_000_000_000),
            240..=247 => self.send_control(number, what & 1 != 0, RST, b""),
            248..=254 => self.open_control(number),
            255 => {
                let first = self.engine.entries(self.now).next().map(|entry| entry.conn_id);
                first.into_iter().for_each(|handle| assert!(self.engine.remove(handle, self.now)));
            }
        }
    }

    fn advance_time(&mut self, nanos: u64) {
        self.now = Instant(self.now.0 + nanos);
        while self.engine.next_wake(self.now).is_some_and(|wake| wake <= self.now) {
            self.engine.poll(self.now);
        }
    }

    /// A segment of a control connection.
    fn send_control(&mut self, number: usize, from_server: bool, flags: u8, payload: &[u8]) {
        let client = 40_000 + number as u16;
        let [from_client, from_peer] = self.next_seq[number];
        let (source, destination, ports, seq, ack) = match from_server {
            false => (CLIENT, SERVER, (client, CONTROL_PORT), from_client, from_peer),
            true => (SERVER, CLIENT, (CONTROL_PORT, client), from_peer, from_client),
        };
        let sent = &mut self.next_seq[number][usize::from(from_server)];
        *sent = sent.wrapping_add(payload.len() as u32 + u32::from(flags & SYN != 0));
        let outcome = self.handle_segment(source, destination, ports, (seq, ack), flags, payload);
        if outcome.verdict == CtVerdict::Drop {
            let why = outcome.reason.expect("who drops says why");
            assert!(matches!(why, Reason::HelperPartial | Reason::ExpectClash | Reason::ExpectFull), "{why:?}");
            assert!(outcome.connection.is_some(), "what is dropped was tracked");
        }
    }

    /// The first packet of a data connection, announced or not.
    fn send_data_first(&mut self, script: &mut FuzzInput<'_>, from_server: bool) {
        let (source, destination) = if from_server { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
        let ports = (script.choose(&[20, 50_000]), script.choose(&[2000, 2001, 464, 0]));
        let flags = script.choose(&[SYN, ACK, RST, SYN | ACK]);
        let before = self.engine.counters().expect_new;
        let outcome = self.handle_segment(source, destination, ports, (1, 1), flags, b"");
        let met = self.engine.counters().expect_new - before;
        if let (1, Some(handle)) = (met, outcome.connection) {
            let entry = self.engine.entry(handle, self.now).expect("an outcome names a living connection");
            assert_eq!(outcome.info, CtInfo::Related);
            assert!(entry.status.contains(Status::EXPECTED) && entry.master.is_some() && entry.helper.is_none());
        }
    }

    fn handle_segment(
        &mut self,
        source: u8,
        destination: u8,
        ports: (u16, u16),
        (seq, ack): (u32, u32),
        flags: u8,
        payload: &[u8],
    ) -> Outcome {
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let mut bytes = TcpSegmentSpec { ports, seq, ack, flags, window: 60_000, options: &[], data: 0 }.to_bytes();
        bytes.extend(payload);
        let bytes = ip_packet(self.ipv6, source, destination, 6, bytes);
        let packet = Packet::parse(&bytes).expect("a packet of our own making");
        self.engine.handle(&packet, Zone::default(), self.now)
    }

    /// Each master has at most one expectation, for one of its own ends, and the total never exceeds the limit.
    fn check_expectations(&self) {
        let mut masters = Vec::new();
        for expectation in self.engine.expectations(self.now) {
            let master = expectation.master;
            assert!(!masters.contains(&master), "{master:?} expects two");
            let ends = [(master.source, master.destination), (master.destination, master.source)];
            assert!(ends.contains(&(expectation.tuple.source, expectation.tuple.destination)));
            assert!(expectation.timeout <= 300);
            masters.push(master);
        }
        assert!(masters.len() <= self.expect_max);
    }
}

/// A word of a conversation, or a few arbitrary bytes.
fn token(script: &mut FuzzInput<'_>) -> Vec<u8> {
    let which = usize::from(script.next_byte().unwrap_or(0));
    match TOKENS.get(which % (TOKENS.len() + 1)) {
        Some(word) => word.as_bytes().to_vec(),
        None => script.take_bytes(which % 7).to_vec(),
    }
}
