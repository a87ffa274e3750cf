//! Rules judged one by one, on what a test writes down. What is judged here is ranking and hiding, and what each rule keeps silent
//! about; that the right one speaks first on a real machine is shown by the program's own tests.
use super::*;

fn namespace(count: u64, max: u64) -> ObservedNamespace {
    let mut space = ObservedNamespace {
        name: "this".into(),
        is_ours: true,
        is_initial: Some(true),
        ..ObservedNamespace::default()
    };
    space.count = Some(Sourced::at("count", count));
    space.sysctls.insert(
        "nf_conntrack_max".into(),
        ObservedSysctl { value: max, source: "max".into(), ..ObservedSysctl::default() },
    );
    space.counters = Some(Sourced::at("stat", ObservedCounters::default()));
    space.growth = Some(CounterGrowth { over_ms: 1000, ..CounterGrowth::default() });
    space
}

fn machine(spaces: Vec<ObservedNamespace>) -> Observations {
    Observations { namespaces: spaces, ..Observations::default() }
}

fn finding_names(seen: &Observations) -> Vec<&'static str> {
    diagnose(seen).findings.iter().map(|finding| finding.name).collect()
}

#[test]
fn names_are_kebab_case_unique_and_explained_ones_exist() {
    let all: Vec<&DoctorRule> = RULES.iter().copied().flatten().collect();
    for rule in &all {
        assert!(rule.name.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'-'), "{}", rule.name);
        assert_eq!(all.iter().filter(|other| other.name == rule.name).count(), 1, "{}", rule.name);
        for explained in rule.explains {
            let other = all.iter().find(|other| other.name == *explained).unwrap_or_else(|| panic!("{explained}"));
            assert!(!other.explains.contains(&rule.name), "{} and {explained} hide each other", rule.name);
        }
    }
    let documented = include_str!("../../../../docs/findings.md");
    for rule in &all {
        assert!(documented.contains(&format!("`{}`", rule.name)), "docs/findings.md has no {}", rule.name);
    }
    let mut numbers: Vec<u8> = all.iter().map(|rule| rule.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=38).collect::<Vec<u8>>(), "each failure of the catalogue has a rule");
}

#[test]
fn healthy_is_ok_and_no_input_is_unknown() {
    let healthy = machine(vec![namespace(1000, 262_144)]);
    assert_eq!((diagnose(&healthy).status, finding_names(&healthy)), (HealthStatus::Ok, vec![]));
    let blind = machine(vec![ObservedNamespace::default()]);
    assert_eq!(diagnose(&blind).status, HealthStatus::Unknown);
    let mut without = machine(vec![]);
    without.machine.module = Some(Sourced::at("modules", ObservedModule::default()));
    assert_eq!(diagnose(&without).status, HealthStatus::Ok);
}

#[test]
fn full_table_hides_its_consequences() {
    let mut full = namespace(65_536, 65_536);
    full.growth =
        Some(CounterGrowth { over_ms: 1000, by: ObservedCounters { drop: 40, ..ObservedCounters::default() } });
    full.counters = Some(Sourced::at("stat", ObservedCounters { drop: 4000, ..ObservedCounters::default() }));
    let mut seen = machine(vec![full]);
    let initial = TableFullLines { lines: 3, age: Some(5), latest: "nf_conntrack: table full, dropping packet".into() };
    seen.log = Some(Sourced::at("/dev/kmsg", ObservedLog { initial, ..ObservedLog::default() }));
    let found = diagnose(&seen);
    assert_eq!((found.status, found.findings[0].name), (HealthStatus::Critical, "table-full-assured"));
    assert_eq!((finding_names(&seen).len(), found.findings[0].explains.clone()), (1, vec!["table-was-full"]));
    assert!(found.findings[0].now[0].command.as_ref().unwrap().contains("nf_conntrack_max=131072"));
}

