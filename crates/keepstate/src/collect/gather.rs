//! Gathering: the files of this machine, one by one, into a directory that becomes the bundle.
//!
//! What matters most is taken first, so that a bundle that reaches its size leaves out the least. Configuration keeps its lines'
//! numbers, but only lines that speak of connection tracking are kept: the rest is nobody's business.
use super::manifest::{Kept, Manifest, Place};
use super::redact::Redactor;
use anyhow::{Context, Result};
use keepstate_advisor::doctor::Unseen;
use keepstate_linux::{Root, kernel_log, namespace, program, rules, sample};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much, of what.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries of each table.
    pub sample: usize,
    /// Namespaces.
    pub namespaces: usize,
    /// Between two readings of the counters.
    pub interval: Duration,
}

/// Octets of one file; what is longer is cut at a line's end.
const FILE: u64 = 4 << 20;

/// What is read of each namespace, in this order.
const FILES: [&str; 5] = [
    "/proc/net/stat/nf_conntrack",
    "/proc/net/sockstat",
    "/proc/net/sockstat6",
    "/proc/net/fib_trie",
    "/proc/net/if_inet6",
];

/// What is read of the machine.
const MACHINE: [&str; 11] = [
    "/proc/1/comm",
    "/etc/tuned/active_profile",
    "/proc/sys/kernel/osrelease",
    "/proc/uptime",
    "/proc/meminfo",
    "/proc/modules",
    "/sys/module/nf_conntrack/initstate",
    "/sys/module/nf_conntrack/parameters/hashsize",
    "/run/.containerenv",
    "/.dockerenv",
    "/run/systemd/container",
];

/// Configuration that may set knobs or load the module: its lines about tracking.
const CONFIGURATION: [&str; 24] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
    "/lib/modules-load.d",
    "/etc/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
    "/etc/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
    "/etc/cloud/cloud.cfg.d",
    "/etc/cron.d",
    "/etc/rc.d",
    "/etc/local.d",
    "/etc/network/if-up.d",
    "/etc/NetworkManager/dispatcher.d",
    "/etc/systemd/system",
    "/var/spool/cron/crontabs",
];

/// Single files of that kind.
const SINGLE: [&str; 8] = [
    "/etc/sysctl.conf",
    "/etc/modules",
    "/etc/rc.local",
    "/etc/crontab",
    "/etc/ufw/sysctl.conf",
    "/etc/network/interfaces",
    "/etc/cloud/cloud.cfg",
    "/etc/tuned/tuned-main.conf",
];

/// Profiles of tuned: a directory each.
const PROFILES: [&str; 4] = ["/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"];

/// What is there tells who sets the knobs at boot; what is in it does not matter.
const MARKS: [&str; 7] = [
    "/sbin/sysctl",
    "/usr/sbin/sysctl",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd-sysctl",
    "/lib/systemd/systemd-sysctl",
    "/etc/init.d/procps",
];

/// Programs that are known to write knobs of tracking, by the name of their process: how they were started is told.
const WRITERS: [&str; 5] = ["kube-proxy", "k3s-server", "k3s-agent", "tuned", "cilium-agent"];

/// A bundle while it is made.
#[derive(Debug)]
pub struct Gatherer {
    directory: PathBuf,
    left: u64,
    redactor: Option<Redactor>,
    manifest: Manifest,
}

impl Gatherer {
    /// Into an empty directory, `size` octets at most.
    pub fn new(directory: &Path, size: u64, redact: bool) -> Gatherer {
        let manifest = Manifest {
            schema: super::manifest::SCHEMA.into(),
            made_by: concat!("keepstate ", env!("CARGO_PKG_VERSION")).into(),
            made_at: jiff::Timestamp::now().to_string(),
            redacted: redact,
            ..Manifest::default()
        };
        Gatherer { directory: directory.to_owned(), left: size, redactor: redact.then(Redactor::default), manifest }
    }

