//! One TCP conversation through a synproxy: the segments of a client and a server and the router's output, with numbers relative to the cookie each router chose.
use keepstate_test_support::SplitMix64;
use std::net::{IpAddr, SocketAddr};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const ECE: u8 = 64;
const CWR: u8 = 128;

/// Initial sequence numbers and timestamps of both ends, far apart from each other.
const CLIENT_ISN: u32 = 0x1000_0000;
const SERVER_ISN: u32 = 0xffff_fff0;
const CLIENT_TSVAL: u32 = 0x2000_0000;
const SERVER_TSVAL: u32 = 0x7000_0000;

/// A router under test.
pub trait RouterUnderTest {
    /// Sends a packet into an interface (0 is lan0, 1 is wan0), and returns the packets that leave. Waits for `expected` packets.
    fn handle(&mut self, bytes: &[u8], device: usize, expected: usize) -> Vec<(usize, Vec<u8>)>;
}

/// The TCP options of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerOptions {
    mss: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    timestamps: bool,
}

/// One step: the packet sent and the packets that left.
#[derive(Clone, Debug)]
pub struct Step {
    pub text: String,
    pub out: usize,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    client: SocketAddr,
    server: SocketAddr,
    asked: PeerOptions,
    answered: PeerOptions,
    ecn: bool,
    /// The client acknowledges a wrong number.
    wrong_ack: bool,
    /// The SYN and the handshake's ACKs are sent twice.
    retransmits: bool,
    server_refuses: bool,
    server_silent: bool,
    ends_by_reset: bool,
}

fn one_in(dice: &mut SplitMix64, times: usize) -> bool {
    dice.below(times) == 0
}

fn random_options(dice: &mut SplitMix64) -> PeerOptions {
    PeerOptions {
        mss: dice.pick(&[None, Some(500), Some(536), Some(1300), Some(1399), Some(1460), Some(9000)]),
        scale: dice.pick(&[None, Some(0), Some(7), Some(7), Some(14)]),
        sack: dice.below(3) > 0,
        timestamps: dice.below(3) > 0,
    }
}

impl Scenario {
    pub fn random(seed: u64, number: u16) -> Scenario {
        let mut dice = SplitMix64(seed << 16 | u64::from(number));
        let v6 = one_in(&mut dice, 3);
        let host: u8 = dice.pick(&[5, 200]);
        let port = dice.pick(&[80, 80, 81, 82]);
        let (client, server): (IpAddr, IpAddr) = if v6 {
            (format!("fd00:1::{host}").parse().unwrap(), "2001:db8:f::9".parse().unwrap())
        } else {
            ([10, 1, 0, host].into(), [198, 51, 100, 9].into())
        };
        let asked = random_options(&mut dice);
        let answered = random_options(&mut dice);
        Scenario {
            client: SocketAddr::new(client, 10_000 + number),
            server: SocketAddr::new(server, port),
            // A server uses no option that the client did not offer.
            answered: PeerOptions {
                sack: answered.sack && asked.sack,
                timestamps: answered.timestamps && asked.timestamps && port != 82,
                ..answered
            },
            asked,
            ecn: one_in(&mut dice, 3),
            wrong_ack: one_in(&mut dice, 8),
            retransmits: one_in(&mut dice, 4),
            server_refuses: one_in(&mut dice, 6),
            server_silent: one_in(&mut dice, 8),
            ends_by_reset: one_in(&mut dice, 4),
        }
    }

    pub fn run(&self, world: &mut impl RouterUnderTest) -> Vec<Step> {
        ScenarioRun::new(self, world, None).run()
    }

    /// The same for another router, waiting in each step for as many packets as the first one sent.
    pub fn run_expecting(&self, world: &mut impl RouterUnderTest, expected: &[Step]) -> Vec<Step> {
        ScenarioRun::new(self, world, Some(expected)).run()
    }
}

struct ScenarioRun<'a, W> {
    scenario: &'a Scenario,
    router: &'a mut W,
    expected: Option<&'a [Step]>,
    steps: Vec<Step>,
    /// The client's address as the server sees it.
    seen_as: SocketAddr,
    /// The sequence number and the timestamp that the router chose.
    cookie: u32,
    tsval: u32,
    /// Do both ends use timestamps?
    timestamps: bool,
}

