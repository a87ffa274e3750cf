//! Services through a whole router: packets in, packets out.
use super::*;
use crate::FibTable;
use crate::{DropReason, Egress, Interface, LINK_TYPE_NONE, Route, Router};
use keepstate_engine::{Engine, Instant, Secret, Sysctls};
use keepstate_rules::{NoIncludes, compile, parse_with};
use keepstate_wire::Packet;
use keepstate_wire::checksum::Sum;
use std::net::IpAddr;

mod backend_lifecycle;
mod invariants;
mod scheduling;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Clients at 192.0.2.0/24 and 2001:db8::/64 behind interface 1, backends at 10.0.0.0/24 and fd00::/64 behind interface 2.
fn router(rules: &str, services: Vec<ServiceConfig>) -> Router {
    let (tree, sources) = parse_with("test.nft", rules, &NoIncludes, &[]).unwrap();
    let program = compile(&tree, &sources).unwrap();
    let device = |index, name: &str, addresses: [(&str, u8); 2]| Interface {
        index,
        name: name.into(),
        mtu: 1500,
        group: 0,
        link_type: LINK_TYPE_NONE,
        kind: String::new(),
        addresses: addresses.map(|(address, length)| (ip(address), length)).to_vec(),
    };
    let wan = device(1, "wan0", [("192.0.2.254", 24), ("2001:db8::fffe", 64)]);
    let lan = device(2, "lan0", [("10.0.0.1", 24), ("fd00::1", 64)]);
    let default = Route::new(ip("0.0.0.0"), 0, 1);
    let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    let mut router = Router::new(engine, program, FibTable::new(vec![wan, lan], vec![default]), (1, 2));
    assert_eq!(validate(&services), []);
    router.replace_services(services, Instant(0));
    router
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

/// 203.0.113.80:80, or :53 for UDP, with the backends 10.0.0.11 and so on at port 8080.
fn service(transport: Transport, backends: usize) -> ServiceConfig {
    let port = if transport == Transport::Tcp { 80 } else { 53 };
    let service = ServiceConfig::new("web", (ip("203.0.113.80"), port..=port), transport);
    (0..backends).fold(service, |service, number| service.with_backend(backend(number)))
}

fn backend(number: usize) -> BackendConfig {
    BackendConfig {
        address: IpAddr::V4((0x0a00_000b + u32::try_from(number).unwrap()).into()),
        port: Some(8080),
        weight: 1,
    }
}

/// Addresses and ports of a packet's two ends.
type EndpointPair = ((IpAddr, u16), (IpAddr, u16));

fn endpoints(from: (&str, u16), to: (&str, u16)) -> EndpointPair {
    ((ip(from.0), from.1), (ip(to.0), to.1))
}

/// The ends and the flags of TCP, or 0.
fn parse_packet(bytes: &[u8]) -> (EndpointPair, u8) {
    let packet = Packet::parse(bytes).unwrap();
    let (from, to) = match packet.addresses() {
        keepstate_wire::Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        keepstate_wire::Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
    };
    let transport = packet.transport();
    let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    let flags = if packet.protocol() == 6 { transport[13] } else { 0 };
    (((from, port(0)), (to, port(2))), flags)
}

fn tcp(ends: EndpointPair, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let mut segment = [ends.0.1.to_be_bytes(), ends.1.1.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ip_packet(ends, 6, segment, 16)
}

fn udp(ends: EndpointPair) -> Vec<u8> {
    let segment = [ends.0.1.to_be_bytes(), ends.1.1.to_be_bytes(), 12_u16.to_be_bytes(), [0; 2]].concat();
    ip_packet(ends, 17, [&segment[..], b"data"].concat(), 6)
}

fn ip_packet(ends: EndpointPair, protocol: u8, mut segment: Vec<u8>, check_at: usize) -> Vec<u8> {
    let length = u16::try_from(segment.len()).unwrap();
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let addresses = [octets(ends.0.0), octets(ends.1.0)].concat();
    let sum =
        Sum::new().add_bytes(&addresses).add_bytes(&[0, protocol]).add_bytes(&length.to_be_bytes()).add_bytes(&segment);
    segment[check_at..check_at + 2].copy_from_slice(&sum.finish().to_be_bytes());
    let mut header = if ends.0.0.is_ipv4() {
        let mut header = vec![0x45, 0];
        header.extend((length + 20).to_be_bytes());
        header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        let sum = Sum::new().add_bytes(&header).add_bytes(&addresses).finish();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    } else {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(length.to_be_bytes());
        header.extend([protocol, 64]);
        header
    };
    header.extend(addresses);
    header.extend(segment);
    header
}

/// Sends a packet in by an interface: the result, and the packets sent.
fn send_packet(router: &mut Router, iif: u32, bytes: &[u8], now: Instant) -> (Result<(), DropReason>, Vec<Vec<u8>>) {
    let result = router.handle(bytes, iif, now);
    (result, std::iter::from_fn(|| router.poll_output()).map(Egress::into_packet).collect())
}

/// Client `number` opens a connection: the backend it was sent to, if to any.
fn open_connection(router: &mut Router, number: u8, port: u16, now: Instant) -> Option<IpAddr> {
    let client = format!("192.0.2.{number}");
    let ends = endpoints((&client, port), ("203.0.113.80", 80));
    let (_, left) = send_packet(router, 1, &tcp(ends, SYN, 100, 0), now);
    let (sent, flags) = parse_packet(left.first()?);
    if flags & RST != 0 {
        return None;
    }
    assert_eq!(sent.1.1, 8080);
    let answer = tcp((sent.1, sent.0), SYN | ACK, 900, 101);
    let (_, left) = send_packet(router, 2, &answer, now);
    assert_eq!(parse_packet(&left[0]).0, (ends.1, ends.0), "the client sees the service");
    let (result, _) = send_packet(router, 1, &tcp(ends, ACK, 101, 901), now);
    assert_eq!(result, Ok(()));
    Some(sent.1.0)
}

/// A segment of a connection that stands: the result, and where it went.
fn send_on_connection(
    router: &mut Router,
    number: u8,
    port: u16,
    now: Instant,
) -> (Result<(), DropReason>, EndpointPair, u8) {
    let client = format!("192.0.2.{number}");
    let (result, left) =
        send_packet(router, 1, &tcp(endpoints((&client, port), ("203.0.113.80", 80)), ACK, 101, 901), now);
    let (ends, flags) = parse_packet(&left[0]);
    (result, ends, flags)
}

/// The client ends a connection by a reset.
fn reset_connection(router: &mut Router, number: u8, port: u16, now: Instant) {
    let client = format!("192.0.2.{number}");
    let ends = endpoints((&client, port), ("203.0.113.80", 80));
    assert_eq!(send_packet(router, 1, &tcp(ends, RST | ACK, 101, 901), now).0, Ok(()));
}

/// The backend of this number, as services name it.
fn backend_id(router: &mut Router, number: usize) -> BackendId {
    router.services().backends().find(|(_, _, member)| member.config() == &backend(number)).unwrap().0
}

/// Live connections and connections ever, by backend.
fn connection_counts(router: &mut Router, now: Instant) -> Vec<(u64, u64)> {
    let services = router.services_with_fresh_counts(now);
    services.iter().flat_map(ServiceState::backends).map(|member| (member.active(), member.total())).collect()
}
