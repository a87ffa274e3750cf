//! Failures that no namespace of this machine can have, from files of machines that had them: a healthy machine's, written down here,
//! and what was different.
use crate::netns_fixture::DoctorOutput;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const HEADER: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop \
                      icmp_error  expect_new expect_create expect_delete search_restart\n";

/// The files of a machine.
struct RecordedMachine(TempDir);

impl RecordedMachine {
    /// A healthy one: eight processors, 16 GiB, Linux 6.1, tracking loaded as a module.
    fn healthy() -> RecordedMachine {
        let machine = RecordedMachine(tempfile::tempdir().unwrap());
        machine
            .set_sysctl("max", 262_144)
            .set_sysctl("buckets", 262_144)
            .set_sysctl("count", 12_000)
            .set_sysctl("acct", 0)
            .set_sysctl("events", 2)
            .set_sysctl("tcp_timeout_established", 432_000)
            .with("proc/net/stat/nf_conntrack", &stat_file(0, 0))
            .with(
                "proc/net/sockstat",
                "sockets: used 300\nTCP: inuse 120 orphan 0 tw 40 alloc 130 mem 9\nUDP: inuse 6 mem 2\n",
            )
            .with("proc/meminfo", "MemTotal:       16303636 kB\nMemFree:  9000000 kB\nMemAvailable:   12000000 kB\n")
            .with("proc/uptime", "864000.00 5000000.00\n")
            .with("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n")
            .with("proc/modules", "nf_conntrack 188416 3 nf_nat,xt_conntrack, Live 0x0000000000000000\n")
            .with("etc/modules-load.d/nf_conntrack.conf", "nf_conntrack\n")
            .with("etc/sysctl.d/90-conntrack.conf", "net.netfilter.nf_conntrack_max = 262144\n")
            .with("sos_commands/kernel/dmesg", "[    0.000000] Linux version 6.1.0-28-amd64\n");
        machine
    }

    fn set_sysctl(&self, name: &str, value: u64) -> &RecordedMachine {
        self.with(&format!("proc/sys/net/netfilter/nf_conntrack_{name}"), &format!("{value}\n"))
    }