    /// Gathers everything, and writes the manifest last.
    ///
    /// # Errors
    /// If the bundle cannot be written. What cannot be read is left out, and said.
    pub fn gather(mut self, limits: &Limits) -> Result<Manifest> {
        let found = namespace::all(limits.namespaces)?;
        if let Some(hidden) = found.hidden() {
            self.leave("some processes' network namespaces", &hidden.why, &format!("collect {}", hidden.how));
        }
        if found.beyond > 0 {
            self.leave(
                &format!("{} more namespaces", found.beyond),
                &"there are too many",
                "ask for more with --namespaces",
            );
        }
        let begun = Instant::now();
        for (at, one) in found.namespaces.iter().enumerate() {
            let directory = if at == 0 { String::new() } else { format!("netns/{at}") };
            let done = self.within(one, |gatherer| gatherer.small(&directory))?;
            if done {
                let (name, inode) = (one.name.clone(), Some(one.inode));
                self.manifest.namespaces.push(Place { directory, name, inode, is_ours: one.is_ours });
            }
        }
        self.machine()?;
        std::thread::sleep(limits.interval.saturating_sub(begun.elapsed()));
        self.manifest.interval_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        for place in self.manifest.namespaces.clone() {
            let Some(one) = found.namespaces.iter().find(|one| Some(one.inode) == place.inode) else { continue };
            let later = Path::new(&place.directory).join("later").display().to_string();
            self.within(one, |gatherer| gatherer.again(&later))?;
            self.within(one, |gatherer| gatherer.large(&place.directory, limits.sample))?;
        }
        if limits.interval.is_zero() {
            self.manifest.interval_ms = 0;
        }
        let text = serde_json::to_string_pretty(&self.manifest)?;
        fs::write(self.directory.join(super::manifest::NAME), text).context("the manifest cannot be written")?;
        Ok(self.manifest)
    }

    /// Does something inside a namespace; false where it may not be entered.
    fn within(
        &mut self,
        one: &namespace::Namespace,
        work: impl FnOnce(&mut Gatherer) -> Result<()> + Send,
    ) -> Result<bool> {
        if one.is_ours {
            return work(self).map(|()| true);
        }
        match one.enter(|| work(self)) {
            Ok(done) => done.map(|()| true),
            Err(error) => {
                self.leave(&one.name, &error, "collect as root (CAP_SYS_ADMIN)");
                Ok(false)
            }
        }
    }

