//! Whole machines, small: trees of files, and what stands after their next boot.
mod other_writers;

use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const MAX: &str = "net.netfilter.nf_conntrack_max";

struct Machine(TempDir);

impl Machine {
    fn bare() -> Machine {
        Machine(tempfile::tempdir().unwrap())
    }

    fn debian_12() -> Machine {
        let machine = Machine::bare();
        machine.link("lib", "usr/lib").file("usr/lib/systemd/systemd", "").file("usr/lib/systemd/systemd-sysctl", "");
        machine
            .file("etc/sysctl.conf", "#net.ipv4.ip_forward=1\n")
            .link("etc/sysctl.d/99-sysctl.conf", "../sysctl.conf");
        machine.file("etc/modules", "# none\n").link("etc/modules-load.d/modules.conf", "../modules");
        machine.kernel("6.1.0-32-amd64", "kernel/fs/ext4.ko\n");
        machine
    }

    fn kernel(&self, version: &str, built_in: &str) -> &Machine {
        self.file(&format!("usr/lib/modules/{version}/modules.builtin"), built_in)
    }

    fn file(&self, path: &str, text: &str) -> &Machine {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn link(&self, path: &str, target: &str) -> &Machine {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    fn root(&self) -> SysRoot {
        SysRoot::at(self.0.path())
    }

    fn boot(&self) -> BootConfig {
        BootConfig::read(&self.root()).unwrap()
    }

    /// The value, the winner and the effect of the limit.
    fn max(&self) -> (String, String, SysctlEffect) {
        let boot = self.boot();
        let max = boot.effective(MAX).unwrap();
        (max.value.clone(), max.source.to_string(), max.effect.clone())
    }
}

fn always(value: &str, winner: &str) -> (String, String, SysctlEffect) {
    (value.to_owned(), winner.to_owned(), SysctlEffect::Always)
}

fn max(value: u64) -> String {
    format!("{MAX} = {value}\n")
}

#[test]
fn debian_reads_sysctl_conf_and_etc_modules_through_symlinks() {
    let machine = Machine::debian_12();
    machine.file("etc/sysctl.conf", "# a comment\n\nnet.netfilter.nf_conntrack_max=5\n");
    assert!(matches!(machine.max().2, SysctlEffect::Never(why) if why.contains("before the module")));
    machine.file("etc/modules", "loop\nnf_conntrack\n");
    assert_eq!(machine.max(), always("5", "/etc/sysctl.d/99-sysctl.conf:3"));
    assert_eq!(machine.boot().module, ModuleLoad::AtBoot(FileLine::new("/etc/modules-load.d/modules.conf", 2)));
    assert_eq!((machine.boot().loader, machine.boot().notes), (SysctlLoader::SystemdSysctl, vec![]));
}

#[test]
fn systemd_sysctl_is_chosen_where_procps_is_installed_too() {
    let machine = Machine::debian_12();
    machine
        .file("etc/init.d/procps", "")
        .file("etc/sysctl.d/10-network-security.conf", "net.ipv4.conf.all.rp_filter=2\n");
    machine
        .file("etc/ufw/sysctl.conf", "net/netfilter/nf_conntrack_tcp_loose=0\n")
        .file("etc/modules", "nf_conntrack\n");
    machine.file("etc/sysctl.d/99-zz.conf", &max(3)).file("etc/sysctl.conf", &max(2));
    assert_eq!(machine.max(), always("3", "/etc/sysctl.d/99-zz.conf:1"), "sysctl.conf is not the last here");
    let writers = machine.boot().other_writers;
    assert_eq!(writers.iter().map(|writer| writer.name.as_str()).collect::<Vec<_>>(), ["ufw"]);
}

#[test]
fn red_hat_99_sysctl_link_and_compressed_modules() {
    let machine = Machine::bare();
    machine
        .file("usr/lib/systemd/systemd", "")
        .link("lib", "usr/lib")
        .link("etc/sysctl.d/99-sysctl.conf", "../sysctl.conf");
    machine.file("usr/lib/sysctl.d/50-redhat.conf", "net.ipv4.conf.*.rp_filter = 1\n").file("etc/sysctl.conf", &max(6));
    let version = "5.14.0-570.el9.x86_64";
    machine
        .kernel(version, "kernel/net/core/failover.ko.xz\n")
        .file("proc/sys/kernel/osrelease", &format!("{version}\n"));
    machine.file("etc/modules", "nf_conntrack\n");
    assert_eq!(machine.boot().module, ModuleLoad::OnFirstUse, "nobody reads /etc/modules here");
    let needs = "kernel/net/netfilter/xt_conntrack.ko.xz: kernel/net/netfilter/nf_conntrack.ko.xz\n";
    machine.file(&format!("usr/lib/modules/{version}/modules.dep"), needs);
    machine.file("etc/modules-load.d/firewall.conf", "; early\nxt_conntrack\n");
    assert_eq!(machine.max(), always("6", "/etc/sysctl.d/99-sysctl.conf:1"));
    machine.kernel(version, "kernel/net/netfilter/nf_conntrack.ko.xz\n");
    assert_eq!(machine.boot().module, ModuleLoad::BuiltIn);
}

#[test]
fn without_the_link_sysctl_conf_is_not_read() {
    let machine = Machine::bare();
    machine.file("usr/lib/systemd/systemd", "").file("etc/sysctl.conf", &max(5));
    let boot = machine.boot();
    assert_eq!(boot.effective(MAX), None);
    assert!(boot.notes.iter().any(|note| note.starts_with("/etc/sysctl.conf:1 is not read")), "{:?}", boot.notes);
    let machine = Machine::bare();
    machine.file("etc/init.d/procps", "").file("etc/sysctl.conf", &max(5)).file("etc/sysctl.d/zz.conf", &max(6));
    machine.file("etc/modules", "nf_conntrack");
    assert_eq!(machine.max(), always("5", "/etc/sysctl.conf:1"), "sysctl --system reads it last");
}

#[test]
fn built_in_conntrack_is_present_before_sysctl_d() {
    let machine = Machine::bare();
    machine.file("usr/lib/systemd/systemd", "").file("etc/sysctl.d/a.conf", &max(5));
    machine.kernel("6.18.0", "kernel/net/netfilter/nf_conntrack.ko\n").link("lib", "usr/lib");
    machine.file("etc/modprobe.d/c.conf", "options nf_conntrack hashsize=1024\n");
    let boot = machine.boot();
    assert_eq!((boot.module, machine.max()), (ModuleLoad::BuiltIn, always("5", "/etc/sysctl.d/a.conf:1")));
    assert_eq!(boot.hashsize, None);
    assert!(
        boot.notes.iter().any(|note| note.starts_with("/etc/modprobe.d/c.conf:1 has no effect")),
        "{:?}",
        boot.notes
    );
    machine.file("proc/cmdline", "quiet nf_conntrack.hashsize=2048\n");
    let hashsize = machine.boot().hashsize.unwrap();
    assert_eq!((hashsize.buckets, hashsize.max, hashsize.location.file.as_str()), (2048, 16_384, "/proc/cmdline"));
}

#[test]
fn without_modules_directory_sys_module_decides() {
    let machine = Machine::bare();
    machine.file("sys/module/nf_conntrack/parameters/hashsize", "1");
    assert_eq!(machine.boot().module, ModuleLoad::BuiltIn);
    machine.file("sys/module/nf_conntrack/initstate", "live");
    assert_eq!(machine.boot().module, ModuleLoad::OnFirstUse);
    let machine = Machine::debian_12();
    machine
        .kernel("6.18.0", "kernel/net/netfilter/nf_conntrack.ko\n")
        .file("proc/sys/kernel/osrelease", "6.1.0-32-amd64\n");
    assert_eq!(machine.boot().module, ModuleLoad::OnFirstUse, "the other kernel has it built in");
}

#[test]
fn a_module_depending_on_nf_conntrack_loads_it() {
    let machine = Machine::debian_12();
    machine.file("usr/lib/modules-load.d/nat.conf", "nft-masq\n").file("etc/sysctl.d/a.conf", &max(5));
    assert_eq!(machine.boot().module, ModuleLoad::OnFirstUse);
    let needs = "kernel/net/netfilter/nft_masq.ko.xz: kernel/net/netfilter/nf_nat.ko.xz kernel/net/netfilter/nf_conntrack.ko.xz";
    machine.file("usr/lib/modules/6.1.0-32-amd64/modules.dep", needs);
    assert_eq!(machine.max(), always("5", "/etc/sysctl.d/a.conf:1"));
    machine.link("etc/modules-load.d/nat.conf", "/dev/null");
    assert_eq!(machine.boot().module, ModuleLoad::OnFirstUse, "masked");
    machine.file("etc/modprobe.d/h.conf", "options nf-conntrack expect_hashsize=1 hashsize=4096\n");
    assert_eq!(machine.boot().hashsize.unwrap().max, 32_768);
}

#[test]
fn drop_in_precedence_by_name_and_masking() {
    let machine = Machine::debian_12();
    machine.file("etc/modules", "nf_conntrack").file("usr/lib/sysctl.d/50.conf", &max(1));
    machine.file("run/sysctl.d/40.conf", &max(2)).file("usr/local/lib/sysctl.d/60.conf", &max(3));
    let boot = machine.boot();
    let losers =
        boot.effective(MAX).unwrap().overridden.iter().map(|loser| format!("{} {}", loser.location, loser.value));
    assert_eq!(losers.collect::<Vec<_>>(), ["/run/sysctl.d/40.conf:1 2", "/usr/lib/sysctl.d/50.conf:1 1"]);
    assert_eq!(machine.max(), always("3", "/usr/local/lib/sysctl.d/60.conf:1"), "by name, not by directory");
    machine.file("run/sysctl.d/60.conf", "");
    assert_eq!(machine.max(), always("1", "/usr/lib/sysctl.d/50.conf:1"), "an empty file masks");
    machine.link("etc/sysctl.d/50.conf", "/dev/null");
    assert_eq!(machine.max(), always("2", "/run/sysctl.d/40.conf:1"), "so does a link to /dev/null");
    machine.file("etc/sysctl.d/40.conf", &max(4)).file("etc/sysctl.d/99.txt", &max(9));
    assert_eq!(machine.max(), always("4", "/etc/sysctl.d/40.conf:1"));
    let notes = machine.boot().notes;
    assert!(notes.iter().any(|note| note.starts_with("/run/sysctl.d/40.conf is not read: /etc")), "{notes:?}");
    assert_eq!(notes.iter().filter(|note| note.contains("50.conf")).count(), 1, "/lib is /usr/lib: {notes:?}");
}

#[test]
fn symlinks_are_resolved_below_the_root() {
    let machine = Machine::bare();
    machine.file("usr/lib/systemd/systemd", "").file("etc/modules-load.d/c.conf", "nf_conntrack");
    machine.file("opt/ours.conf", &max(7)).link("etc/sysctl.d/ours.conf", "/opt/ours.conf");
    machine.link("etc/sysctl.d/lost.conf", "/nowhere").link("etc/sysctl.d/loop.conf", "loop.conf");
    assert_eq!(machine.max(), always("7", "/etc/sysctl.d/ours.conf:1"));
}

#[test]
fn net_nf_conntrack_max_is_an_alias() {
    let machine = Machine::debian_12();
    machine.file("etc/modules", "nf_conntrack").file("etc/sysctl.d/10.conf", &max(1));
    machine.file("etc/sysctl.d/20.conf", "net/nf_conntrack_max = 2\n");
    assert_eq!(machine.max(), always("2", "/etc/sysctl.d/20.conf:1"));
    assert_eq!(machine.boot().effective("net.nf_conntrack_max"), machine.boot().effective(MAX));
}

#[test]
fn explicit_keys_override_globs() {
    let machine = Machine::debian_12();
    machine.file("etc/modules", "nf_conntrack");
    let text = "net.netfilter.nf_conntrack_tcp_timeout_fin_wait = 7\nnet.netfilter.nf_conntrack_tcp_timeout_* = 9\n\
                -net.netfilter.nf_conntrack_tcp_timeout_close\n";
    machine.file("etc/sysctl.d/a.conf", text);
    let boot = machine.boot();
    let value = |key: &str| {
        boot.effective(&format!("net.netfilter.nf_conntrack_tcp_timeout_{key}")).map(|one| one.value.clone())
    };
    assert_eq!(value("fin_wait").as_deref(), Some("7"));
    assert_eq!(value("time_wait").as_deref(), Some("9"));
    assert_eq!((value("close"), boot.effective(MAX)), (None, None));
}

#[test]
fn values_rejected_by_the_kernel_have_no_effect() {
    let machine = Machine::debian_12();
    machine.file("etc/modules", "nf_conntrack").file("etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = many\n");
    assert!(matches!(machine.max().2, SysctlEffect::Never(why) if why.contains("many")));
    machine.file("etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 0x10\n");
    assert_eq!((machine.max().2, machine.boot().effective(MAX).unwrap().number()), (SysctlEffect::Always, Some(16)));
    machine.file("etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max = 17 # words after the first are not read\n");
    assert_eq!((machine.max().2, machine.boot().effective(MAX).unwrap().number()), (SysctlEffect::Always, Some(17)));
    machine.file("etc/sysctl.d/a.conf", "net.netfilter.nf_conntrack_max =\n");
    assert!(matches!(machine.max().2, SysctlEffect::Never(why) if why.contains("empty")));
}

fn rule(command: &str) -> String {
    format!("ACTION==\"add\", SUBSYSTEM==\"module\", \\\n KERNEL==\"nf_conntrack\", RUN+=\"{command}\"\n")
}

#[test]
fn udev_rule_runs_sysctl_when_the_module_loads() {
    let machine = Machine::debian_12();
    machine.file("etc/sysctl.d/10.conf", &max(1)).file("etc/sysctl.d/20.conf", "net.nf_conntrack_max = 2\n");
    let path = "etc/udev/rules.d/91-conntrack.rules";
    machine.file(path, &rule("/lib/systemd/systemd-sysctl --prefix=/net/netfilter"));
    let expected = ("1".to_owned(), "/etc/sysctl.d/10.conf:1".to_owned(), SysctlEffect::OnlyIfModuleLoaded);
    assert_eq!(machine.max(), expected, "the prefix does not reach the other name");
    assert_eq!(machine.boot().udev_rules.len(), 1);
    machine.file(path, &rule("/usr/lib/systemd/systemd-sysctl --prefix=/net/ipv4"));
    assert!(matches!(machine.max().2, SysctlEffect::Never(_)), "a prefix beside it");
    machine.file(path, &rule("/usr/lib/systemd/systemd-sysctl --prefix=net.nf"));
    assert!(matches!(machine.max().2, SysctlEffect::Never(_)), "a prefix ends where a name ends");
    machine.file(path, &rule("/usr/lib/systemd/systemd-sysctl --prefix=/proc/sys/net/netfilter"));
    assert!(matches!(machine.max().2, SysctlEffect::Never(_)), "systemd-sysctl 252 takes no such prefix");
    assert!(machine.boot().notes.iter().any(|note| note.contains("matches no key")));
    machine.file(path, &rule("/bin/sh -c 'sysctl -w net.netfilter.nf_conntrack_max=8'"));
    let (value, winner, _) = machine.max();
    assert_eq!((value.as_str(), winner.as_str()), ("8", "/etc/udev/rules.d/91-conntrack.rules:1"));
    machine.file(path, &rule("/sbin/missing/systemd-sysctl"));
    assert!(matches!(machine.max().2, SysctlEffect::Never(_)));
    assert!(
        machine.boot().notes.iter().any(|note| note.contains("/sbin/missing/systemd-sysctl does not exist")),
        "{:?}",
        machine.boot().notes
    );
}

#[test]
fn udev_rules_for_other_events_are_ignored() {
    let run = "RUN+=\"/usr/lib/systemd/systemd-sysctl\"";
    let condition = |text: &str| format!("{text}, {run}\n");
    let machine = Machine::debian_12();
    machine.file("etc/sysctl.d/10.conf", &max(1));
    for (text, counts) in [
        ("ACTION==\"add|change\", SUBSYSTEM==\"module\", KERNEL==\"nf_*\"", 1),
        ("ACTION!=\"remove\", DEVPATH==\"/module/nf_conntrack\"", 1),
        ("ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"br_netfilter\"", 0),
        ("ACTION==\"add\", SUBSYSTEM==\"net\"", 0),
        ("ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", ENV{X}==\"1\"", 0),
    ] {
        machine.file("etc/udev/rules.d/a.rules", &condition(text));
        assert_eq!(machine.boot().udev_rules.len(), counts, "{text}");
    }
    assert!(machine.boot().notes.iter().any(|note| note.contains("ENV{X}")), "{:?}", machine.boot().notes);
}

#[test]
fn a_container_without_systemd_reads_nothing() {
    let machine = Machine::debian_12();
    machine.file("proc/1/comm", "bash\n").file("etc/modules", "nf_conntrack").file("etc/sysctl.d/a.conf", &max(1));
    assert!(matches!(machine.max().2, SysctlEffect::Never(why) if why.contains("bash")));
    let machine = Machine::debian_12();
    machine.link("etc/systemd/system/systemd-sysctl.service", "/dev/null").file("etc/modules", "nf_conntrack");
    machine.file("etc/sysctl.d/a.conf", &max(1));
    assert!(matches!(machine.max().2, SysctlEffect::Never(why) if why.contains("masked")));
}

#[test]
fn planned_files_are_overlaid_without_writing() {
    let machine = Machine::debian_12();
    machine.file("etc/sysctl.conf", &max(1));
    let plan =
        |files: &[(&str, String)]| files.iter().map(|(path, text)| (PathBuf::from(path), text.clone())).collect();
    let files: BTreeMap<PathBuf, String> = plan(&[
        ("/etc/sysctl.d/90-conntrack.conf", max(9)),
        ("/etc/modules-load.d/conntrack.conf", "nf_conntrack".into()),
    ]);
    let boot = BootConfig::read_with_overlay(&machine.root(), &files).unwrap();
    assert_eq!(boot.effective(MAX).map(|one| one.value.as_str()), Some("1"), "99-sysctl.conf is later by name");
    assert_eq!(boot.module, ModuleLoad::AtBoot(FileLine::new("/etc/modules-load.d/conntrack.conf", 1)));
    let replaced = plan(&[("/etc/sysctl.d/99-sysctl.conf", max(9))]);
    let boot = BootConfig::read_with_overlay(&machine.root(), &replaced).unwrap();
    assert_eq!(boot.effective(MAX).map(|one| one.value.as_str()), Some("9"), "the link is replaced, not followed");
    let through = plan(&[("/etc/sysctl.conf", max(8))]);
    let boot = BootConfig::read_with_overlay(&machine.root(), &through).unwrap();
    assert_eq!(boot.effective(MAX).map(|one| one.value.as_str()), Some("8"), "the link leads to the new file");
    assert_eq!(machine.boot().effective(MAX).map(|one| one.value.as_str()), Some("1"), "nothing was written");
}

#[test]
fn one_file_that_cannot_be_read_is_a_note() {
    let machine = Machine::debian_12();
    // A directory cannot be read as a file, not even by root.
    machine
        .file("etc/modules", "nf_conntrack")
        .file("etc/sysctl.d/50.conf/deep", "")
        .file("etc/sysctl.d/40.conf", &max(1));
    assert_eq!(machine.max(), always("1", "/etc/sysctl.d/40.conf:1"));
    let notes = machine.boot().notes;
    assert!(notes.iter().any(|note| note.starts_with("/etc/sysctl.d/50.conf cannot be read")), "{notes:?}");
}

#[test]
fn reads_the_running_machine() {
    let boot = BootConfig::read(&SysRoot::live()).unwrap();
    assert!(boot.sysctls.keys().all(|key| key.starts_with("net.netfilter.nf_conntrack_")), "{boot:?}");
    println!("{boot:#?}");
}

#[test]
fn a_missing_root_is_an_error() {
    assert!(BootConfig::read(&SysRoot::at("/nowhere/at/all")).unwrap_err().is_not_found());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Files laid over an empty tree and files written, in whatever order, give the same boot.
    #[test]
    fn overlay_and_written_files_give_the_same_result(
        files in proptest::collection::btree_map((0_usize..4, "[a-c]"), 0_u64..4, 0..8),
        turn in 0_usize..8,
    ) {
        let bases = ["etc", "run", "usr/local/lib", "usr/lib"];
        let named = files.iter().map(|((base, name), value)| (format!("{}/sysctl.d/{name}.conf", bases[*base]), max(*value)));
        let mut named = named.collect::<Vec<_>>();
        let over = named.iter().map(|(path, text)| (PathBuf::from(format!("/{path}")), text.clone())).collect();
        let planned = BootConfig::read_with_overlay(&Machine::debian_12().root(), &over).unwrap();
        let turn = turn.min(named.len());
        named.rotate_left(turn);
        let written = Machine::debian_12();
        named.iter().for_each(|(path, text)| { written.file(path, text); });
        prop_assert_eq!(&written.boot(), &planned);
        // The winner by a model: the strongest directory for each name, then the last different value by name.
        let mut model = BTreeMap::new();
        for ((_, name), value) in files.iter().rev() {
            model.insert(name, value.to_string());
        }
        prop_assert_eq!(planned.effective(MAX).map(|one| &one.value), model.values().last());
    }
}
