//! One conversation through a router that answers handshakes: what a client and a server say, and what comes out, told relative to what each router has made up.
use std::net::{IpAddr, SocketAddr};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const ECE: u8 = 64;
const CWR: u8 = 128;

/// First numbers and clocks of both ends: far from each other.
const CLIENT: u32 = 0x1000_0000;
const SERVER: u32 = 0xffff_fff0;
const CLIENT_CLOCK: u32 = 0x2000_0000;
const SERVER_CLOCK: u32 = 0x7000_0000;

/// A router.
pub trait World {
    /// Takes a datagram in by a device (0 is lan0); gives what leaves. `expected` datagrams are waited for.
    fn handle(&mut self, bytes: &[u8], device: usize, expected: usize) -> Vec<(usize, Vec<u8>)>;
}

/// What one end says in its options.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offer {
    mss: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    clock: bool,
}

/// One step: who did what, and what came out.
#[derive(Clone, Debug)]
pub struct Step {
    pub text: String,
    pub out: usize,
}

#[derive(Clone, Debug)]
pub struct Story {
    client: SocketAddr,
    server: SocketAddr,
    asked: Offer,
    answered: Offer,
    ecn: bool,
    /// The client acknowledges something else.
    wrong: bool,
    /// The SYN, and the acknowledgement, come twice.
    twice: bool,
    refuses: bool,
    silent: bool,
    ends_by_reset: bool,
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) % below
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.roll(list.len() as u64) as usize]
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }

    fn offer(&mut self) -> Offer {
        Offer {
            mss: self.of(&[None, Some(500), Some(536), Some(1300), Some(1399), Some(1460), Some(9000)]),
            scale: self.of(&[None, Some(0), Some(7), Some(7), Some(14)]),
            sack: self.roll(3) > 0,
            clock: self.roll(3) > 0,
        }
    }
}

impl Story {
    pub fn random(seed: u64, number: u16) -> Story {
        let mut dice = Dice(seed << 16 | u64::from(number));
        let v6 = dice.once_in(3);
        let host: u8 = dice.of(&[5, 200]);
        let port = dice.of(&[80, 80, 81, 82]);
        let (client, server): (IpAddr, IpAddr) = if v6 {
            (format!("fd00:1::{host}").parse().unwrap(), "2001:db8:f::9".parse().unwrap())
        } else {
            ([10, 1, 0, host].into(), [198, 51, 100, 9].into())
        };
        let asked = dice.offer();
        let answered = dice.offer();
        Story {
            client: SocketAddr::new(client, 10_000 + number),
            server: SocketAddr::new(server, port),
            // What was not asked for is not answered.
            answered: Offer {
                sack: answered.sack && asked.sack,
                clock: answered.clock && asked.clock && port != 82,
                ..answered
            },
            asked,
            ecn: dice.once_in(3),
            wrong: dice.once_in(8),
            twice: dice.once_in(4),
            refuses: dice.once_in(6),
            silent: dice.once_in(8),
            ends_by_reset: dice.once_in(4),
        }
    }

    pub fn tell(&self, world: &mut impl World) -> Vec<Step> {
        Telling::new(self, world, None).whole()
    }

    /// The same at another router, which is given time for as much as came out of the first.
    pub fn tell_as(&self, world: &mut impl World, told: &[Step]) -> Vec<Step> {
        Telling::new(self, world, Some(told)).whole()
    }
}

struct Telling<'a, W> {
    story: &'a Story,
    world: &'a mut W,
    expected: Option<&'a [Step]>,
    steps: Vec<Step>,
    /// The client's own address as the server sees it.
    seen_as: SocketAddr,
    /// What the router has made up: its number and its clock.
    cookie: u32,
    clock: u32,
    /// Do both ends show their clocks?
    clocks: bool,
}

impl<'a, W: World> Telling<'a, W> {
    fn new(story: &'a Story, world: &'a mut W, expected: Option<&'a [Step]>) -> Self {
        let seen_as = story.client;
        Telling { story, world, expected, steps: Vec::new(), seen_as, cookie: 0, clock: 0, clocks: false }
    }

    fn whole(mut self) -> Vec<Step> {
        self.shake();
        self.steps
    }

