//! Random traffic that is nearly valid: a pool of concurrent flows, each mostly following its protocol, with
//! occasional errors, among few addresses and ports, so that flows collide.
use super::kernel::Toward;
use super::packet_builder::{self, IpHeaderSpec, PacketEndpoints};
use super::rng::OracleRng;
use super::scenario::OracleScenario;
use super::step::OracleStep;
use generated_packet::{GeneratedPacket, host_pair};
use keepstate_engine::Sysctl;

mod fragment;
mod ftp;
pub mod generated_packet;
mod gre;
mod icmp;
mod other;
mod sctp;
mod tcp;
mod udp;

/// The traffic of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Grammar {
    /// Every protocol at once.
    Mixed,
    Tcp,
    Udp,
    Icmp,
    Sctp,
    Gre,
    /// FTP control connections with the helper, and the data connections they announce.
    Ftp,
    /// Protocols without a tracker, IPv4 options, IPv6 extension headers.
    Other,
    /// Any of the above, fragmented.
    Fragments,
    /// Timeouts of one or two seconds, with pauses.
    Expiry,
}

/// A flow: it generates packets until it is replaced.
enum TrafficFlow {
    Tcp(Box<tcp::TcpFlow>),
    Udp(udp::UdpFlow),
    Icmp(icmp::IcmpFlow),
    Sctp(Box<sctp::SctpFlow>),
    Gre(gre::GreFlow),
    Ftp(Box<ftp::FtpFlow>),
    Other(other::OtherFlow),
}

/// Number of concurrent flows.
const CONCURRENT_FLOWS: usize = 160;
/// Number of recent packets that an ICMP error may be about.
const RECENT_PACKETS: usize = 64;
/// Packets per burst, and milliseconds from one burst to the next, in a slow scenario. Timeouts of one and two seconds never end within a burst.
const BURST: usize = 700;
const BURST_INTERVAL_MS: u64 = 750;
const BURST_COUNT: usize = 7;

/// Generates one scenario of about `length` packets.
pub fn generate_scenario(grammar: Grammar, v6: bool, seed: u64, length: usize) -> OracleScenario {
    let mut writer = TrafficGenerator { random: OracleRng::new(seed), v6, grammar, ident: 0, recent: Vec::new() };
    let mut scenario = OracleScenario {
        sysctls: random_sysctls(grammar, &mut writer.random),
        slow: grammar == Grammar::Expiry,
        ..OracleScenario::default()
    };
    let mut flows: Vec<TrafficFlow> = (0..CONCURRENT_FLOWS).map(|_| writer.new_flow()).collect();
    let length = if scenario.slow { BURST * BURST_COUNT } else { length };
    for at in 0..length {
        let chosen = writer.random.below(flows.len());
        if writer.random.permille(12) {
            flows[chosen] = writer.new_flow();
        }
        let generated = writer.next_packet(&mut flows[chosen]);
        let before = scenario.steps.len();
        writer.push_steps(generated, &mut scenario.steps);
        if scenario.slow {
            for step in &mut scenario.steps[before..] {
                step.not_before = (at / BURST) as u64 * BURST_INTERVAL_MS;
            }
        }
    }
    scenario
}

fn random_sysctls(grammar: Grammar, random: &mut OracleRng) -> Vec<(Sysctl, u64)> {
    let mut sysctls = Vec::new();
    for (sysctl, chance, values) in [
        (Sysctl::TcpLoose, 30, [0, 0]),
        (Sysctl::TcpBeLiberal, 20, [1, 1]),
        (Sysctl::TcpIgnoreInvalidRst, 30, [1, 1]),
        (Sysctl::TcpMaxRetrans, 30, [0, 1]),
        (Sysctl::Checksum, 20, [0, 0]),
        (Sysctl::Acct, 10, [0, 0]),
    ] {
        if random.percent(chance) {
            sysctls.push((sysctl, random.pick(&values)));
        }
    }
    if grammar == Grammar::Expiry {
        for sysctl in super::scenario::SCENARIO_SYSCTLS.iter().filter(|sysctl| sysctl.unit() == "seconds") {
            sysctls.push((*sysctl, random.weighted(&[(4, 1), (4, 2), (2, 30)])));
        }
    }
    sysctls
}

/// The packet on its way: if both its ends are in the servers' network, it goes there.
fn routed(generated: GeneratedPacket) -> GeneratedPacket {
    let ends = generated.ends;
    let toward = if [ends.source, ends.destination].into_iter().all(generated_packet::is_server) {
        Toward::Server
    } else {
        generated.toward
    };
    GeneratedPacket { toward, ..generated }
}

struct TrafficGenerator {
    random: OracleRng,
    v6: bool,
    grammar: Grammar,
    ident: u32,
    recent: Vec<(Toward, Vec<u8>)>,
}

impl TrafficGenerator {
    /// A client and a server, out of a few.
    fn random_endpoints(&mut self) -> PacketEndpoints {
        let (client, server) = (1 + self.random.below(3) as u8, 1 + self.random.below(2) as u8);
        let ends = host_pair(self.v6, client, server);
        // Some packets have one address, and then one port, at both ends.
        if self.random.percent(3) { PacketEndpoints { source: ends.destination, ..ends } } else { ends }
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
            if let Some(generated) = icmp::icmp_error(&packet, toward, &mut self.random) {
                return routed(generated);
            }
        }
        let random = &mut self.random;
        routed(match flow {
            TrafficFlow::Tcp(flow) => flow.next_packet(random),
            TrafficFlow::Udp(flow) => flow.next_packet(random),
            TrafficFlow::Icmp(flow) => flow.next_packet(random),
            TrafficFlow::Sctp(flow) => flow.next_packet(random),
            TrafficFlow::Gre(flow) => flow.next_packet(random),
            TrafficFlow::Ftp(flow) => flow.next_packet(random),
            TrafficFlow::Other(flow) => flow.next_packet(random),
        })
    }

    /// Adds the IP header, and sometimes fragments the packet.
    fn push_steps(&mut self, generated: GeneratedPacket, into: &mut Vec<OracleStep>) {
        self.ident = self.ident % 0xffff + 1;
        let random = &mut self.random;
        let odd = if self.grammar == Grammar::Other { 30 } else { 2 };
        let mut ip_header = IpHeaderSpec { ident: self.ident, ..IpHeaderSpec::default() };
        if random.percent(odd) {
            other::add_ip_options(&mut ip_header, self.v6, random);
        }
        let mut whole = packet_builder::ip_packet(generated.ends, generated.protocol, &generated.transport, &ip_header);
        let toward = generated.toward;
        self.recent.push((toward, whole.clone()));
        if self.recent.len() > RECENT_PACKETS {
            self.recent.swap_remove(random.below(RECENT_PACKETS));
        }
        let pieced = if self.grammar == Grammar::Fragments { 60 } else { 1 };
        let plain = ip_header.options.is_empty() && ip_header.extensions.is_empty();
        if plain && random.percent(pieced) && generated.transport.len() > 8 {
            fragment::push_fragments(toward, &whole, self.ident, random, into);
            return;
        }
        if random.permille(2) {
            other::corrupt_ip_header(&mut whole, random);
        }
        into.push(OracleStep::from_packet(toward, whole));
    }
}