impl<'a, W: RouterUnderTest> ScenarioRun<'a, W> {
    fn new(scenario: &'a Scenario, router: &'a mut W, expected: Option<&'a [Step]>) -> Self {
        let seen_as = scenario.client;
        ScenarioRun { scenario, router, expected, steps: Vec::new(), seen_as, cookie: 0, tsval: 0, timestamps: false }
    }

    fn run(mut self) -> Vec<Step> {
        self.handshake();
        self.steps
    }

    fn handshake(&mut self) {
        let Scenario { asked, ecn, wrong_ack: wrong, retransmits: twice, .. } = *self.scenario;
        let syn = SYN | if ecn { ECE | CWR } else { 0 };
        for _ in 0..=u8::from(twice) {
            let out = self.client(CLIENT_ISN, 0, syn, &encode_options(&asked, (CLIENT_TSVAL, 0)), b"");
            let Some(answer) = out.iter().find(|(device, _)| *device == 0) else { return };
            let answer = Segment::parse(&answer.1);
            self.cookie = answer.seq;
            self.timestamps = answer.timestamps.is_some();
            self.tsval = answer.timestamps.map_or(0, |(value, _)| value);
        }
        let promised = self.cookie.wrapping_add(1);
        if wrong {
            self.client(
                CLIENT_ISN + 1,
                promised.wrapping_add(12),
                ACK,
                &self.timestamp_option(CLIENT_TSVAL + 1, self.tsval),
                b"",
            );
            return;
        }
        let mut begun = None;
        for _ in 0..=u8::from(twice) {
            let out =
                self.client(CLIENT_ISN + 1, promised, ACK, &self.timestamp_option(CLIENT_TSVAL + 1, self.tsval), b"");
            begun = out.into_iter().find(|(device, _)| *device == 1).or(begun);
        }
        let Some((_, begun)) = begun else { return };
        let begun = Segment::parse(&begun);
        self.seen_as = begun.source;
        if !self.scenario.server_silent {
            self.server_answer(&begun);
        }
    }

    /// The server's response.
    fn server_answer(&mut self, begun: &Segment) {
        let Scenario { answered, server_refuses: refuses, retransmits: twice, .. } = *self.scenario;
        if refuses {
            self.server(0, CLIENT_ISN + 1, RST | ACK, &[], b"");
            return;
        }
        let clock = begun.timestamps.filter(|_| answered.timestamps);
        self.timestamps &= clock.is_some();
        let mut options = encode_options(&PeerOptions { timestamps: false, ..answered }, (0, 0));
        options.extend(clock.iter().flat_map(|(value, _)| timestamp_option(SERVER_TSVAL, *value)));
        for _ in 0..=u8::from(twice) {
            self.server(SERVER_ISN, CLIENT_ISN + 1, SYN | ACK, &options, b"");
        }
        self.exchange_data();
    }

    /// Data and close, each end with its own numbers; the client knows the server by the router's cookie.
    fn exchange_data(&mut self) {
        let promised = self.cookie.wrapping_add(1);
        let (hello, back) = (b"hello from the client", b"hello from the server");
        let after = CLIENT_ISN + 1 + hello.len() as u32;
        let known = promised.wrapping_add(back.len() as u32);
        let own = SERVER_ISN.wrapping_add(1);
        self.client(CLIENT_ISN + 1, promised, ACK | PSH, &self.timestamp_option(CLIENT_TSVAL + 2, self.tsval), hello);
        self.server(own, after, ACK | PSH, &self.server_timestamp_option(SERVER_TSVAL + 3, CLIENT_TSVAL + 2), back);
        let mut options = self.timestamp_option(CLIENT_TSVAL + 4, self.tsval.wrapping_add(3));
        if self.scenario.asked.sack {
            options.extend([1, 1, 5, 10]);
            options.extend(promised.wrapping_add(2).to_be_bytes());
            options.extend(known.to_be_bytes());
        }
        self.client(after, promised, ACK, &options, b"");
        self.client(after, known, ACK, &self.timestamp_option(CLIENT_TSVAL + 5, self.tsval.wrapping_add(3)), b"");
        let next = own.wrapping_add(back.len() as u32);
        self.server(next, after, ACK | FIN, &self.server_timestamp_option(SERVER_TSVAL + 6, CLIENT_TSVAL + 5), b"");
        let (last, clocks) =
            (known.wrapping_add(1), self.timestamp_option(CLIENT_TSVAL + 7, self.tsval.wrapping_add(6)));
        if self.scenario.ends_by_reset {
            self.client(after, last, RST | ACK, &[], b"");
        } else {
            self.client(after, last, ACK | FIN, &clocks, b"");
            self.server(
                next.wrapping_add(1),
                after + 1,
                ACK,
                &self.server_timestamp_option(SERVER_TSVAL + 8, CLIENT_TSVAL + 7),
                b"",
            );
        }
    }