#[test]
fn log_lines_denied_by_counters_are_ignored() {
    let mut young = namespace(10, 262_144);
    (young.is_initial, young.inode) = (Some(false), Some(7));
    let mut seen = machine(vec![young]);
    let inside = [(7, TableFullLines { lines: 9, age: Some(1), latest: "table full in netns 7".into() })].into();
    seen.log = Some(Sourced::at("/dev/kmsg", ObservedLog { by_inode: inside, ..ObservedLog::default() }));
    assert_eq!(finding_names(&seen), Vec::<&str>::new(), "its own counters say that it never dropped a packet");
    seen.namespaces[0].counters =
        Some(Sourced::at("stat", ObservedCounters { drop: 3, ..ObservedCounters::default() }));
    assert_eq!(finding_names(&seen), ["table-was-full"]);
}

#[test]
fn full_table_in_another_namespace_is_reported() {
    let mut pod = namespace(1000, 1000);
    (pod.name, pod.is_initial, pod.inode, pod.is_ours) = ("pod".into(), Some(false), Some(9), false);
    let seen = machine(vec![namespace(10, 1000), pod]);
    let found = diagnose(&seen);
    assert_eq!((found.findings[0].name, found.findings.len()), ("full-in-namespace", 1));
    assert_eq!(found.findings[0].namespace.as_deref(), Some("pod"));
    assert!(matches!(found.findings[0].now[0].at, StepLocation::Here), "the limit is set in the initial namespace");
}

#[test]
fn zero_and_exceeded_limits_are_reported() {
    assert_eq!(finding_names(&machine(vec![namespace(10, 0)])), ["no-limit"]);
    assert_eq!(finding_names(&machine(vec![namespace(500, 300)])), ["count-above-max"]);
    assert_eq!(finding_names(&machine(vec![namespace(302, 300)])), ["table-full-assured"]);
}

#[test]
fn boot_findings_follow_writers_and_permissions() {
    let mut seen = machine(vec![namespace(10, 262_144)]);
    let lost = Some("read too early".to_owned());
    seen.configured_sysctls = vec![ConfiguredSysctl {
        sysctl: "nf_conntrack_max".into(),
        value: 1_048_576,
        source: "/etc/sysctl.d/90.conf:1".into(),
        ineffective_reason: lost,
    }];
    assert_eq!(finding_names(&seen), ["lost-at-boot"]);
    let writer =
        |knob: &str| SysctlWriter { name: "kube-proxy".into(), sysctl: Some(knob.into()), ..SysctlWriter::default() };
    seen.sysctl_writers = vec![writer("nf_conntrack_tcp_timeout_established")];
    assert_eq!(finding_names(&seen), ["lost-at-boot"], "it writes something else");
    seen.sysctl_writers = vec![writer("nf_conntrack_max")];
    assert_eq!(finding_names(&seen), ["value-reverts"]);
    seen.sysctl_writers.clear();
    seen.namespaces[0].sysctls.get_mut("nf_conntrack_max").unwrap().is_writable = Some(false);
    assert_eq!(finding_names(&seen), ["knob-read-only-here"]);
    seen.namespaces[0].sysctls.get_mut("nf_conntrack_max").unwrap().value = 1_048_576;
    assert_eq!(finding_names(&seen), ["lost-at-boot"]);
    seen.configured_sysctls[0].ineffective_reason = None;
    assert_eq!(finding_names(&seen), Vec::<&str>::new());
}

/// A table of `tcp` SYN_SENT entries and `udp` unanswered ones, each with a port of its own.
fn unanswered(tcp: u16, udp: u16) -> ObservedSample {
    let flow = |protocol: u8, port: u16| {
        let tuple = |source: [u8; 4], destination: [u8; 4], source_port, destination_port| ObservedTuple {
            source: source.into(),
            destination: destination.into(),
            source_port,
            destination_port,
        };
        ObservedFlow {
            protocol,
            timeout: Some(20),
            state: (protocol == 6).then(|| "SYN_SENT".into()),
            original: tuple([10, 0, 0, 1], [10, 0, 0, 2], 40_000, port),
            reply: tuple([10, 0, 0, 2], [10, 0, 0, 1], port, 40_000),
            is_unreplied: true,
            is_assured: false,
            helper: None,
        }
    };
    let flows = (0..tcp).map(|port| flow(6, port)).chain((0..udp).map(|port| flow(17, port))).collect();
    // Only a part of the table, which may be larger.
    ObservedSample { flows, is_complete: false }
}

