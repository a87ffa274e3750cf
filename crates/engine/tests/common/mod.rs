//! Packets for tests, built byte by byte with correct checksums.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot build its packet must fail")]
use keepstate_wire::checksum::Sum;
use std::net::{IpAddr, SocketAddr};

pub mod ftp_session;
pub mod rng;

pub const CLIENT: [u8; 4] = [10, 1, 0, 2];
pub const SERVER: [u8; 4] = [10, 2, 0, 9];

/// One TCP segment of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub data: usize,
    pub options: Vec<u8>,
}

/// An IPv4 packet.
pub fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(source.iter().chain(&destination));
    let check = keepstate_wire::checksum::internet(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&check);
    packet.extend(payload);
    packet
}

fn pseudo_checksum(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> u16 {
    let length = u16::try_from(payload.len()).unwrap();
    let header = Sum::new().add_bytes(&source).add_bytes(&destination).add_u16(protocol.into()).add_u16(length);
    header.add_bytes(payload).finish()
}

/// A TCP segment between two ports.
pub fn tcp(from: ([u8; 4], u16), to: ([u8; 4], u16), segment: &Segment) -> Vec<u8> {
    let words = 5 + segment.options.len().div_ceil(4);
    let mut payload = Vec::new();
    payload.extend(from.1.to_be_bytes());
    payload.extend(to.1.to_be_bytes());
    payload.extend(segment.seq.to_be_bytes());
    payload.extend(segment.ack.to_be_bytes());
    payload.extend([(words as u8) << 4, segment.flags]);
    payload.extend(segment.window.to_be_bytes());
    payload.extend([0; 4]);
    payload.extend(&segment.options);
    payload.resize(words * 4 + segment.data, 0);
    let check = pseudo_checksum(from.0, to.0, 6, &payload).to_be_bytes();
    payload[16..18].copy_from_slice(&check);
    ipv4(from.0, to.0, 6, &payload)
}

/// An IPv6 packet.
pub fn ipv6(source: [u8; 16], destination: [u8; 16], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
    packet.extend(source.iter().chain(&destination));
    packet.extend(payload);
    packet
}

/// A TCP segment without options that carries `data`, over either family.
pub fn tcp_with(from: SocketAddr, to: SocketAddr, segment: &Segment, data: &[u8]) -> Vec<u8> {
    let mut payload = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    payload.extend(segment.seq.to_be_bytes());
    payload.extend(segment.ack.to_be_bytes());
    payload.extend([5 << 4, segment.flags]);
    payload.extend(segment.window.to_be_bytes());
    payload.extend([0; 4]);
    payload.extend(data);
    let length = u16::try_from(payload.len()).unwrap();
    let sum = Sum::new().add_u16(6).add_u16(length);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let check = sum.add_bytes(&from.octets()).add_bytes(&to.octets()).add_bytes(&payload).finish();
            payload[16..18].copy_from_slice(&check.to_be_bytes());
            ipv4(from.octets(), to.octets(), 6, &payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let check = sum.add_bytes(&from.octets()).add_bytes(&to.octets()).add_bytes(&payload).finish();
            payload[16..18].copy_from_slice(&check.to_be_bytes());
            ipv6(from.octets(), to.octets(), 6, &payload)
        }
        mixed => unreachable!("{mixed:?}"),
    }
}

/// A UDP packet.
pub fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), data: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(from.1.to_be_bytes());
    payload.extend(to.1.to_be_bytes());
    payload.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    payload.extend([0; 2]);
    payload.extend(data);
    let check = pseudo_checksum(from.0, to.0, 17, &payload).to_be_bytes();
    payload[6..8].copy_from_slice(&check);
    ipv4(from.0, to.0, 17, &payload)
}

/// An ICMP message; `rest` begins at byte 4.
pub fn icmp(source: [u8; 4], destination: [u8; 4], kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut payload = vec![kind, code, 0, 0];
    payload.extend(rest);
    let check = keepstate_wire::checksum::internet(&payload).to_be_bytes();
    payload[2..4].copy_from_slice(&check);
    ipv4(source, destination, 1, &payload)
}
