//! 15: entries older than the rules, beside the kernel: a flow is stale exactly if the kernel would now translate it.
use crate::netns_fixture::{DoctorOutput, NetnsFixture, UNREACHABLE_ADDR, run};
use crate::raw_segments::{RawTcpSocket, SYN};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;

/// A ruleset for `nft -f`, or, from its first line on, for `iptables-restore`.
const RULESETS: [(&str, &str); 5] = [
    ("a rule for one address", "table ip nat { chain out { type nat hook output priority -100;\nip daddr 10.9.1.2 udp dport 53 dnat to 10.9.1.9:53\n}\n}\n"),
    (
        "maps, ranges and jumps",
        "table inet t {
        map verdicts { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.9.1.1 . udp . 53 : jump one, 10.9.1.2 . tcp . 53 : jump one } }
        set some { type ipv4_addr; flags interval; elements = { 10.9.5.0/24 } }
        chain one { counter dnat ip to 10.9.1.9
        }
        chain two { udp dport 80 return
        dnat ip to 10.9.1.10-10.9.1.12
        }
        chain out { type nat hook output priority -95;
        ip daddr . meta l4proto . th dport vmap @verdicts
        ip daddr @some meta mark set meta mark | 0x1 udp dport 50-99 jump two
        dnat ip to ip daddr . udp dport map { 10.9.1.2 . 5300 : 10.9.1.8 . 53, 10.9.1.2 . 80 : 10.9.1.8 . 81 }
        udp dport { 8080, 8081 } ip saddr != 10.9.0.0/16 dnat ip to 10.9.1.7
        }
        }\n",
    ),
    ("a base chain that accepts before another", "table ip a { chain out { type nat hook output priority -110;\nudp dport 53 accept\nudp dport 80 redirect to :81\n}\n}\ntable ip b { chain out { type nat hook output priority -100;\nudp dport 53-80 dnat to 10.9.1.9\n}\n}\n"),
    ("kube-proxy's iptables chains", KUBE_IPTABLES),
    ("kube-proxy's nftables maps", KUBE_NFT),
];

pub const KUBE_IPTABLES: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-DNS - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODEPORTS -p udp -m udp --dport 8080 -j KUBE-SEP-A
-A KUBE-SEP-A -s 10.9.7.5/32 -m comment --comment \"kube-system/dns:dns\" -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p udp -m comment --comment \"kube-system/dns:dns\" -m udp -j DNAT --to-destination 10.9.7.5:53
-A KUBE-SEP-B -s 10.9.7.6/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-B -p udp -m udp -j DNAT --to-destination 10.9.7.6:53
-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.9.7.6:53
-A KUBE-SERVICES -d 10.9.1.1/32 -p udp -m comment --comment \"kube-system/dns:dns cluster IP\" -m udp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SERVICES -d 10.9.1.1/32 -p tcp -m tcp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SERVICES -m comment --comment \"must be last\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-DNS ! -s 10.244.0.0/16 -d 10.9.1.1/32 -p udp -m udp --dport 53 -j KUBE-MARK-MASQ
-A KUBE-SVC-DNS -p udp -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A
-A KUBE-SVC-DNS -j KUBE-SEP-B
COMMIT
";

pub const KUBE_NFT: &str = "\
table ip kube-proxy {
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.9.1.1 . udp . 53 comment \"dns\" : goto service-dns, 10.9.1.1 . tcp . 53 : goto service-dns-tcp } }
    map service-nodeports { type inet_proto . inet_service : verdict; elements = { udp . 8080 : goto service-dns } }
    chain endpoint-a { ip saddr 10.9.7.5 jump mark-for-masquerade
    meta l4proto udp dnat to 10.9.7.5:53
    }
    chain endpoint-b { meta l4proto udp dnat to 10.9.7.6:53
    }
    chain endpoint-tcp { meta l4proto tcp dnat to 10.9.7.6:53
    }
    chain mark-for-masquerade { meta mark set mark or 0x4000
    }
    chain service-dns { ip daddr 10.9.1.1 udp dport 53 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
    numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }
    }
    chain service-dns-tcp { numgen random mod 1 vmap { 0 : goto endpoint-tcp }
    }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
    }
    chain nat-output { type nat hook output priority -100; jump services
    }
}
";

/// UDP flows to several addresses and ports, each from a socket of its own.
struct Flows(Vec<(UdpSocket, SocketAddr)>);

impl Flows {
    fn open() -> Flows {
        let addresses = [UNREACHABLE_ADDR, [10, 9, 1, 2], [10, 9, 5, 5], [10, 9, 0, 1]];
        let targets = addresses.into_iter().flat_map(|address| [53, 80, 5300, 8080].map(|port| (address, port)));
        Flows(targets.map(|target| (UdpSocket::bind("0.0.0.0:0").unwrap(), SocketAddr::from(target))).collect())
    }

