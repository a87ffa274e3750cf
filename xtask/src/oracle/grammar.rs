//! Random traffic that is nearly right: a pool of flows that live at the same time, each following its protocol for the most part and
//! straying now and then, among few addresses and ports, so that they meet.
use super::kernel::Toward;
use super::packet_builder::{self, IpHeaderSpec, PacketEndpoints};
use super::rng::OracleRng;
use super::scenario::OracleScenario;
use super::step::OracleStep;
use keepstate_engine::Sysctl;
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
pub struct GeneratedPacket {
    pub toward: Toward,
    pub ends: PacketEndpoints,
    pub protocol: u8,
    pub transport: Vec<u8>,
}

/// A flow: it is asked for its next packet until it is replaced.
enum TrafficFlow {
    Tcp(Box<tcp::TcpFlow>),
    Udp(udp::UdpFlow),
    Icmp(icmp::IcmpFlow),
    Sctp(Box<sctp::SctpFlow>),
    Gre(gre::GreFlow),
    Ftp(Box<ftp::FtpFlow>),
    Other(other::OtherFlow),
}

/// How many flows live at once.
const CONCURRENT_FLOWS: usize = 160;
/// Recent packets that an ICMP error may quote.
const RECENT_PACKETS: usize = 64;
/// Packets of a burst, and milliseconds from one burst to the next, in a slow story. Timeouts of one and two seconds never end within a burst.
const BURST: usize = 700;
const BURST_INTERVAL_MS: u64 = 750;
const BURST_COUNT: usize = 7;

/// Writes one story of about `length` packets.
pub fn generate_scenario(grammar: Grammar, v6: bool, seed: u64, length: usize) -> OracleScenario {
    let mut writer = TrafficGenerator { random: OracleRng::new(seed), v6, grammar, ident: 0, recent: Vec::new() };
    let mut story = OracleScenario {
        sysctls: random_sysctls(grammar, &mut writer.random),
        slow: grammar == Grammar::Expiry,
        ..OracleScenario::default()
    };
    let mut flows: Vec<TrafficFlow> = (0..CONCURRENT_FLOWS).map(|_| writer.new_flow()).collect();
    let length = if story.slow { BURST * BURST_COUNT } else { length };
    for at in 0..length {
        let chosen = writer.random.below(flows.len());
        if writer.random.permille(12) {
            flows[chosen] = writer.new_flow();
        }
        let emission = writer.next_packet(&mut flows[chosen]);
        let before = story.steps.len();
        writer.push_steps(emission, &mut story.steps);
        if story.slow {
            for step in &mut story.steps[before..] {
                step.not_before = (at / BURST) as u64 * BURST_INTERVAL_MS;
            }
        }
    }
    story
}

fn random_sysctls(grammar: Grammar, random: &mut OracleRng) -> Vec<(Sysctl, u64)> {
    let mut knobs = Vec::new();
    for (knob, chance, values) in [
        (Sysctl::TcpLoose, 30, [0, 0]),
        (Sysctl::TcpBeLiberal, 20, [1, 1]),
        (Sysctl::TcpIgnoreInvalidRst, 30, [1, 1]),
        (Sysctl::TcpMaxRetrans, 30, [0, 1]),
        (Sysctl::Checksum, 20, [0, 0]),
        (Sysctl::Acct, 10, [0, 0]),
    ] {
        if random.percent(chance) {
            knobs.push((knob, random.pick(&values)));
        }
    }
    if grammar == Grammar::Expiry {
        for knob in super::scenario::SCENARIO_SYSCTLS.iter().filter(|knob| knob.unit() == "seconds") {
            knobs.push((*knob, random.weighted(&[(4, 1), (4, 2), (2, 30)])));
        }
    }
    knobs
}

struct TrafficGenerator {
    random: OracleRng,
    v6: bool,
    grammar: Grammar,
    ident: u32,
    recent: Vec<(Toward, Vec<u8>)>,
}

impl TrafficGenerator {
    /// A client and a server, out of few.
    fn random_endpoints(&mut self) -> PacketEndpoints {
        let (client, server) = (1 + self.random.below(3) as u8, 1 + self.random.below(2) as u8);
        host_pair(self.v6, client, server)
    }