    fn shake(&mut self) {
        let Story { asked, ecn, wrong, twice, .. } = *self.story;
        let syn = SYN | if ecn { ECE | CWR } else { 0 };
        for _ in 0..=u8::from(twice) {
            let out = self.client(CLIENT, 0, syn, &offered(&asked, (CLIENT_CLOCK, 0)), b"");
            let Some(answer) = out.iter().find(|(device, _)| *device == 0) else { return };
            let answer = Segment::read(&answer.1);
            self.cookie = answer.seq;
            self.clocks = answer.clocks.is_some();
            self.clock = answer.clocks.map_or(0, |(value, _)| value);
        }
        let promised = self.cookie.wrapping_add(1);
        if wrong {
            self.client(CLIENT + 1, promised.wrapping_add(12), ACK, &self.clocks(CLIENT_CLOCK + 1, self.clock), b"");
            return;
        }
        let mut begun = None;
        for _ in 0..=u8::from(twice) {
            let out = self.client(CLIENT + 1, promised, ACK, &self.clocks(CLIENT_CLOCK + 1, self.clock), b"");
            begun = out.into_iter().find(|(device, _)| *device == 1).or(begun);
        }
        let Some((_, begun)) = begun else { return };
        let begun = Segment::read(&begun);
        self.seen_as = begun.source;
        if !self.story.silent {
            self.answer(&begun);
        }
    }

    /// The server's turn.
    fn answer(&mut self, begun: &Segment) {
        let Story { answered, refuses, twice, .. } = *self.story;
        if refuses {
            self.server(0, CLIENT + 1, RST | ACK, &[], b"");
            return;
        }
        let clock = begun.clocks.filter(|_| answered.clock);
        self.clocks &= clock.is_some();
        let mut options = offered(&Offer { clock: false, ..answered }, (0, 0));
        options.extend(clock.iter().flat_map(|(value, _)| clocks(SERVER_CLOCK, *value)));
        for _ in 0..=u8::from(twice) {
            self.server(SERVER, CLIENT + 1, SYN | ACK, &options, b"");
        }
        self.talk();
    }

    /// In numbers of their own; the client knows the server by what was promised.
    fn talk(&mut self) {
        let promised = self.cookie.wrapping_add(1);
        let (hello, back) = (b"hello from the client", b"hello from the server");
        let after = CLIENT + 1 + hello.len() as u32;
        let known = promised.wrapping_add(back.len() as u32);
        let own = SERVER.wrapping_add(1);
        self.client(CLIENT + 1, promised, ACK | PSH, &self.clocks(CLIENT_CLOCK + 2, self.clock), hello);
        self.server(own, after, ACK | PSH, &self.server_clocks(SERVER_CLOCK + 3, CLIENT_CLOCK + 2), back);
        let mut options = self.clocks(CLIENT_CLOCK + 4, self.clock.wrapping_add(3));
        if self.story.asked.sack {
            options.extend([1, 1, 5, 10]);
            options.extend(promised.wrapping_add(2).to_be_bytes());
            options.extend(known.to_be_bytes());
        }
        self.client(after, promised, ACK, &options, b"");
        self.client(after, known, ACK, &self.clocks(CLIENT_CLOCK + 5, self.clock.wrapping_add(3)), b"");
        let next = own.wrapping_add(back.len() as u32);
        self.server(next, after, ACK | FIN, &self.server_clocks(SERVER_CLOCK + 6, CLIENT_CLOCK + 5), b"");
        let (last, clocks) = (known.wrapping_add(1), self.clocks(CLIENT_CLOCK + 7, self.clock.wrapping_add(6)));
        if self.story.ends_by_reset {
            self.client(after, last, RST | ACK, &[], b"");
        } else {
            self.client(after, last, ACK | FIN, &clocks, b"");
            self.server(
                next.wrapping_add(1),
                after + 1,
                ACK,
                &self.server_clocks(SERVER_CLOCK + 8, CLIENT_CLOCK + 7),
                b"",
            );
        }
    }

    fn clocks(&self, value: u32, echo: u32) -> Vec<u8> {
        if self.clocks { clocks(value, echo) } else { Vec::new() }
    }

    fn server_clocks(&self, value: u32, echo: u32) -> Vec<u8> {
        self.clocks(value, echo)
    }

    fn client(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let (from, to) = (self.story.client, self.story.server);
        self.send("client", 0, &segment(from, to, seq, ack, flags, options, data))
    }

    fn server(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let (from, to) = (self.story.server, self.seen_as);
        self.send("server", 1, &segment(from, to, seq, ack, flags, options, data))
    }