    fn send(&self) {
        for (socket, target) in &self.0 {
            // An ICMP error of the packet before may be told here.
            while socket.send_to(b"keepstate", target).is_err() {}
        }
    }
}

/// Loads a ruleset; false, and loudly, where the program for it is not installed.
pub fn load(bed: &NetnsFixture, rules: &str) -> bool {
    if !rules.starts_with('*') {
        bed.nft(rules);
        return true;
    }
    if !run(&["iptables-restore", "--version"]) {
        crate::common::report_skipped("kube-proxy's iptables chains: iptables is not installed");
        return false;
    }
    let file = crate::common::TempFile::new(&format!("{}.rules", bed.name), rules.as_bytes());
    assert!(run(&["ip", "netns", "exec", &bed.name, "iptables-restore", file.path()]));
    true
}

fn conntrack(bed: &NetnsFixture, words: &str) -> String {
    let words: Vec<&str> = ["netns", "exec", &bed.name, "conntrack"].into_iter().chain(words.split(' ')).collect();
    String::from_utf8_lossy(&Command::new("ip").args(words).output().unwrap().stdout).into_owned()
}

/// The number of flows that a finding is about.
fn flows_of(said: &DoctorOutput, name: &str) -> usize {
    let findings = said.document["findings"].as_array().unwrap();
    let Some(finding) = findings.iter().find(|finding| finding["name"] == name) else { return 0 };
    let evidence = finding["evidence"].as_array().unwrap();
    let number = evidence.iter().find(|evidence| evidence["what"] == "such flows");
    number.map_or(1, |number| number["value"].as_str().unwrap().parse().unwrap())
}

#[test]
fn n15_udp_flows_are_stale_exactly_if_the_kernel_would_translate_them() {
    for (name, rules) in RULESETS {
        let Some(bed) = NetnsFixture::create_shared() else { return };
        // Entries are only kept where something asks for NAT.
        bed.nft("table ip first { chain out { type nat hook output priority -150; }; }");
        let flows = bed.enter(|| {
            let flows = Flows::open();
            flows.send();
            flows
        });
        if !load(&bed, rules) {
            continue;
        }
        flows.send();
        let said = bed.run_doctor();
        let stale = flows_of(&said, "udp-stale-translation");
        conntrack(&bed, "-F");
        flows.send();
        let translated = conntrack(&bed, "-L -p udp --dst-nat").lines().count();
        assert!(translated > 0, "{name}");
        assert_eq!(stale, translated, "{name}: {:#}", said.document["findings"]);
        let said = bed.run_doctor();
        assert_eq!(said.finding_names(), Vec::<&str>::new(), "{name}: what the kernel translates itself is not stale");
    }
}

#[test]
fn n15_command_of_the_finding_is_the_cure() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft("table ip nat { chain out { type nat hook output priority -100; }; }");
    let socket = bed.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let send = || {
        let _ = socket.send_to(b"keepstate", SocketAddr::from((UNREACHABLE_ADDR, 5300)));
    };
    send();
    bed.nft("table ip nat { chain out { udp dport 5300 dnat to 10.9.1.2:5300; }; }");
    send();
    let said = bed.run_doctor();
    said.assert_first_finding("udp-stale-translation");
    let flow = said.document["findings"][0]["evidence"][0]["value"].as_str().unwrap();
    assert!(flow.ends_with("not translated and not answered"), "{flow}");
    let cure = said.document["findings"][0]["now"][0]["command"].as_str().unwrap().to_owned();
    assert!(crate::remedy_commands::cure(&bed.name, &cure), "{cure}");
    send();
    assert_eq!(bed.run_doctor().finding_names(), Vec::<&str>::new(), "the command that it gave is the cure");
}

#[test]
fn n15_tcp_in_syn_sent() {
    for rules in [KUBE_IPTABLES, KUBE_NFT] {
        let Some(bed) = NetnsFixture::create_shared() else { return };
        bed.nft("table ip first { chain out { type nat hook output priority -150; }; }");
        let syn = |port: u16| {
            let to = SocketAddrV4::new(Ipv4Addr::from(UNREACHABLE_ADDR), port);
            bed.enter(|| RawTcpSocket::new().send_segment(40_000, to, 1, SYN));
        };
        syn(53);
        syn(80);
        if !load(&bed, rules) {
            continue;
        }
        syn(53);
        syn(80);
        let said = bed.run_doctor();
        said.assert_first_finding("tcp-stale-translation");
        assert_eq!(flows_of(&said, "tcp-stale-translation"), 1);
        let cure = said.document["findings"][0]["now"][0]["command"].as_str().unwrap().to_owned();
        assert!(crate::remedy_commands::cure(&bed.name, &cure), "{cure}");
        syn(53);
        assert_eq!(conntrack(&bed, "-L -p tcp --dst-nat").lines().count(), 1);
        assert_eq!(bed.run_doctor().finding_names(), Vec::<&str>::new());
    }
}