fn commands(finding: &Finding) -> String {
    let steps = finding.now.iter().chain(&finding.for_good);
    steps.filter_map(|step| step.command.as_deref()).collect::<Vec<_>>().join("\n")
}

#[test]
fn remedies_of_a_flood_are_about_what_the_table_holds() {
    let mut full = namespace(1000, 1000);
    full.sample = Some(Sourced::at("nf_conntrack", unanswered(0, 300)));
    let found = diagnose(&machine(vec![full.clone()]));
    let first = &found.findings[0];
    assert_eq!(
        (first.name, first.title),
        ("table-full-half-open", "the table is full of UDP flows that nobody answers")
    );
    let text = commands(first);
    assert!(text.contains("nf_conntrack_udp_timeout=10") && text.contains("meta l4proto udp"), "{text}");
    assert!(
        !text.contains("tcp") && !text.contains("stream") && !text.contains("--ports") && !text.contains("dport"),
        "{text}"
    );

    full.sample = Some(Sourced::at("nf_conntrack", unanswered(300, 0)));
    let found = diagnose(&machine(vec![full.clone()]));
    let text = commands(&found.findings[0]);
    assert!(text.contains("tcp_timeout_syn_sent=30") && !text.contains("dport") && !text.contains("udp"), "{text}");

    let mut sample = unanswered(0, 300);
    for flow in &mut sample.flows {
        flow.original.destination_port = 53;
    }
    full.sample = Some(Sourced::at("nf_conntrack", sample.clone()));
    let text = commands(&diagnose(&machine(vec![full.clone()])).findings[0]);
    assert!(text.contains("udp dport 53") && text.contains("--ports udp/53"), "{text}");

    full.count = Some(Sourced::at("count", 400));
    full.sample = Some(Sourced::at("nf_conntrack", unanswered(0, 300)));
    let found = diagnose(&machine(vec![full.clone()]));
    assert_eq!(found.findings[0].name, "udp-dominates");
    assert!(commands(&found.findings[0]).contains("udp_timeout=10"));
    for flow in &mut sample.flows {
        flow.is_unreplied = false;
    }
    full.sample = Some(Sourced::at("nf_conntrack", sample));
    let text = commands(&diagnose(&machine(vec![full])).findings[0]);
    assert!(text.contains("udp_timeout_stream=60") && text.contains("udp dport 53"), "{text}");
}

/// Neither TCP in its handshake nor UDP: a flood of pings, of another protocol, of segments without a handshake.
#[test]
fn floods_of_other_kinds_have_their_own_remedies() {
    let mut full = namespace(1000, 1000);
    let mut first_of = |change: &dyn Fn(&mut ObservedFlow)| {
        let mut sample = unanswered(0, 300);
        for flow in &mut sample.flows {
            flow.original.destination_port = 0;
            change(flow);
        }
        full.sample = Some(Sourced::at("nf_conntrack", sample));
        diagnose(&machine(vec![full.clone()])).findings.remove(0)
    };
    for (protocol, name, matched, timeout) in [
        (1, "ICMP", "meta l4proto icmp limit", "nf_conntrack_icmp_timeout=5"),
        (58, "ICMPv6", "meta l4proto icmpv6 limit", "nf_conntrack_icmpv6_timeout=5"),
        (47, "GRE", "meta l4proto gre limit", "nf_conntrack_gre_timeout=5"),
        (50, "protocol 50", "meta l4proto 50 limit", "nf_conntrack_generic_timeout=30"),
    ] {
        let finding = first_of(&|flow| flow.protocol = protocol);
        let text = commands(&finding);
        assert_eq!(finding.name, "table-full-half-open");
        assert!(
            text.contains(matched) && text.contains(timeout) && !text.contains("tcp") && !text.contains("udp"),
            "{text}"
        );
        assert!(finding.meaning.contains(&format!("entries are {name} without a reply")), "{}", finding.meaning);
        let evidence: Vec<&str> = finding.evidence.iter().map(|evidence| evidence.value.as_str()).collect();
        assert!(evidence.iter().any(|value| value.contains(&format!("100 % {name}"))), "{evidence:?}");
        assert!(!evidence.iter().any(|value| value.contains("port")), "it has no ports: {evidence:?}");
    }
    let finding = first_of(&|flow| {
        flow.protocol = 6;
        flow.state = Some("ESTABLISHED".into());
    });
    let text = commands(&finding);
    assert!(text.contains("nf_conntrack_tcp_loose=0") && !text.contains("syn") && !text.contains("udp"), "{text}");
}