    fn send(&mut self, who: &str, device: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let expected = self.expected.map_or(0, |told| told.get(self.steps.len()).map_or(0, |step| step.out));
        let mut out = self.world.handle(bytes, device, expected);
        out.sort_by_key(|(device, _)| *device);
        if let (SYN, Some((_, answer))) = (Segment::read(bytes).flags & (SYN | ACK), out.first()) {
            let answer = Segment::read(answer);
            (self.cookie, self.clock) = (answer.seq, answer.clocks.map_or(0, |(value, _)| value));
        }
        let mut text = format!("{who} {}", self.told(bytes));
        for (device, bytes) in &out {
            text += &format!("\n  {} {}", ["lan0", "wan0"][*device], self.told(bytes));
        }
        self.steps.push(Step { text, out: out.len() });
        out
    }

    /// A datagram in words: numbers and clocks by what they are relative to.
    fn told(&self, bytes: &[u8]) -> String {
        let segment = Segment::read(bytes);
        let near = |number: u32, bases: [(&str, u32); 3]| {
            let of = |(name, base): (&str, u32)| {
                (number.wrapping_sub(base) < 1000).then(|| format!("{name}+{}", number.wrapping_sub(base)))
            };
            bases.into_iter().find_map(of).unwrap_or_else(|| format!("{number:#x}"))
        };
        let number = |number| near(number, [("client", CLIENT), ("server", SERVER), ("promised", self.cookie)]);
        let clock = |clock| near(clock, [("client", CLIENT_CLOCK), ("server", SERVER_CLOCK), ("promised", self.clock)]);
        // The acknowledgement made for the server echoes its clock; Linux's is shifted once more, see docs/differences.md.
        let made = segment.source == self.seen_as && segment.flags == ACK && segment.data.is_empty();
        let twice = SERVER_CLOCK.wrapping_add(SERVER_CLOCK.wrapping_sub(self.clock));
        let echoed = |echo| if made && echo == twice { SERVER_CLOCK } else { echo };
        let clocks = segment.clocks.map(|(value, echo)| (clock(value), clock(echoed(echo))));
        // Of the promised clock only what was kept in it is the same everywhere.
        let kept = segment.flags & SYN != 0 && segment.flags & ACK != 0;
        let kept = if kept && segment.source == self.story.server {
            segment.clocks.map(|(value, _)| value & 0x3f)
        } else {
            None
        };
        let Segment { source, destination, window, header, options, data, flags, .. } = &segment;
        // By whom it seems to be sent is chosen by lot where it is translated.
        let port = |end: &SocketAddr| if *end == self.seen_as { "the client".into() } else { end.to_string() };
        let [source, destination] = [source, destination].map(port);
        let (seq, ack, text) = (number(segment.seq), number(segment.ack), String::from_utf8_lossy(data));
        format!(
            "{header} {source} → {destination} {seq} {ack} {flags:#x} {window} {options} {clocks:?} {kept:x?} {text:?}"
        )
    }
}

fn clocks(value: u32, echo: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
}

fn offered(offer: &Offer, (value, echo): (u32, u32)) -> Vec<u8> {
    let mut options = Vec::new();
    options.extend(offer.mss.iter().flat_map(|size| [2, 4, (size >> 8) as u8, *size as u8]));
    options.extend(if offer.sack { &[1, 1, 4, 2][..] } else { &[] });
    options.extend(offer.scale.iter().flat_map(|scale| [1, 3, 3, *scale]));
    options.extend(if offer.clock { clocks(value, echo) } else { Vec::new() });
    options
}

/// A segment as it came out.
struct Segment {
    source: SocketAddr,
    destination: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    clocks: Option<(u32, u32)>,
    /// What the IP header has besides, in words.
    header: String,
    /// Options without clocks, in words.
    options: String,
    data: Vec<u8>,
}

impl Segment {
    fn read(bytes: &[u8]) -> Segment {
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
        let (mut at, mut shown, mut clocks) = (20, Vec::new(), None);
        while at < end {
            let length = if segment[at] < 2 { 1 } else { usize::from(segment[at + 1]) };
            match segment[at] {
                8 => {
                    clocks = Some((word(at + 2), word(at + 6)));
                    shown.push("clocks".to_owned());
                }
                // Their edges are compared by where they are relative to what is acknowledged.
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
            clocks,
            header,
            options: shown.join(" "),
            data: segment[end..].to_vec(),
        }
    }
}

fn segment(from: SocketAddr, to: SocketAddr, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
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

fn checksum(octets: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