    fn new_flow(&mut self) -> TrafficFlow {
        let ends = self.random_endpoints();
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
            Grammar::Udp => TrafficFlow::Udp(udp::UdpFlow::new(ends, random)),
            Grammar::Icmp => TrafficFlow::Icmp(icmp::IcmpFlow::new(ends, random)),
            Grammar::Sctp => TrafficFlow::Sctp(Box::new(sctp::SctpFlow::new(ends, random))),
            Grammar::Gre => TrafficFlow::Gre(gre::GreFlow::new(ends, random)),
            Grammar::Ftp => TrafficFlow::Ftp(Box::new(ftp::FtpFlow::new(ends, random))),
            Grammar::Other => TrafficFlow::Other(other::OtherFlow::new(ends, random)),
            _ => TrafficFlow::Tcp(Box::new(tcp::TcpFlow::new(ends, random))),
        }
    }

    fn next_packet(&mut self, flow: &mut TrafficFlow) -> GeneratedPacket {
        if !self.recent.is_empty() && self.random.permille(25) {
            let at = self.random.below(self.recent.len());
            let (toward, packet) = self.recent[at].clone();
            if let Some(emission) = icmp::icmp_error(&packet, toward, &mut self.random) {
                return emission;
            }
        }
        let random = &mut self.random;
        match flow {
            TrafficFlow::Tcp(flow) => flow.next_packet(random),
            TrafficFlow::Udp(flow) => flow.next_packet(random),
            TrafficFlow::Icmp(flow) => flow.next_packet(random),
            TrafficFlow::Sctp(flow) => flow.next_packet(random),
            TrafficFlow::Gre(flow) => flow.next_packet(random),
            TrafficFlow::Ftp(flow) => flow.next_packet(random),
            TrafficFlow::Other(flow) => flow.next_packet(random),
        }
    }

    /// Puts the IP header on, and sometimes cuts the datagram up.
    fn push_steps(&mut self, emission: GeneratedPacket, into: &mut Vec<OracleStep>) {
        self.ident = self.ident % 0xffff + 1;
        let random = &mut self.random;
        let odd = if self.grammar == Grammar::Other { 30 } else { 2 };
        let mut envelope = IpHeaderSpec { ident: self.ident, ..IpHeaderSpec::default() };
        if random.percent(odd) {
            other::add_ip_options(&mut envelope, self.v6, random);
        }
        let mut whole = packet_builder::ip_packet(emission.ends, emission.protocol, &emission.transport, &envelope);
        let toward = emission.toward;
        self.recent.push((toward, whole.clone()));
        if self.recent.len() > RECENT_PACKETS {
            self.recent.swap_remove(random.below(RECENT_PACKETS));
        }
        let pieced = if self.grammar == Grammar::Fragments { 60 } else { 1 };
        let plain = envelope.options.is_empty() && envelope.extensions.is_empty();
        if plain && random.percent(pieced) && emission.transport.len() > 8 {
            fragment::push_fragments(toward, &whole, self.ident, random, into);
            return;
        }
        if random.permille(2) {
            other::corrupt_ip_header(&mut whole, random);
        }
        into.push(OracleStep::from_packet(toward, whole));
    }
}

/// Host number `client` of the clients' network and `server` of the servers'.
pub fn host_pair(v6: bool, client: u8, server: u8) -> PacketEndpoints {
    let host = |network: u8, host: u8| -> IpAddr {
        if v6 {
            Ipv6Addr::new(0xfd00 | u16::from(network), 0, 0, 0, 0, 0, 0, u16::from(host)).into()
        } else {
            Ipv4Addr::new(10, network, 0, host).into()
        }
    };
    PacketEndpoints { source: host(1, client), destination: host(2, server) }
}

/// The ends of a packet that goes `toward`, for a flow whose client-to-server ends are `ends`.
pub fn endpoints_toward(ends: PacketEndpoints, toward: Toward) -> PacketEndpoints {
    match toward {
        Toward::Server => ends,
        Toward::Client => ends.reverse(),
    }
}
