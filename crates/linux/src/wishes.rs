//! What configuration asks for: values of knobs in `sysctl.d`, what loads the module before they are set, what sets them again when it
//! comes; and the programs that set knobs on their own.
//!
//! A file hides those of the same name in directories of lower rank, and of several files that set a knob the last by name wins, as
//! systemd-sysctl has it.
use crate::root::Root;
use std::collections::BTreeMap;

/// A value that a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The last part of the key: `nf_conntrack_max`.
    pub knob: String,
    /// The value.
    pub value: u64,
    /// File and line.
    pub source: String,
}

/// A program that sets knobs on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// What it is called.
    pub name: &'static str,
    /// Where it was seen.
    pub source: String,
    /// Where it is told what to set.
    pub configured_in: &'static str,
}

/// Directories by rank.
const RANKS: [&str; 4] = ["/etc", "/run", "/usr/local/lib", "/usr/lib"];

/// Programs known to set knobs of tracking, by the name of their process, and where they are configured.
const WRITERS: [(&str, &str); 4] = [
    ("kube-proxy", "kube-proxy's configuration (conntrack.maxPerCore, min, tcpEstablishedTimeout)"),
    ("k3s", "k3s's kube-proxy-arg (conntrack-max-per-core, conntrack-min)"),
    ("tuned", "tuned's active profile ([sysctl] in /etc/tuned)"),
    ("cilium-agent", "Cilium's configuration"),
];

/// What the files ask for, one value a knob.
pub fn all(root: &Root) -> Vec<Wish> {
    let mut wishes: BTreeMap<String, Wish> = BTreeMap::new();
    for path in files(root, "sysctl.d", ".conf") {
        let text = root.read(&path).unwrap_or_default();
        for (at, line) in text.lines().enumerate() {
            if let Some((knob, value)) = setting(line) {
                let source = format!("{path}:{}", at + 1);
                wishes.insert(knob.clone(), Wish { knob, value, source });
            }
        }
    }
    wishes.into_values().collect()
}

/// The file that has nf_conntrack loaded early at boot, if any.
pub fn early_loader(root: &Root) -> Option<String> {
    let mut paths = files(root, "modules-load.d", ".conf");
    paths.push("/etc/modules".into());
    paths.into_iter().find(|path| {
        root.read(path).unwrap_or_default().lines().any(|line| line.trim().replace('-', "_") == "nf_conntrack")
    })
}

/// The rule of udev that sets knobs again when the module comes, if any.
pub fn reapplier(root: &Root) -> Option<String> {
    files(root, "udev/rules.d", ".rules").into_iter().find(|path| {
        let text = root.read(path).unwrap_or_default();
        text.lines().any(|line| !line.starts_with('#') && line.contains("nf_conntrack") && line.contains("sysctl"))
    })
}

/// Programs that run here and set knobs on their own.
pub fn writers(root: &Root) -> Vec<Writer> {
    let mut found: Vec<Writer> = Vec::new();
    for process in root.names("/proc").unwrap_or_default() {
        if !process.bytes().all(|octet| octet.is_ascii_digit()) {
            continue;
        }
        let program = root.read(format!("/proc/{process}/comm")).unwrap_or_default();
        let known = WRITERS.into_iter().find(|(name, _)| *name == program.trim());
        if let Some((name, configured_in)) = known
            && !found.iter().any(|writer| writer.name == name)
        {
            found.push(Writer { name, source: format!("process {process}"), configured_in });
        }
    }
    found
}

/// Paths of files in a directory of every rank, sorted by name, without those that one of a higher rank hides.
fn files(root: &Root, directory: &str, ending: &str) -> Vec<String> {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for rank in RANKS {
        for name in root.names(format!("{rank}/{directory}")).unwrap_or_default() {
            if name.ends_with(ending) {
                named.entry(name.clone()).or_insert_with(|| format!("{rank}/{directory}/{name}"));
            }
        }
    }
    named.into_values().collect()
}

/// `net.netfilter.nf_conntrack_max = 1048576`, and the old name of the limit.
fn setting(line: &str) -> Option<(String, u64)> {
    let line = line.trim().trim_start_matches('-');
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let path = crate::sysctl::path(key.trim());
    let knob = path.strip_prefix("/proc/sys/net").ok()?.file_name()?.to_str()?;
    knob.starts_with("nf_conntrack_").then_some(())?;
    Some((knob.to_owned(), value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let there = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = there.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::at(there.path());
        (there, root)
    }

    #[test]
    fn the_last_by_name_wins_and_a_higher_rank_hides() {
        let (_there, root) = tree(&[
            (
                "etc/sysctl.d/50-a.conf",
                "# net.netfilter.nf_conntrack_max=1\n-net.nf_conntrack_max = 2\nvm.swappiness=1\n",
            ),
            ("usr/lib/sysctl.d/50-a.conf", "net.netfilter.nf_conntrack_max=3\nnet.netfilter.nf_conntrack_acct=1\n"),
            ("run/sysctl.d/60-b.conf", "\nnet/netfilter/nf_conntrack_max=4\nnet.netfilter.nf_conntrack_buckets=many\n"),
        ]);
        let wish = Wish { knob: "nf_conntrack_max".into(), value: 4, source: "/run/sysctl.d/60-b.conf:2".into() };
        assert_eq!(all(&root), [wish]);
    }

    #[test]
    fn who_loads_and_who_sets_again() {
        let rule = "ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", RUN+=\"/usr/lib/systemd/systemd-sysctl\"\n";
        let (_there, root) = tree(&[
            ("etc/modules-load.d/x.conf", "# nf_conntrack\nnf-conntrack\n"),
            ("usr/lib/udev/rules.d/90-x.rules", rule),
            ("proc/7/comm", "tuned\n"),
            ("proc/8/comm", "bash\n"),
        ]);
        assert_eq!(early_loader(&root).as_deref(), Some("/etc/modules-load.d/x.conf"));
        assert_eq!(reapplier(&root).as_deref(), Some("/usr/lib/udev/rules.d/90-x.rules"));
        assert_eq!(writers(&root).iter().map(|writer| writer.name).collect::<Vec<_>>(), ["tuned"]);
    }
}
