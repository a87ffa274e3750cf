//! A packet that a flow generates, and the hosts it goes between.
use crate::oracle::kernel::Toward;
use crate::oracle::packet_builder::PacketEndpoints;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The next packet of a flow, without its IP header.
pub struct GeneratedPacket {
    pub toward: Toward,
    pub ends: PacketEndpoints,
    pub protocol: u8,
    pub transport: Vec<u8>,
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
