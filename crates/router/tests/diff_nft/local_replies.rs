//! What a router answers on its own addresses, beside the kernel's own stack: echo, closed ports, unknown protocols, through input and output chains and translations.
use crate::kernel::Kernel;
use crate::replies::differences;
use crate::router_of;
use crate::rule_counters::{Arrival, address, in_own_thread};
use crate::traffic::{ACK, FIN, Message, PSH, RST, SYN, echo, ip_packet, tcp, udp};

const RULES: &str = "table inet t {
    chain pre {
        type nat hook prerouting priority dstnat;
        tcp dport 2000 redirect to :22
        udp dport 2000 redirect to :53
        ip daddr 198.51.100.77 dnat ip to 192.0.2.1
        ip6 daddr 2001:db8:f::77 dnat ip6 to 2001:db8::1
    }
    chain in {
        type filter hook input priority 0;
        tcp dport 99 drop
        udp dport 99 drop
        tcp dport 98 reject with tcp reset
        ct state invalid drop
    }
    chain out {
        type filter hook output priority 0;
        tcp sport 97 drop
        icmp type destination-unreachable ip daddr 10.1.0.66 drop
    }
}";

fn message(protocol: u8, bytes: &[u8]) -> Message {
    Message { protocol, bytes: bytes.to_vec(), check_at: None }
}

fn arrivals() -> Vec<Arrival> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        let (near, far) = if v6 { ("fd00:1::2", "2001:db8:f::9") } else { ("10.1.0.2", "198.51.100.9") };
        let ours = match v6 {
            false => ["10.1.0.1", "192.0.2.1", "198.51.100.77", "10.1.0.255", "224.0.0.1"],
            true => ["fd00:1::1", "2001:db8::1", "2001:db8:f::77", "fd00:1::", "ff02::1"],
        };
        for (device, from) in [(0, near), (1, far)] {
            for (number, to) in ours.iter().enumerate() {
                let port = 3000 + number as u16 * 100 + device as u16 * 50;
                let mut bad = udp(port + 9, 53, 4);
                bad.check_at = None;
                bad.bytes[6..8].copy_from_slice(&[0x12, 0x34]);
                let mut no_sum = udp(port + 10, 53, 4);
                no_sum.check_at = None;
                let mut lite = udp(port + 11, 53, 10);
                (lite.protocol, lite.bytes[4], lite.bytes[5]) = (136, 0, 0);
                let icmp = if v6 { 58 } else { 1 };
                for (what, message) in [
                    ("echo", echo(v6, true, port)),
                    ("echo again", echo(v6, true, port)),
                    ("echo reply", echo(v6, false, port + 1)),
                    (
                        "an error about nothing",
                        Message { check_at: Some(2), ..message(icmp, &[3, 3, 0, 0, 0, 0, 0, 0, 1, 2]) },
                    ),
                    ("syn", tcp(port, 22, 1000, 0, SYN, 0)),
                    ("syn again", tcp(port, 22, 1000, 0, SYN, 0)),
                    ("syn with data", tcp(port + 1, 22, 1000, 0, SYN, 9)),
                    ("ack", tcp(port + 2, 22, 1000, 7000, ACK, 0)),
                    ("data", tcp(port + 3, 22, 1000, 7000, ACK | PSH, 12)),
                    ("fin", tcp(port + 4, 22, 1000, 7000, ACK | FIN, 0)),
                    ("rst", tcp(port + 5, 22, 1000, 7000, RST, 0)),
                    ("to a dropped port", tcp(port + 6, 99, 1000, 0, SYN, 0)),
                    ("to a rejected port", tcp(port + 7, 98, 1000, 0, SYN, 0)),
                    ("whose answer is dropped", tcp(port + 8, 97, 1000, 0, SYN, 0)),
                    ("redirected", tcp(port + 9, 2000, 1000, 0, SYN, 0)),
                    ("udp", udp(port, 53, 10)),
                    ("udp again", udp(port, 53, 10)),
                    ("long udp", udp(port + 1, 53, 1400)),
                    ("udp to a dropped port", udp(port + 2, 99, 10)),
                    ("udp redirected", udp(port + 3, 2000, 10)),
                    ("udp with a wrong checksum", bad),
                    ("udp without a checksum", no_sum),
                    ("udplite", lite),
                    ("gre", message(47, &[0, 0, 8, 0, 1, 2, 3, 4])),
                    ("an unknown protocol", message(253, &[1, 2, 3, 4])),
                    ("igmp", message(2, &[0x16, 0, 0, 0, 224, 0, 0, 5])),
                    ("no next header", message(59, &[])),
                ] {
                    // Not protocols of which the kernel has the other family's handler.
                    let packet = ip_packet(v6, address(from), address(to), 64, &message);
                    all.push(Arrival { what: format!("{what} from {from} to {to}"), device, packet });
                }
            }
        }
    }
    let refused = ip_packet(false, address("10.1.0.66"), address("10.1.0.1"), 64, &udp(4000, 53, 3));
    all.push(Arrival { what: "udp whose answer is dropped".to_owned(), device: 0, packet: refused });
    // Behind options and extension headers, with a TOS.
    let mut marked = ip_packet(false, address("10.1.0.2"), address("10.1.0.1"), 64, &echo(false, true, 7777));
    marked[1] = 0x2e;
    marked[10..12].fill(0);
    let sum = crate::traffic::checksum(&marked[..20]);
    marked[10..12].copy_from_slice(&sum.to_be_bytes());
    all.push(Arrival { what: "echo with a TOS".to_owned(), device: 0, packet: marked });
    let mut classed = ip_packet(true, address("fd00:1::2"), address("fd00:1::1"), 64, &echo(true, true, 7777));
    classed[0..2].copy_from_slice(&[0x62, 0xe0]);
    all.push(Arrival { what: "echo with a traffic class".to_owned(), device: 0, packet: classed });
    let options = message(60, &[253, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3, 4]);
    let behind = ip_packet(true, address("fd00:1::2"), address("fd00:1::1"), 64, &options);
    all.push(Arrival { what: "an unknown protocol behind options".to_owned(), device: 0, packet: behind });
    all
}

/// Identifications and flow labels of a host's own packets are its own choice.
fn normalize(mut bytes: Vec<u8>) -> Vec<u8> {
    match bytes[0] >> 4 {
        4 => {
            bytes[4..6].fill(0);
            bytes[10..12].fill(0);
        }
        _ => {
            bytes[1] &= 0xf0;
            bytes[2..4].fill(0);
        }
    }
    bytes
}

#[test]
fn own_addresses_answer_as_in_linux() {
    in_own_thread(|| {
        let Some(mut kernel) = Kernel::new(RULES) else { return false };
        let mut router = router_of(RULES).with_local_replies();
        let wrong = differences(&mut kernel, &mut router, &arrivals(), normalize);
        assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
        true
    });
}