    /// Knobs, counters and what else is small.
    fn small(&mut self, directory: &str) -> Result<()> {
        self.knobs(directory)?;
        let live = Root::live();
        for path in FILES {
            self.copy(&live, directory, path, str::to_owned)?;
        }
        for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
            self.copy(&live, directory, path, listeners)?;
        }
        Ok(())
    }

    /// What is read twice.
    fn again(&mut self, directory: &str) -> Result<()> {
        self.knobs(directory)?;
        self.copy(&Root::live(), directory, FILES[0], str::to_owned)
    }

    fn knobs(&mut self, directory: &str) -> Result<()> {
        let live = Root::live();
        let knobs = "/proc/sys/net/netfilter";
        for name in live.names(knobs).unwrap_or_default() {
            if name.starts_with("nf_conntrack_") {
                self.copy(&live, directory, &format!("{knobs}/{name}"), str::to_owned)?;
            }
        }
        Ok(())
    }

    /// Rules, and entries of the table.
    fn large(&mut self, directory: &str, bound: usize) -> Result<()> {
        let live = Root::live();
        for words in rules::PROGRAMS {
            match program::output(&live, words, FILE) {
                Ok(text) => self.keep(
                    directory,
                    &format!("{}/{}", program::DIRECTORY, program::file_name(words)),
                    &text,
                    0o644,
                )?,
                Err(silent) => self.leave(&words.join(" "), &silent, "collect as root, where the program is installed"),
            }
        }
        match first_lines(&live, bound) {
            Ok(text) => self.keep(directory, sample::PATH, &text, 0o440),
            Err(error) => {
                self.leave(sample::PATH, &error, "collect as root");
                Ok(())
            }
        }
    }

    fn machine(&mut self) -> Result<()> {
        let live = Root::live();
        for path in MACHINE {
            self.copy(&live, "", path, str::to_owned)?;
        }
        self.copy(&live, "", "/proc/slabinfo", |text| {
            only(text, |line| line.starts_with(['#', 's']) || line.starts_with("nf_"))
        })?;
        // Who mounts what is not asked: only whether /proc/sys may be written.
        let mounts = live.read("/proc/self/mounts").unwrap_or_default();
        self.keep("", "/proc/mounts", &only(&mounts, |line| line.contains(" /proc/sys ")), 0o444)?;
        match kernel_log::ring() {
            Ok(log) => {
                let lines: Vec<String> = log.lines.iter().map(logged).collect();
                self.keep("", "/kernel.log", &(lines.join("\n") + "\n"), 0o644)?;
            }
            Err(error) => self.leave("the kernel's log", &error, "collect as root (CAP_SYSLOG)"),
        }
        for directory in CONFIGURATION {
            for name in live.names(directory).unwrap_or_default() {
                self.configuration(&live, &format!("{directory}/{name}"))?;
            }
        }
        for path in SINGLE {
            self.configuration(&live, path)?;
        }
        for directory in PROFILES {
            for name in live.names(directory).unwrap_or_default() {
                self.configuration(&live, &format!("{directory}/{name}/tuned.conf"))?;
            }
        }
        for path in MARKS {
            if live.exists(path) {
                self.keep("", path, "", 0o644)?;
            }
        }
        self.writers(&live)?;
        self.devices(&live)
    }

    fn configuration(&mut self, live: &Root, path: &str) -> Result<()> {
        // A directory, or no text.
        let Ok(text) = live.read(path) else { return Ok(()) };
        let speaks = |line: &str| ["conntrack", "sysctl", "include="].iter().any(|word| line.contains(word));
        if !text.lines().any(|line| line.contains("conntrack")) && !path.contains("sysctl.d") {
            return Ok(());
        }
        let lines: Vec<&str> = text.lines().map(|line| if speaks(line) { line } else { "" }).collect();
        self.keep("", path, &(lines.join("\n") + "\n"), 0o644)
    }

    fn writers(&mut self, live: &Root) -> Result<()> {
        for name in live.names("/proc").unwrap_or_default() {
            if !name.bytes().all(|octet| octet.is_ascii_digit()) {
                continue;
            }
            let path = format!("/proc/{name}/comm");
            let Ok(comm) = live.read(&path) else { continue };
            if WRITERS.contains(&comm.trim()) {
                self.keep("", &path, &comm, 0o644)?;
                self.copy(live, "", &format!("/proc/{name}/cmdline"), str::to_owned)?;
            }
        }
        Ok(())
    }

    fn devices(&mut self, live: &Root) -> Result<()> {
        for device in live.names("/sys/class/net").unwrap_or_default() {
            if live.exists(format!("/sys/class/net/{device}/device"))
                && let Ok(text) = program::output(live, &["ethtool", "-S", &device], FILE)
            {
                let name = program::file_name(&["ethtool", "-S", &device]);
                let text = only(&text, |line| line.contains("_exceeded"));
                self.keep("", &format!("{}/{name}", program::DIRECTORY), &text, 0o644)?;
            }
        }
        Ok(())
    }

    /// Copies a file, with its mode. What is not there is not missed.
    fn copy(&mut self, live: &Root, directory: &str, path: &str, make: impl FnOnce(&str) -> String) -> Result<()> {
        let mode = live.path(path).metadata().map_or(0o644, |metadata| metadata.mode() & 0o777);
        match live.read(path) {
            Ok(text) => self.keep(directory, path, &make(&text), mode),
            Err(error) => {
                if !error.is_absent() {
                    self.leave(path, &error, "collect as root");
                }
                Ok(())
            }
        }
    }

    /// Writes a file of the bundle, as much of it as there is room for.
    fn keep(&mut self, directory: &str, path: &str, text: &str, mode: u32) -> Result<()> {
        let text = match &mut self.redactor {
            Some(redactor) => redactor.text(text),
            None => text.to_owned(),
        };
        let room = usize::try_from(self.left.min(FILE)).unwrap_or(usize::MAX);
        let kept = cut(&text, room);
        let is_cut = kept.len() < text.len();
        let inside = Path::new(directory).join(path.trim_start_matches('/'));
        if is_cut {
            let why = format!("the bundle has room for {} of its {} octets", kept.len(), text.len());
            self.leave(&inside.display().to_string(), &why, "collect with a larger --max-size");
        }
        if is_cut && kept.is_empty() {
            return Ok(());
        }
        let full = self.directory.join(&inside);
        let what = || format!("{} cannot be written", full.display());
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent).with_context(what)?;
        }
        fs::write(&full, kept).with_context(what)?;
        // Its owner must be able to read it, or nobody can examine it.
        fs::set_permissions(&full, fs::Permissions::from_mode(mode | 0o400)).with_context(what)?;
        self.left -= kept.len() as u64;
        self.manifest.files.push(Kept { path: inside.display().to_string(), octets: kept.len() as u64, is_cut });
        Ok(())
    }

    fn leave(&mut self, what: &str, why: &dyn std::fmt::Display, how: &str) {
        tracing::debug!("{what} is left out: {why}");
        self.manifest.left_out.push(Unseen { what: what.to_owned(), why: why.to_string(), how: how.to_owned() });
    }
}