#[test]
fn old_log_lines_do_not_make_a_table_full() {
    let mut space = namespace(910, 1000);
    space.counters = Some(Sourced::at("stat", ObservedCounters { drop: 40, ..ObservedCounters::default() }));
    let mut seen = machine(vec![space]);
    let initial =
        TableFullLines { lines: 3, age: Some(900), latest: "nf_conntrack: table full, dropping packet".into() };
    seen.log = Some(Sourced::at("/dev/kmsg", ObservedLog { initial, ..ObservedLog::default() }));
    let found = diagnose(&seen);
    assert_eq!((found.status, found.findings[0].name), (HealthStatus::Warning, "table-nearly-full"));
    seen.namespaces[0].growth = None;
    assert_eq!(
        diagnose(&seen).findings[0].name,
        "table-full-assured",
        "nothing was measured: the log is the best there is"
    );
}

#[test]
fn insert_races_are_news_only_while_they_happen() {
    let counters = ObservedCounters { insert_failed: 5000, drop: 5000, ..ObservedCounters::default() };
    let mut space = namespace(1000, 262_144);
    space.counters = Some(Sourced::at("stat", counters));
    space.sample = Some(Sourced::at("nf_conntrack", unanswered(0, 300)));
    assert_eq!(finding_names(&machine(vec![space.clone()])), Vec::<&str>::new(), "none in the interval");
    let by = ObservedCounters { insert_failed: 3, drop: 3, ..ObservedCounters::default() };
    space.growth = Some(CounterGrowth { over_ms: 1000, by });
    assert_eq!(finding_names(&machine(vec![space.clone()])), ["udp-insert-race"]);
    space.sample = Some(Sourced::at("nf_conntrack", unanswered(300, 0)));
    assert_eq!(finding_names(&machine(vec![space.clone()])), Vec::<&str>::new(), "TCP does not race with itself");
    let nat = |is_random| ObservedSnat { rule: "oifname \"wan\" masquerade".into(), ports: None, is_random };
    let rules = |is_random| ObservedRules { source_nat: vec![nat(is_random)], ..ObservedRules::default() };
    space.rules = Some(Sourced::at("nft", rules(false)));
    assert_eq!(finding_names(&machine(vec![space.clone()])), ["snat-port-race"]);
    space.rules = Some(Sourced::at("nft", rules(true)));
    assert_eq!(finding_names(&machine(vec![space])), Vec::<&str>::new());
}

