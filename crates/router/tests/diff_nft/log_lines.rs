//! The log lines of rules, byte for byte: the same packets through the same `log` statements here and in the kernel.
use crate::kernel::{Kernel, tap};
use crate::kernel_log::{KernelLog, LogsOfAllNamespaces};
use crate::rule_counters::{Arrival, address, in_own_thread};
use crate::selectors::from_lan;
use crate::traffic::{SYN, TrafficRng, ip_packet, tcp};
use crate::{hex, log_packets, now, router_of};
use keepstate_router::{FibTable, Interface, Route};
use std::io::Write;

/// Every set of flags, levels, marks, at each hook that a packet passes.
fn ruleset(run: &str) -> String {
    let chain = |hook: &str, priority: &str, rules: &str| {
        // What Linux sends itself.
        let own = "ip6 saddr fe80::/10 accept; ip6 daddr ff00::/8 accept;";
        format!("chain {hook} {{ type filter hook {hook} priority {priority}; {own}\n{rules}\n}}\n")
    };
    let prerouting = format!(
        "ip id < 0x8000 meta mark set 0x12
        ip6 hoplimit < 100 meta mark set 0xffff0001
        log prefix \"{run}a \"
        log prefix \"{run}b:\" level info flags all
        log prefix \"{run}c\" level debug flags tcp sequence,options
        log prefix \"{run}d \" level notice flags ip options
        log prefix \"{run}e \" flags skuid flags ether
        log prefix \"{run}f \" flags tcp options
        log prefix \"{run}g \" flags tcp sequence"
    );
    let rest = format!("log prefix \"{run}h \"\nlog prefix \"{run}i \" flags all");
    let reject = "tcp dport 9 reject with tcp reset";
    let chains = [
        chain("prerouting", "raw", &prerouting),
        chain("forward", "0", &format!("{rest}\n{reject}")),
        chain("postrouting", "0", &rest),
        chain("input", "0", &rest),
        chain("output", "0", &format!("meta nfproto ipv4 {}", rest.replace('\n', "\nmeta nfproto ipv4 "))),
    ];
    format!("table inet t {{\n{}}}\n", chains.concat())
}

fn compare_log_lines(seed: u64, packets: usize) -> bool {
    let Some(logs) = LogsOfAllNamespaces::enable() else { return false };
    let run = format!("ks{}-", std::process::id());
    let Some(mut log) = KernelLog::open(&run) else { return false };
    let done = std::thread::spawn(move || {
        let rules = ruleset(&run);
        let Some(mut kernel) = Kernel::new(&rules) else { return false };
        let mut router = router_of(&rules);
        let mut dice = TrafficRng::new(seed);
        let mut arrivals: Vec<Arrival> = (0..packets)
            .map(|number| Arrival {
                what: format!("random packet {number}"),
                device: 0,
                packet: log_packets::packet(&mut dice),
            })
            .collect();
        arrivals.push(from_lan("a SYN that is reset", false, &tcp(4000, 9, 1000, 0, SYN, 0)));
        // The last packets come by an interface with Ethernet headers.
        let mut ethernet = tap("eth9").unwrap();
        kernel.ip("link set eth9 address 02:00:00:00:00:09\nlink set eth9 up\naddr add 10.9.0.1/24 dev eth9");
        let eth9 = Interface { link_type: 1, ..Interface::new(3, "eth9", 1500) };
        let mut interfaces: Vec<_> = (1..=2).filter_map(|index| router.fib().interface(index).cloned()).collect();
        interfaces.push(eth9.with_address([10, 9, 0, 1].into(), 24));
        router.replace_fib(FibTable::new(
            interfaces,
            ["0.0.0.0", "::"].map(|prefix| Route::new(prefix.parse().unwrap(), 0, 2)).to_vec(),
        ));
        let from = address("10.9.0.2");
        for port in [80, 9] {
            let packet = ip_packet(false, from, address("198.51.100.9"), 64, &tcp(4000, port, 1000, 0, SYN, 0));
            arrivals.push(Arrival { what: "a SYN by Ethernet".to_owned(), device: 2, packet });
        }
        const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 9, 0xfe, 0xed, 1, 2, 0xab, 3, 8, 0];
        let mut wrong = Vec::new();
        let mut count = 0;
        for Arrival { what, device, packet } in &arrivals {
            router.set_link_header(None);
            if *device == 2 {
                router.set_link_header(Some(HEADER));
            }
            let result = router.handle(packet, *device as u32 + 1, now());
            while router.poll_output().is_some() {}
            let ours: Vec<_> = std::iter::from_fn(|| router.poll_log())
                .filter(|line| line.is_rule)
                .map(|line| (line.level, line.text))
                .collect();
            match device {
                2 => ethernet.write_all(&[&HEADER[..], packet].concat()).unwrap(),
                _ => drop(kernel.handle(packet, *device, 0)),
            }
            let theirs = log.read(ours.len());
            count += theirs.len();
            if ours != theirs {
                let show = |lines: &[(u8, String)], others: &[(u8, String)]| -> Vec<String> {
                    lines
                        .iter()
                        .filter(|line| !others.contains(line))
                        .take(3)
                        .map(|(level, text)| format!("<{level}>{text}|"))
                        .collect()
                };
                wrong.push(format!(
                    "{what} {} ({result:?}):\n  Linux {:#?}\n  ours  {:#?}",
                    hex(packet),
                    show(&theirs, &ours),
                    show(&ours, &theirs)
                ));
            }
        }
        assert!(
            wrong.is_empty(),
            "seed {seed}: {} of {} packets differ:\n{}",
            wrong.len(),
            arrivals.len(),
            wrong.iter().take(8).cloned().collect::<Vec<_>>().join("\n")
        );
        assert!(count > packets * 7, "only {count} lines");
        true
    });
    let done = done.join();
    drop(logs);
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn log_lines_are_those_of_linux() {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seed, packets) = (number("KEEPSTATE_SEED", 1), number("KEEPSTATE_PACKETS", 1500));
    in_own_thread(move || compare_log_lines(seed, packets as usize));
}
