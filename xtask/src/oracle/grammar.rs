//! Random traffic that is nearly right: a pool of flows that live at the same time, each following its protocol for the most part and
//! straying now and then, among few addresses and ports, so that they meet.
use super::craft::{self, Ends, Envelope};
use super::kernel::Toward;
use super::random::Random;
use super::step::Step;
use super::story::Story;
use keepstate_engine::Knob;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod fragment;
mod ftp;
mod gre;
mod icmp;
mod other;
mod sctp;
mod tcp;
mod udp;

/// What a story is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Grammar {
    /// Every protocol at once.
    Mixed,
    Tcp,
    Udp,
    Icmp,
    Sctp,
    Gre,
    /// FTP's control conversations, heard by the helper, and the connections they announce.
    Ftp,
    /// Protocols without a tracker, IPv4 options, IPv6 extension headers.
    Other,
    /// Any of the above, cut into pieces.
    Fragments,
    /// Timeouts of a second or two, and waiting.
    Expiry,
}

/// What goes on the wire next, before it is a step.
pub struct Emission {
    pub toward: Toward,
    pub ends: Ends,
    pub protocol: u8,
    pub transport: Vec<u8>,
}

/// A flow: it is asked for its next packet until it is replaced.
enum Flow {
    Tcp(Box<tcp::Flow>),
    Udp(udp::Flow),
    Icmp(icmp::Flow),
    Sctp(Box<sctp::Flow>),
    Gre(gre::Flow),
    Ftp(Box<ftp::Flow>),
    Other(other::Flow),
}

/// How many flows live at once.
const POOL: usize = 160;
/// Recent packets that an ICMP error may quote.
const MEMORY: usize = 64;
/// Packets of a burst, and milliseconds from one burst to the next, in a slow story. Timeouts of one and two seconds never end within a burst.
const BURST: usize = 700;
const BEAT: u64 = 750;
const BEATS: usize = 7;

/// Writes one story of about `length` packets.
pub fn story(grammar: Grammar, v6: bool, seed: u64, length: usize) -> Story {
    let mut writer = Writer { random: Random::new(seed), v6, grammar, ident: 0, recent: Vec::new() };
    let mut story =
        Story { knobs: knobs(grammar, &mut writer.random), slow: grammar == Grammar::Expiry, ..Story::default() };
    let mut flows: Vec<Flow> = (0..POOL).map(|_| writer.flow()).collect();
    let length = if story.slow { BURST * BEATS } else { length };
    for at in 0..length {
        let chosen = writer.random.below(flows.len());
        if writer.random.permille(12) {
            flows[chosen] = writer.flow();
        }
        let emission = writer.emission(&mut flows[chosen]);
        let before = story.steps.len();
        writer.steps(emission, &mut story.steps);
        if story.slow {
            for step in &mut story.steps[before..] {
                step.not_before = (at / BURST) as u64 * BEAT;
            }
        }
    }
    story
}

fn knobs(grammar: Grammar, random: &mut Random) -> Vec<(Knob, u64)> {
    let mut knobs = Vec::new();
    for (knob, chance, values) in [
        (Knob::TcpLoose, 30, [0, 0]),
        (Knob::TcpBeLiberal, 20, [1, 1]),
        (Knob::TcpIgnoreInvalidRst, 30, [1, 1]),
        (Knob::TcpMaxRetrans, 30, [0, 1]),
        (Knob::Checksum, 20, [0, 0]),
        (Knob::Acct, 10, [0, 0]),
    ] {
        if random.percent(chance) {
            knobs.push((knob, random.pick(&values)));
        }
    }
    if grammar == Grammar::Expiry {
        for knob in super::story::CHANGING.iter().filter(|knob| knob.unit() == "seconds") {
            knobs.push((*knob, random.weighted(&[(4, 1), (4, 2), (2, 30)])));
        }
    }
    knobs
}

struct Writer {
    random: Random,
    v6: bool,
    grammar: Grammar,
    ident: u32,
    recent: Vec<(Toward, Vec<u8>)>,
}

