//! ICMP errors made by hand: `quote SIDE FROM TO HEARS AT TYPE/CODE WORD PROTOCOL SOURCE DESTINATION` sends one from FROM to TO about a packet between these ends; what HEARS gets at the address AT.
use crate::peers::spawn_in_netns;
use crate::sockets::{IcmpError, bind_raw_socket, sum};
use crate::twin::Lab;
use std::net::{IpAddr, SocketAddr};

/// IPv4 and IPv6 header of a packet with so many bytes behind it.
fn ip_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u16) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, 63, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let check = sum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&check);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, 63]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        _ => panic!("one family"),
    }
}

/// An ICMP error about a packet between these ends, with its checksum if it is IPv4's; the kernel fills in that of IPv6.
fn icmp_error((kind, code): (u8, u8), word: u32, protocol: u8, ends: [SocketAddr; 2]) -> Vec<u8> {
    let [source, destination] = ends;
    let mut transport = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    match protocol {
        6 => transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0x12, 0x34, 0, 0]),
        17 => transport.extend([0, 28, 0x12, 0x34]),
        // An echo request: the source's port is its identifier.
        _ => {
            transport =
                [&[if source.is_ipv4() { 8 } else { 128 }, 0, 0x12, 0x34][..], &source.port().to_be_bytes(), &[0, 1]]
                    .concat()
        }
    }
    transport.resize(28.max(transport.len()), 0x41);
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(ip_header(source.ip(), destination.ip(), protocol, transport.len() as u16));
    message.extend(transport);
    if source.is_ipv4() {
        let check = sum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&check);
    }
    message
}

impl Lab {
    pub fn quote(&self, words: &[&str]) -> String {
        let [side, from, to, hears, at, kind, word, protocol, source, destination] = *words else {
            panic!("{words:?}: no such error")
        };
        let (kind, code) = kind.split_once('/').unwrap();
        let ends = [source, destination].map(|end| end.parse::<SocketAddr>().unwrap());
        let kind = (kind.parse().unwrap(), code.parse().unwrap());
        let message = icmp_error(kind, word.parse().unwrap(), protocol.parse().unwrap(), ends);
        let [from, to, at] = [from, to, at].map(|address| address.parse::<IpAddr>().unwrap());
        let icmp = if to.is_ipv4() { 1 } else { 58 };
        let hears = spawn_in_netns(&self.netns.name(hears), move || bind_raw_socket(at, icmp)).join().unwrap();
        let sends = spawn_in_netns(&self.netns.name(side), move || bind_raw_socket(from, icmp)).join().unwrap();
        let nothing = rustix::net::SendFlags::empty();
        rustix::net::sendto(&sends, &message, nothing, &SocketAddr::new(to, 0)).unwrap();
        let mut bytes = vec![0; 2000];
        // Questions, answers and neighbour discovery are heard as well.
        loop {
            let heard = rustix::net::recv(&hears, bytes.as_mut_slice(), rustix::net::RecvFlags::empty());
            let Ok((length, _)) = heard else { return "nothing".to_owned() };
            let (first, is_error) = match bytes[0] >> 4 {
                4 => (bytes[20], [3, 4, 5, 11, 12].contains(&bytes[20])),
                _ => (bytes[0], bytes[0] < 128),
            };
            if is_error && first == message[0] {
                return IcmpError(bytes[..length].to_vec()).to_string().trim().to_owned();
            }
        }
    }
}