#[test]
fn counters_since_boot_are_no_news() {
    let mut space = namespace(1000, 262_144);
    space.counters = Some(Sourced::at("stat", ObservedCounters { invalid: 90_000, ..ObservedCounters::default() }));
    space.sample = Some(Sourced::at("nf_conntrack", unanswered(300, 0)));
    let mut seen = machine(vec![space]);
    assert_eq!(finding_names(&seen), Vec::<&str>::new(), "half-open connections beside an old counter");
    seen.namespaces[0].growth = None;
    let found = diagnose(&seen);
    assert_eq!((found.findings[0].name, found.findings[0].certainty), ("one-way-flows", Certainty::Possible));

    let mut seen = machine(vec![namespace(1000, 262_144)]);
    let mut limit = NicLimitCounter {
        interface: "ens5".into(),
        counter: "conntrack_allowance_exceeded".into(),
        packets: 8812,
        growth: Some(0),
    };
    seen.nic_limits = Some(Sourced::at("ethtool -S", vec![limit.clone()]));
    assert_eq!(finding_names(&seen), Vec::<&str>::new());
    limit.growth = Some(3);
    seen.nic_limits = Some(Sourced::at("ethtool -S", vec![limit]));
    assert_eq!(finding_names(&seen), ["cloud-limit-exceeded"]);
}

#[test]
fn buckets_of_old_kernels_are_set_by_the_modules_parameter() {
    let mut full = namespace(1000, 1000);
    let knob =
        |is_writable| ObservedSysctl { value: 1024, is_writable: Some(is_writable), ..ObservedSysctl::default() };
    full.sysctls.get_mut("nf_conntrack_max").unwrap().is_writable = Some(true);
    full.sysctls.insert("nf_conntrack_buckets".into(), knob(false));
    let text = commands(&diagnose(&machine(vec![full.clone()])).findings[0]);
    assert!(
        text.starts_with(
            "echo 2048 > /sys/module/nf_conntrack/parameters/hashsize; sysctl -w net.netfilter.nf_conntrack_max=2048"
        ),
        "{text}"
    );
    full.sysctls.insert("nf_conntrack_buckets".into(), knob(true));
    let text = commands(&diagnose(&machine(vec![full])).findings[0]);
    assert!(text.starts_with("sysctl -w net.netfilter.nf_conntrack_buckets=2048 "), "{text}");
}

#[test]
fn count_far_above_the_table() {
    let mut space = namespace(1000, 1000);
    let sample = ObservedSample { is_complete: true, ..unanswered(0, 300) };
    space.sample = Some(Sourced::at("nf_conntrack", sample));
    let found = diagnose(&machine(vec![space.clone()]));
    assert_eq!((found.status, found.findings[0].name), (HealthStatus::Critical, "count-not-listed"));
    space.count = Some(Sourced::at("count", 500));
    assert_eq!(finding_names(&machine(vec![space])), ["udp-dominates"], "entries come and go");
}

#[test]
fn nat_address_that_is_gone() {
    let mut space = namespace(300, 262_144);
    let mut sample = unanswered(0, 30);
    for flow in &mut sample.flows {
        flow.reply.destination = [192, 0, 2, 7].into();
    }
    space.addresses = vec![[10, 0, 0, 1].into()];
    space.sample = Some(Sourced::at("nf_conntrack", sample.clone()));
    let nat = ObservedSnat {
        rule: "-A POSTROUTING -j SNAT --to-source 192.0.2.7:1024-65535".into(),
        ..ObservedSnat::default()
    };
    space.rules =
        Some(Sourced::at("iptables-save", ObservedRules { source_nat: vec![nat], ..ObservedRules::default() }));
    let found = diagnose(&machine(vec![space.clone()]));
    assert_eq!((found.findings[0].name, found.findings[0].certainty), ("snat-address-gone", Certainty::Likely));
    sample.flows[0].is_unreplied = false;
    space.sample = Some(Sourced::at("nf_conntrack", sample.clone()));
    assert_eq!(finding_names(&machine(vec![space.clone()])), Vec::<&str>::new(), "an answer came: it is routed here");
    sample.flows[0].is_unreplied = true;
    space.sample = Some(Sourced::at("nf_conntrack", sample));
    space.addresses.push([192, 0, 2, 7].into());
    assert_eq!(finding_names(&machine(vec![space])), Vec::<&str>::new(), "it is an address of this machine");
}