    fn timestamp_option(&self, value: u32, echo: u32) -> Vec<u8> {
        if self.timestamps { timestamp_option(value, echo) } else { Vec::new() }
    }

    fn server_timestamp_option(&self, value: u32, echo: u32) -> Vec<u8> {
        self.timestamp_option(value, echo)
    }

    fn client(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let (from, to) = (self.scenario.client, self.scenario.server);
        self.send("client", 0, &build_segment(from, to, seq, ack, flags, options, data))
    }

    fn server(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let (from, to) = (self.scenario.server, self.seen_as);
        self.send("server", 1, &build_segment(from, to, seq, ack, flags, options, data))
    }

    fn send(&mut self, who: &str, device: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let expected = self.expected.map_or(0, |steps| steps.get(self.steps.len()).map_or(0, |step| step.out));
        let mut out = self.router.handle(bytes, device, expected);
        out.sort_by_key(|(device, _)| *device);
        if let (SYN, Some((_, answer))) = (Segment::parse(bytes).flags & (SYN | ACK), out.first()) {
            let answer = Segment::parse(answer);
            (self.cookie, self.tsval) = (answer.seq, answer.timestamps.map_or(0, |(value, _)| value));
        }
        let mut text = format!("{who} {}", self.describe(bytes));
        for (device, bytes) in &out {
            text += &format!("\n  {} {}", ["lan0", "wan0"][*device], self.describe(bytes));
        }
        self.steps.push(Step { text, out: out.len() });
        out
    }

    /// A packet as text: sequence numbers and timestamps relative to known bases.
    fn describe(&self, bytes: &[u8]) -> String {
        let segment = Segment::parse(bytes);
        let near = |number: u32, bases: [(&str, u32); 3]| {
            let of = |(name, base): (&str, u32)| {
                (number.wrapping_sub(base) < 1000).then(|| format!("{name}+{}", number.wrapping_sub(base)))
            };
            bases.into_iter().find_map(of).unwrap_or_else(|| format!("{number:#x}"))
        };
        let number = |number| near(number, [("client", CLIENT_ISN), ("server", SERVER_ISN), ("promised", self.cookie)]);
        let clock = |clock| near(clock, [("client", CLIENT_TSVAL), ("server", SERVER_TSVAL), ("promised", self.tsval)]);
        // The ACK that the router sends to the server echoes the server's timestamp; Linux shifts that echo once more, see docs/differences.md.
        let made = segment.source == self.seen_as && segment.flags == ACK && segment.data.is_empty();
        let twice = SERVER_TSVAL.wrapping_add(SERVER_TSVAL.wrapping_sub(self.tsval));
        let echoed = |echo| if made && echo == twice { SERVER_TSVAL } else { echo };
        let clocks = segment.timestamps.map(|(value, echo)| (clock(value), clock(echoed(echo))));
        // Of the timestamp in the cookie only the encoded bits are the same on both routers.
        let kept = segment.flags & SYN != 0 && segment.flags & ACK != 0;
        let kept = if kept && segment.source == self.scenario.server {
            segment.timestamps.map(|(value, _)| value & 0x3f)
        } else {
            None
        };
        let Segment { source, destination, window, header, options, data, flags, .. } = &segment;
        // The translated source port is selected at random.
        let port = |end: &SocketAddr| if *end == self.seen_as { "the client".into() } else { end.to_string() };
        let [source, destination] = [source, destination].map(port);
        let (seq, ack, text) = (number(segment.seq), number(segment.ack), String::from_utf8_lossy(data));
        format!(
            "{header} {source} → {destination} {seq} {ack} {flags:#x} {window} {options} {clocks:?} {kept:x?} {text:?}"
        )
    }
}

