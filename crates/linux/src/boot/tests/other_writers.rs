//! Who else writes, found by files and processes.
use super::*;

#[test]
fn kube_proxy_max_is_per_core_times_cpus() {
    let machine = Machine::debian_12();
    machine.file("proc/cpuinfo", "processor : 0\n\nprocessor : 1\n").file("proc/77/comm", "kube-proxy\n");
    machine.file("proc/77/cmdline", "/usr/local/bin/kube-proxy\0--conntrack-max-per-core=100000\0");
    let found = |machine: &Machine| {
        let writers = machine.boot().other_writers.into_iter().filter(|writer| writer.key.as_deref() == Some(MAX));
        writers.map(|writer| (writer.name, writer.location.to_string(), writer.value)).collect::<Vec<_>>()
    };
    let expected = |place: &str, value: &str| vec![("kube-proxy".to_owned(), place.to_owned(), Some(value.to_owned()))];
    assert_eq!(found(&machine), expected("/proc/77/cmdline", "200000"));
    machine.file("var/lib/kube-proxy/config.conf", "conntrack:\n  maxPerCore: null\n  min: 400000\n");
    assert_eq!(found(&machine), expected("/var/lib/kube-proxy/config.conf:3", "400000"));
    machine.file("var/lib/kube-proxy/config.conf", "conntrack:\n  maxPerCore: 0\n");
    assert!(found(&machine).is_empty(), "it is told to leave the limit alone");
    let timeouts = machine.boot().other_writers.into_iter().filter_map(|writer| writer.value).collect::<Vec<_>>();
    assert_eq!(timeouts, ["86400", "3600"]);
}

#[test]
fn kube_proxy_in_a_container_and_in_k3s() {
    let max = |machine: &Machine| {
        let max = machine.boot().other_writers.into_iter().find(|writer| writer.key.as_deref() == Some(MAX));
        max.map(|writer| (writer.location.to_string(), writer.value))
    };
    let machine = Machine::debian_12();
    machine.file("proc/cpuinfo", "processor : 0\n").file("proc/9/comm", "kube-proxy\n");
    machine.file("proc/9/cmdline", "/bin/kube-proxy\0--config=/etc/k/c.conf\0");
    assert_eq!(max(&machine), Some(("/proc/9/cmdline".to_owned(), Some("131072".to_owned()))), "its defaults");
    machine.file("proc/9/root/etc/k/c.conf", "conntrack:\n  maxPerCore: 500000\n");
    assert_eq!(max(&machine), Some(("/proc/9/root/etc/k/c.conf:2".to_owned(), Some("500000".to_owned()))));
    let machine = Machine::debian_12();
    machine.file("proc/cpuinfo", "processor : 0\n").file("proc/9/comm", "k3s-server\n");
    machine.file("proc/9/cmdline", "/usr/bin/k3s server\0");
    assert_eq!(max(&machine), Some(("/proc/9/cmdline".to_owned(), Some("131072".to_owned()))));
    let config = "/etc/rancher/k3s/config.yaml";
    machine.file(&config[1..], "kube-proxy-arg:\n  - \"conntrack-max-per-core=200000\"\n");
    assert_eq!(max(&machine), Some((format!("{config}:2"), Some("200000".to_owned()))));
    machine.file(&config[1..], "disable-kube-proxy: true\n");
    assert_eq!(max(&machine), None);
}

#[test]
fn tuned_includes_profiles() {
    let machine = Machine::bare();
    machine.file("usr/lib/systemd/systemd", "").file("etc/tuned/active_profile", "ours\n");
    machine.file("etc/tuned/ours/tuned.conf", "[main]\ninclude=theirs\n[sysctl]\nnet.netfilter.nf_conntrack_max=2\n");
    let theirs =
        "[main]\ninclude=ours\n[sysctl]\nnet.nf_conntrack_max=1\nnet.netfilter.nf_conntrack_acct=1\n[vm]\nx=1\n";
    machine.file("usr/lib/tuned/theirs/tuned.conf", theirs);
    let writers = machine.boot().other_writers;
    let seen = writers.iter().map(|writer| (writer.location.to_string(), writer.value.as_deref())).collect::<Vec<_>>();
    let (theirs, ours) = ("/usr/lib/tuned/theirs/tuned.conf:5".to_owned(), "/etc/tuned/ours/tuned.conf:4".to_owned());
    assert_eq!(seen, [(theirs, Some("1")), (ours, Some("2"))]);
    assert!(writers.iter().all(|writer| writer.description.contains("which win")));
    machine.file("etc/tuned/tuned-main.conf", "reapply_sysctl = 0\n");
    assert!(machine.boot().other_writers.iter().all(|writer| writer.description.contains("wins over")));
}

#[test]
fn cloud_init_and_scripts() {
    let machine = Machine::debian_12();
    let cloud = "#cloud-config\nruncmd:\n  - true\nbootcmd:\n  - [ sysctl, -w, net.netfilter.nf_conntrack_max=3 ]\n";
    machine.file("etc/cloud/cloud.cfg.d/90.cfg", cloud).file("etc/rc.local", "#!/bin/sh\nmodprobe nf_conntrack\n");
    machine.file("etc/cron.d/ours", "* * * * * root echo 4 > /proc/sys/net/netfilter/nf_conntrack_max\n");
    machine.file("etc/crontab", "# nf_conntrack_max\n").file("etc/cron.d/deep/x", "");
    let boot = machine.boot();
    let seen =
        boot.other_writers.iter().map(|writer| (writer.name.as_str(), writer.location.line, writer.value.as_deref()));
    assert_eq!(seen.collect::<Vec<_>>(), [("cloud-init", 5, Some("3")), ("cron", 1, Some("4"))]);
    assert!(boot.other_writers.iter().any(|writer| writer.description.starts_with("bootcmd: runs at every boot")));
    assert_eq!(boot.notes, Vec::<String>::new());
}