impl Writer {
    /// A client and a server, out of few.
    fn ends(&mut self) -> Ends {
        let (client, server) = (1 + self.random.below(3) as u8, 1 + self.random.below(2) as u8);
        host_pair(self.v6, client, server)
    }

    fn flow(&mut self) -> Flow {
        let ends = self.ends();
        let kind = match self.grammar {
            Grammar::Mixed | Grammar::Fragments | Grammar::Expiry => self.random.weighted(&[
                (50, Grammar::Tcp),
                (14, Grammar::Udp),
                (14, Grammar::Icmp),
                (12, Grammar::Sctp),
                (5, Grammar::Gre),
                (5, Grammar::Other),
            ]),
            named => named,
        };
        let random = &mut self.random;
        match kind {
            Grammar::Udp => Flow::Udp(udp::Flow::new(ends, random)),
            Grammar::Icmp => Flow::Icmp(icmp::Flow::new(ends, random)),
            Grammar::Sctp => Flow::Sctp(Box::new(sctp::Flow::new(ends, random))),
            Grammar::Gre => Flow::Gre(gre::Flow::new(ends, random)),
            Grammar::Ftp => Flow::Ftp(Box::new(ftp::Flow::new(ends, random))),
            Grammar::Other => Flow::Other(other::Flow::new(ends, random)),
            _ => Flow::Tcp(Box::new(tcp::Flow::new(ends, random))),
        }
    }

    fn emission(&mut self, flow: &mut Flow) -> Emission {
        if !self.recent.is_empty() && self.random.permille(25) {
            let at = self.random.below(self.recent.len());
            let (toward, packet) = self.recent[at].clone();
            if let Some(emission) = icmp::error(&packet, toward, &mut self.random) {
                return emission;
            }
        }
        let random = &mut self.random;
        match flow {
            Flow::Tcp(flow) => flow.next(random),
            Flow::Udp(flow) => flow.next(random),
            Flow::Icmp(flow) => flow.next(random),
            Flow::Sctp(flow) => flow.next(random),
            Flow::Gre(flow) => flow.next(random),
            Flow::Ftp(flow) => flow.next(random),
            Flow::Other(flow) => flow.next(random),
        }
    }

    /// Puts the IP header on, and sometimes cuts the datagram up.
    fn steps(&mut self, emission: Emission, into: &mut Vec<Step>) {
        self.ident = self.ident % 0xffff + 1;
        let random = &mut self.random;
        let odd = if self.grammar == Grammar::Other { 30 } else { 2 };
        let mut envelope = Envelope { ident: self.ident, ..Envelope::default() };
        if random.percent(odd) {
            other::dress(&mut envelope, self.v6, random);
        }
        let mut whole = craft::datagram(emission.ends, emission.protocol, &emission.transport, &envelope);
        let toward = emission.toward;
        self.recent.push((toward, whole.clone()));
        if self.recent.len() > MEMORY {
            self.recent.swap_remove(random.below(MEMORY));
        }
        let pieced = if self.grammar == Grammar::Fragments { 60 } else { 1 };
        let plain = envelope.options.is_empty() && envelope.extensions.is_empty();
        if plain && random.percent(pieced) && emission.transport.len() > 8 {
            fragment::steps(toward, &whole, self.ident, random, into);
            return;
        }
        if random.permille(2) {
            other::spoil(&mut whole, random);
        }
        into.push(Step::whole(toward, whole));
    }
}

/// Host number `client` of the clients' network and `server` of the servers'.
pub fn host_pair(v6: bool, client: u8, server: u8) -> Ends {
    let host = |network: u8, host: u8| -> IpAddr {
        if v6 {
            Ipv6Addr::new(0xfd00 | u16::from(network), 0, 0, 0, 0, 0, 0, u16::from(host)).into()
        } else {
            Ipv4Addr::new(10, network, 0, host).into()
        }
    };
    Ends { source: host(1, client), destination: host(2, server) }
}

/// The ends of a packet that goes `toward`, for a flow whose client-to-server ends are `ends`.
pub fn facing(ends: Ends, toward: Toward) -> Ends {
    match toward {
        Toward::Server => ends,
        Toward::Client => ends.reverse(),
    }
}