fn timestamp_option(value: u32, echo: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
}

fn encode_options(offer: &PeerOptions, (value, echo): (u32, u32)) -> Vec<u8> {
    let mut options = Vec::new();
    options.extend(offer.mss.iter().flat_map(|size| [2, 4, (size >> 8) as u8, *size as u8]));
    options.extend(if offer.sack { &[1, 1, 4, 2][..] } else { &[] });
    options.extend(offer.scale.iter().flat_map(|scale| [1, 3, 3, *scale]));
    options.extend(if offer.timestamps { timestamp_option(value, echo) } else { Vec::new() });
    options
}

/// A parsed segment.
struct Segment {
    source: SocketAddr,
    destination: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    timestamps: Option<(u32, u32)>,
    /// The other fields of the IP header, as text.
    header: String,
    /// TCP options without timestamps, as text.
    options: String,
    data: Vec<u8>,
}

impl Segment {
    fn parse(bytes: &[u8]) -> Segment {
        let (source, destination, at, header): (IpAddr, IpAddr, usize, String) = if bytes[0] >> 4 == 6 {
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
            (address(8), address(24), 40, format!("{:02x?} hops {}", &bytes[..4], bytes[7]))
        } else {
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
            assert_eq!(checksum(&bytes[..20]), 0, "{bytes:02x?}");
            (address(12), address(16), 20, format!("{:02x?} hops {} {:02x?}", &bytes[..2], bytes[8], &bytes[4..8]))
        };
        let mut covered = if at == 40 { bytes[8..40].to_vec() } else { bytes[12..20].to_vec() };
        covered.extend([0, 6]);
        covered.extend((bytes.len() as u16 - at as u16).to_be_bytes());
        covered.extend(&bytes[at..]);
        assert_eq!(checksum(&covered), 0, "{bytes:02x?}");
        let segment = &bytes[at..];
        let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
        let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let end = usize::from(segment[12] >> 4) * 4;
        let (mut at, mut shown, mut timestamps) = (20, Vec::new(), None);
        while at < end {
            let length = if segment[at] < 2 { 1 } else { usize::from(segment[at + 1]) };
            match segment[at] {
                8 => {
                    timestamps = Some((word(at + 2), word(at + 6)));
                    shown.push("clocks".to_owned());
                }
                // SACK edges are compared relative to the acknowledgement number.
                5 => shown.push(format!(
                    "sack {}..{}",
                    word(at + 2).wrapping_sub(word(8)),
                    word(at + 6).wrapping_sub(word(8))
                )),
                _ => shown.push(format!("{:?}", &segment[at..at + length])),
            }
            at += length;
        }
        Segment {
            source: SocketAddr::new(source, port(0)),
            destination: SocketAddr::new(destination, port(2)),
            seq: word(4),
            ack: word(8),
            flags: segment[13],
            window: port(14),
            timestamps,
            header,
            options: shown.join(" "),
            data: segment[end..].to_vec(),
        }
    }
}

fn build_segment(
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    body.extend(seq.to_be_bytes());
    body.extend(ack.to_be_bytes());
    body.extend([((20 + options.len()) as u8 / 4) << 4, flags, 0x7f, 0xf0, 0, 0, 0, 0]);
    body.extend(options);
    body.extend(data);
    let length = body.len() as u16;
    let (mut packet, mut covered) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
            let both = [from.octets(), to.octets()].concat();
            header.extend(&both);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (header, both)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let both = [from.octets(), to.octets()].concat();
            ([&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[6, 64], &both].concat(), both)
        }
        _ => unreachable!("of two families"),
    };
    covered.extend([0, 6]);
    covered.extend(length.to_be_bytes());
    covered.extend(&body);
    let sum = checksum(&covered);
    body[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