    fn with(&self, path: &str, text: &str) -> &RecordedMachine {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn without(&self, path: &str) -> &RecordedMachine {
        fs::remove_file(self.0.path().join(path)).unwrap();
        self
    }

    fn run_doctor(&self) -> DoctorOutput {
        doctor_from(self.0.path())
    }
}

fn doctor_from(path: &Path) -> DoctorOutput {
    DoctorOutput::run(&["doctor", "--json", "--from", path.to_str().unwrap()])
}

/// A line for one processor.
fn stat_file(insert_failed: u64, drop: u64) -> String {
    format!(
        "{HEADER}00002ee0  00000310 00000000 00000000 0000002a 00000000 00000000 00000000 00000000 {insert_failed:08x} {drop:08x} 00000000 00000000  00000000 00000000 00000000 00000001\n"
    )
}

#[test]
fn healthy_machine_has_no_findings() {
    let said = RecordedMachine::healthy().run_doctor();
    assert_eq!((said.finding_names(), said.code), (vec![], Some(0)), "{:#}", said.document);
}

#[test]
fn n06_dns_insert_race_five_second_stall() {
    let machine = RecordedMachine::healthy();
    let question = |port: u16| {
        format!(
            "ipv4     2 udp      17 25 src=10.244.1.7 dst=10.96.0.10 sport={port} dport=53 src=10.244.2.3 dst=10.244.1.7 sport=53 dport={port} mark=0 zone=0 use=2\n"
        )
    };
    machine
        .with("proc/net/stat/nf_conntrack", &stat_file(4711, 4711))
        .with("proc/net/nf_conntrack", &(40_000..40_060).map(question).collect::<String>());
    let said = machine.run_doctor();
    said.assert_first_finding("udp-insert-race");
    // Read once: the races may be long ago.
    assert_eq!(said.document["findings"][0]["certainty"], "possible");
    let evidence = said.document["findings"][0]["evidence"].to_string();
    assert!(evidence.contains("read once"), "{evidence}");
}

#[test]
fn n01_table_full_from_an_sos_report() {
    let machine = RecordedMachine::healthy();
    machine
        .set_sysctl("count", 262_144)
        .with("proc/net/stat/nf_conntrack", &stat_file(0, 90_000))
        .with("sos_commands/kernel/dmesg", "[863990.104000] nf_conntrack: nf_conntrack: table full, dropping packet\n");
    let said = machine.run_doctor();
    said.assert_first_finding("table-full-assured");
    assert_eq!(said.code, Some(2));
}

#[test]
fn table_full_days_ago_is_only_history() {
    let machine = RecordedMachine::healthy();
    machine
        .with("proc/net/stat/nf_conntrack", &stat_file(0, 90_000))
        .with("sos_commands/kernel/dmesg", "[  1000.104000] nf_conntrack: nf_conntrack: table full, dropping packet\n");
    assert_eq!(machine.run_doctor().finding_names(), Vec::<&str>::new());
    machine
        .with("sos_commands/kernel/dmesg", "[820000.104000] nf_conntrack: nf_conntrack: table full, dropping packet\n");
    machine.run_doctor().assert_first_finding("table-was-full");
}

#[test]
fn n16_kube_proxy_sets_the_sysctl() {
    let machine = RecordedMachine::healthy();
    machine
        .with("etc/sysctl.d/90-conntrack.conf", "net.netfilter.nf_conntrack_max = 1048576\n")
        .with("proc/77/comm", "kube-proxy\n");
    let said = machine.run_doctor();
    said.assert_first_finding("value-reverts");
    assert!(said.document["findings"][0]["for_good"].to_string().contains("maxPerCore"));
}

#[test]
fn n18_sysctl_lost_at_boot() {
    let machine = RecordedMachine::healthy();
    machine
        .without("etc/modules-load.d/nf_conntrack.conf")
        .with("etc/sysctl.d/90-conntrack.conf", "# ours\nnet.netfilter.nf_conntrack_max = 1048576\n");
    let said = machine.run_doctor();
    said.assert_first_finding("lost-at-boot");
    assert_eq!(said.document["findings"][0]["certainty"], "certain");
    assert_eq!(said.document["findings"][0]["evidence"][0]["source"], "/etc/sysctl.d/90-conntrack.conf:2");
    machine.with(
        "etc/udev/rules.d/91-conntrack.rules",
        "ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", RUN+=\"/usr/lib/systemd/systemd-sysctl --prefix=/net/netfilter\"\n",
    );
    machine.run_doctor().assert_first_finding("value-not-in-force");
}

/// The commands of the first finding.
fn first_commands(said: &DoctorOutput) -> Vec<&str> {
    let finding = &said.document["findings"][0];
    let steps = ["now", "for_good"].into_iter().flat_map(|when| finding[when].as_array().unwrap());
    steps.filter_map(|step| step["command"].as_str()).collect()
}

#[test]
fn n18_lines_without_effect() {
    let max = [
        "sysctl -w net.netfilter.nf_conntrack_max=1000000",
        "keepstate tune apply --persist --set nf_conntrack_max=1000000",
    ];
    let buckets = ["sysctl -w net.netfilter.nf_conntrack_buckets=65536"];
    let cases: [(&str, &str, &[&str]); 6] = [
        ("etc/sysctl.d/91-old.conf", "net.ipv4.ip_conntrack_max = 1000000\n", &max),
        ("etc/sysctl.d/91-old.conf", "net.ipv4.netfilter.ip_conntrack_max=1000000\n", &max),
        ("etc/sysctl.conf", "net.netfilter.nf_conntrack_max = 1000000\n", &max),
        ("etc/sysctl.d/91-max.conf", "net.netfilter.nf_conntrack_max = 1,000,000\n", &max),
        ("etc/modprobe.d/conntrack.conf", "options nf_conntrack hashsize = 65536\n", &buckets),
        ("etc/modprobe.d/conntrack.conf", "options nf_conntrack hashsize= 65536\n", &buckets),
    ];
    for (path, text, commands) in cases {
        let machine = RecordedMachine::healthy();
        machine.with(path, text);
        let said = machine.run_doctor();
        said.assert_first_finding("setting-without-effect");
        assert_eq!(said.document["findings"][0]["evidence"][0]["source"], format!("/{path}:1"));
        assert_eq!(first_commands(&said), commands, "{text}");
    }
    for (path, text) in [
        ("etc/sysctl.conf", "net.netfilter.nf_conntrack_max = 262144\n"),
        ("etc/modprobe.d/conntrack.conf", "options nf_conntrack hashsize=65536\n"),
        ("etc/sysctl.d/91-other.conf", "net.ipv4.ip_forward = yes\n"),
    ] {
        let machine = RecordedMachine::healthy();
        machine.with(path, text);
        assert_eq!(machine.run_doctor().finding_names(), Vec::<&str>::new(), "{text}");
    }
}

#[test]
fn n18_module_not_loaded_yet() {
    let machine = RecordedMachine(tempfile::tempdir().unwrap());
    machine
        .with("proc/modules", "ext4 1 0 - Live 0x0\n")
        .with("etc/sysctl.d/90.conf", "net.nf_conntrack_max = 1048576\n");
    let said = machine.run_doctor();
    said.assert_first_finding("lost-at-boot");
    assert_eq!(
        first_commands(&said)[..2],
        ["modprobe nf_conntrack", "sysctl -w net.netfilter.nf_conntrack_max=1048576"]
    );
}

#[test]
fn n05_established_timeout_below_two_hours() {
    let machine = RecordedMachine::healthy();
    machine.set_sysctl("tcp_timeout_established", 3600);
    machine.run_doctor().assert_first_finding("established-timeout-short");
    machine.set_sysctl("tcp_timeout_established", 7440);
    assert_eq!(machine.run_doctor().finding_names(), Vec::<&str>::new());
}

#[test]
fn n20_extensions_cost_memory() {
    let machine = RecordedMachine::healthy();
    machine
        .set_sysctl("max", 4_194_304)
        .set_sysctl("buckets", 4_194_304)
        .set_sysctl("count", 3_000_000)
        .set_sysctl("acct", 1);
    machine.with("etc/sysctl.d/90-conntrack.conf", "net.netfilter.nf_conntrack_max = 4194304\n");
    machine.run_doctor().assert_first_finding("extensions-cost-memory");
    machine.set_sysctl("acct", 0);
    assert_eq!(machine.run_doctor().finding_names(), Vec::<&str>::new());
}

#[test]
fn n22_container_sees_host_memory() {
    let machine = RecordedMachine::healthy();
    machine
        .set_sysctl("max", 8_388_608)
        .set_sysctl("buckets", 8_388_608)
        .set_sysctl("count", 4_000_000)
        .with("etc/sysctl.d/90-conntrack.conf", "net.netfilter.nf_conntrack_max = 8388608\n")
        .with(
            "proc/slabinfo",
            "slabinfo - version: 2.1\nnf_conntrack 4000000 4000256 256 32 2 : tunables 0 0 0 : slabdata 1 1 0\n",
        )
        .with("proc/meminfo", "MemTotal:        8303636 kB\nMemFree:  100000 kB\nMemAvailable:   210000 kB\n");
    let said = machine.run_doctor();
    said.assert_first_finding("memory-not-charged");
    assert_eq!(said.code, Some(2));
}

#[test]
fn n23_cloud_provider_limit() {
    let machine = RecordedMachine::healthy();
    let counters = |exceeded: u64| {
        format!(
            "NIC statistics:\n     tx_timeout: 0\n     bw_in_allowance_exceeded: 12\n     conntrack_allowance_exceeded: {exceeded}\n     conntrack_allowance_available: 4\n"
        )
    };
    machine.with("sos_commands/networking/ethtool_-S_ens5", &counters(0));
    assert_eq!(machine.run_doctor().finding_names(), Vec::<&str>::new());
    machine.with("sos_commands/networking/ethtool_-S_ens5", &counters(8812));
    machine.run_doctor().assert_first_finding("cloud-limit-exceeded");
}

#[test]
fn n24_statistics_unavailable() {
    let machine = RecordedMachine::healthy();
    machine.without("proc/net/stat/nf_conntrack");
    machine.run_doctor().assert_first_finding("no-statistics");
}

#[test]
fn missing_inputs_give_unknown_verdict() {
    let machine = RecordedMachine::healthy();
    machine.without("proc/sys/net/netfilter/nf_conntrack_count").without("proc/net/stat/nf_conntrack");
    let said = machine.run_doctor();
    assert_eq!(
        (said.finding_names(), said.code, said.document["verdict"].as_str()),
        (vec![], Some(3), Some("unknown"))
    );
    // And where tracking is not loaded there is nothing to see.
    let bare = RecordedMachine(tempfile::tempdir().unwrap());
    bare.with("proc/modules", "ext4 1 0 - Live 0x0\n");
    assert_eq!(bare.run_doctor().code, Some(0));
}