/// The lines that pass.
fn only(text: &str, passes: impl Fn(&str) -> bool) -> String {
    text.lines().filter(|line| passes(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Of a list of sockets those that listen, without their addresses, which are written in hexadecimal.
fn listeners(text: &str) -> String {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(&"0A")) = (words.get(1), words.get(3)) else { return None };
        let port = local.rsplit_once(':')?.1;
        Some(format!("0: 00000000:{port} 00000000:0000 0A\n"))
    };
    let head = text.lines().next().unwrap_or_default();
    std::iter::once(format!("{head}\n")).chain(text.lines().filter_map(line)).collect()
}

/// A line of the log in the form of dmesg.
fn logged(line: &kernel_log::Line) -> String {
    match line.uptime {
        Some(seconds) => format!("[{seconds:>5}.000000] {}", line.text),
        None => line.text.clone(),
    }
}

/// The first entries of the table, as the kernel lists them.
fn first_lines(live: &Root, bound: usize) -> std::io::Result<String> {
    let mut lines = BufReader::with_capacity(1 << 16, fs::File::open(live.path(sample::PATH))?);
    let mut text = String::new();
    for _ in 0..bound {
        if lines.read_line(&mut text)? == 0 {
            break;
        }
    }
    Ok(text)
}

/// The beginning of a text, up to the end of a line.
fn cut(text: &str, room: usize) -> &str {
    if text.len() <= room {
        return text;
    }
    let mut end = room;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = text.get(..end).unwrap_or_default();
    kept.rfind('\n').and_then(|last| kept.get(..=last)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_at_the_end_of_a_line() {
        assert_eq!(cut("one\ntwo\n", 100), "one\ntwo\n");
        assert_eq!(cut("one\ntwo\n", 7), "one\n");
        assert_eq!(cut("one\n", 2), "");
        assert_eq!(cut("ä\nöö\n", 4), "ä\n");
    }

    #[test]
    fn listeners_keep_their_ports_alone() {
        let tcp = "  sl  local\n   0: 0200000A:0016 00000000:0000 0A 0\n   1: 0200000A:0016 0300000A:9999 01 0\n";
        assert_eq!(listeners(tcp), "  sl  local\n0: 00000000:0016 00000000:0000 0A\n");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_said() {
        let there = tempfile::tempdir().unwrap();
        let mut gatherer = Gatherer::new(there.path(), 6, false);
        gatherer.keep("", "/proc/a", "one\ntwo\n", 0o444).unwrap();
        gatherer.keep("", "/proc/b", "three\n", 0o444).unwrap();
        assert_eq!(fs::read_to_string(there.path().join("proc/a")).unwrap(), "one\n");
        assert!(!there.path().join("proc/b").exists());
        assert_eq!((gatherer.manifest.left_out.len(), gatherer.manifest.files[0].is_cut), (2, true));
    }
}
