//! Collecting the files of this machine, one by one, into the directory that becomes the bundle.
//!
//! The most important files come first, so that a bundle that reaches its size limit loses the least. Configuration files keep
//! their line numbers but only the lines about connection tracking: the rest must never leave the machine.
use crate::collected_paths::{
    CONFIG_DIRECTORIES, CONFIG_FILES, KEPT_NUMBERS, KNOWN_WRITERS, MACHINE_FILES, MARKER_FILES, NAMESPACE_FILES,
    TUNED_PROFILE_DIRECTORIES,
};
use crate::manifest::{BundleFile, Manifest, NamespaceDirectory, ReplacedClass};
use crate::redact::Redactor;
use crate::secrets::{REDACTED, redact_secrets};
use anyhow::{Context, Result};
use keepstate_advisor::doctor::MissingInput;
use keepstate_linux::{SysRoot, command, kernel_log, netns, proc_conntrack, ruleset_scan};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much to collect.
#[derive(Clone, Debug)]
pub struct CollectLimits {
    /// Entries of each conntrack table.
    pub sample: usize,
    /// Network namespaces.
    pub namespaces: usize,
    /// Time between the two readings of the counters.
    pub interval: Duration,
}

/// Limit on the bytes of one file; a longer one is cut at the end of a line.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A bundle while it is collected.
#[derive(Debug)]
pub struct Collector {
    directory: PathBuf,
    bytes_left: u64,
    redactor: Option<Redactor>,
    secrets: u64,
    manifest: Manifest,
}

impl Collector {
    /// Collects into an empty directory, at most `max_bytes`.
    pub fn new(directory: &Path, max_bytes: u64, redact: bool) -> Collector {
        let manifest = Manifest {
            schema: crate::manifest::SCHEMA.into(),
            made_by: concat!("keepstate ", env!("CARGO_PKG_VERSION")).into(),
            made_at: jiff::Timestamp::now().to_string(),
            redacted: redact,
            ..Manifest::default()
        };
        Collector {
            directory: directory.to_owned(),
            bytes_left: max_bytes,
            redactor: redact.then(Redactor::default),
            secrets: 0,
            manifest,
        }
    }

    /// Collects everything, and writes the manifest last.
    ///
    /// # Errors
    /// If the bundle cannot be written. What cannot be read is listed in the manifest.
    pub fn collect(mut self, limits: &CollectLimits) -> Result<Manifest> {
        let found = netns::list(limits.namespaces)?;
        if let Some(hidden) = found.hidden() {
            self.record_missing(
                "network namespaces of some processes",
                &hidden.reason,
                &format!("collect {}", hidden.hint),
            );
        }
        if found.over_limit > 0 {
            self.record_missing(
                &format!("{} more namespaces", found.over_limit),
                &"more than the limit",
                "raise --namespaces",
            );
        }
        let begun = Instant::now();
        for (index, namespace) in found.namespaces.iter().enumerate() {
            let directory = if index == 0 { String::new() } else { format!("netns/{index}") };
            let done = self.in_namespace(namespace, |collector| collector.collect_first_reading(&directory))?;
            if done {
                let (name, inode) = (self.redact(&namespace.name), Some(namespace.inode));
                let is_ours = namespace.is_current;
                self.manifest.namespaces.push(NamespaceDirectory { directory, name, inode, is_ours });
            }
        }
        self.collect_machine()?;
        std::thread::sleep(limits.interval.saturating_sub(begun.elapsed()));
        self.manifest.interval_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        for listed in self.manifest.namespaces.clone() {
            let namespace = found.namespaces.iter().find(|namespace| Some(namespace.inode) == listed.inode);
            let Some(namespace) = namespace else { continue };
            let later = Path::new(&listed.directory).join("later").display().to_string();
            self.in_namespace(namespace, |collector| collector.collect_second_reading(&later))?;
            self.in_namespace(namespace, |collector| {
                collector.collect_rules_and_entries(&listed.directory, limits.sample)
            })?;
        }
        if limits.interval.is_zero() {
            self.manifest.interval_ms = 0;
        }
        self.finish_manifest();
        let text = serde_json::to_string_pretty(&self.manifest)?;
        fs::write(self.directory.join(crate::manifest::FILE_NAME), text).context("cannot write the manifest")?;
        Ok(self.manifest)
    }

    /// Runs `work` inside a namespace; false if the namespace cannot be entered.
    fn in_namespace(
        &mut self,
        namespace: &netns::Netns,
        work: impl FnOnce(&mut Collector) -> Result<()> + Send,
    ) -> Result<bool> {
        if namespace.is_current {
            return work(self).map(|()| true);
        }
        match namespace.enter(|| work(self)) {
            Ok(done) => done.map(|()| true),
            Err(error) => {
                self.record_missing(&namespace.name, &error, "collect as root (CAP_SYS_ADMIN)");
                Ok(false)
            }
        }
    }

    /// Sysctls, counters and other small files.
    fn collect_first_reading(&mut self, directory: &str) -> Result<()> {
        self.copy_sysctls(directory)?;
        let live = SysRoot::live();
        for path in NAMESPACE_FILES {
            self.copy_file(&live, directory, path, str::to_owned)?;
        }
        for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
            self.copy_file(&live, directory, path, listening_sockets)?;
        }
        Ok(())
    }

    /// The files that are read twice: sysctls and counters.
    fn collect_second_reading(&mut self, directory: &str) -> Result<()> {
        self.copy_sysctls(directory)?;
        for path in NAMESPACE_FILES.iter().take(2) {
            self.copy_file(&SysRoot::live(), directory, path, str::to_owned)?;
        }
        Ok(())
    }

    /// Says what was replaced, by class; and redacts what the manifest itself says.
    fn finish_manifest(&mut self) {
        let mut replaced = vec![("secrets", self.secrets)];
        if let Some(redactor) = &mut self.redactor {
            for missing in &mut self.manifest.left_out {
                for text in [&mut missing.what, &mut missing.why, &mut missing.how] {
                    *text = redactor.redact_text(text);
                }
            }
            let counts = redactor.counts();
            replaced.extend([
                ("addresses", counts.addresses),
                ("addresses in names", counts.addresses_in_names),
                ("hardware addresses", counts.hardware_addresses),
            ]);
        }
        let class = |(class, number): (&str, u64)| ReplacedClass { class: class.to_owned(), number };
        self.manifest.replaced = replaced.into_iter().map(class).collect();
    }

    fn redact(&mut self, text: &str) -> String {
        self.redactor.as_mut().map_or_else(|| text.to_owned(), |redactor| redactor.redact_text(text))
    }

    fn copy_sysctls(&mut self, directory: &str) -> Result<()> {
        let live = SysRoot::live();
        let sysctls = "/proc/sys/net/netfilter";
        for name in live.list_dir(sysctls).unwrap_or_default() {
            if name.starts_with("nf_conntrack_") {
                self.copy_file(&live, directory, &format!("{sysctls}/{name}"), str::to_owned)?;
            }
        }
        Ok(())
    }

    /// Rules, and entries of the conntrack table.
    fn collect_rules_and_entries(&mut self, directory: &str, limit: usize) -> Result<()> {
        let live = SysRoot::live();
        for words in ruleset_scan::LIST_COMMANDS {
            match command::output(&live, words, MAX_FILE_BYTES) {
                Ok(text) => self.write_file(
                    directory,
                    &format!("{}/{}", command::BUNDLE_DIRECTORY, command::bundle_file_name(words)),
                    &text,
                    0o644,
                )?,
                Err(error) => {
                    self.record_missing(&words.join(" "), &error, "collect as root, with this program installed")
                }
            }
        }
        for words in ruleset_scan::LEGACY_LIST_COMMANDS {
            let Ok(text) = command::output(&live, words, MAX_FILE_BYTES) else { continue };
            if ruleset_scan::has_rules(&text) {
                let name = format!("{}/{}", command::BUNDLE_DIRECTORY, command::bundle_file_name(words));
                self.write_file(directory, &name, &text, 0o644)?;
            }
        }
        match first_entries(&live, limit) {
            Ok(text) => self.write_file(directory, proc_conntrack::PATH, &text, 0o440),
            Err(error) => {
                self.record_missing(proc_conntrack::PATH, &error, "collect as root");
                Ok(())
            }
        }
    }

    fn collect_machine(&mut self) -> Result<()> {
        let live = SysRoot::live();
        for path in MACHINE_FILES {
            self.copy_file(&live, "", path, str::to_owned)?;
        }
        self.copy_file(&live, "", "/proc/slabinfo", |text| {
            filter_lines(text, |line| line.starts_with(['#', 's']) || line.starts_with("nf_"))
        })?;
        // Of the mounts only /proc/sys: whether it may be written.
        let mounts = live.read("/proc/self/mounts").unwrap_or_default();
        self.write_file("", "/proc/mounts", &filter_lines(&mounts, |line| line.contains(" /proc/sys ")), 0o444)?;
        match kernel_log::read_kmsg() {
            Ok(log) => {
                let lines: Vec<String> = log.lines.iter().map(format_log_line).collect();
                self.write_file("", "/kernel.log", &(lines.join("\n") + "\n"), 0o644)?;
            }
            Err(error) => self.record_missing("the kernel log", &error, "collect as root (CAP_SYSLOG)"),
        }
        for directory in CONFIG_DIRECTORIES {
            for name in live.list_dir(directory).unwrap_or_default() {
                self.collect_config_lines(&live, &format!("{directory}/{name}"))?;
            }
        }
        for path in CONFIG_FILES {
            self.collect_config_lines(&live, path)?;
        }
        for directory in TUNED_PROFILE_DIRECTORIES {
            for name in live.list_dir(directory).unwrap_or_default() {
                self.collect_config_lines(&live, &format!("{directory}/{name}/tuned.conf"))?;
            }
        }
        for path in MARKER_FILES {
            if live.exists(path) {
                self.write_file("", path, "", 0o644)?;
            }
        }
        self.collect_writer_processes(&live)?;
        self.collect_nic_limits(&live)
    }

    fn collect_config_lines(&mut self, live: &SysRoot, path: &str) -> Result<()> {
        // Directories and binary files are skipped.
        let Ok(text) = live.read(path) else { return Ok(()) };
        let is_relevant = |line: &str| ["conntrack", "sysctl", "include="].iter().any(|word| line.contains(word));
        if !text.lines().any(|line| line.contains("conntrack")) && !path.contains("sysctl.d") {
            return Ok(());
        }
        let lines: Vec<&str> = text.lines().map(|line| if is_relevant(line) { line } else { "" }).collect();
        self.write_file("", path, &(lines.join("\n") + "\n"), 0o644)
    }

    fn collect_writer_processes(&mut self, live: &SysRoot) -> Result<()> {
        for name in live.list_dir("/proc").unwrap_or_default() {
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let path = format!("/proc/{name}/comm");
            let Ok(comm) = live.read(&path) else { continue };
            if KNOWN_WRITERS.contains(&comm.trim()) {
                self.write_file("", &path, &comm, 0o644)?;
                self.copy_file(live, "", &format!("/proc/{name}/cmdline"), str::to_owned)?;
            }
        }
        Ok(())
    }

    fn collect_nic_limits(&mut self, live: &SysRoot) -> Result<()> {
        for interface in live.list_dir("/sys/class/net").unwrap_or_default() {
            if live.exists(format!("/sys/class/net/{interface}/device"))
                && let Ok(text) = command::output(live, &["ethtool", "-S", &interface], MAX_FILE_BYTES)
            {
                let name = command::bundle_file_name(&["ethtool", "-S", &interface]);
                let text = filter_lines(&text, |line| line.contains("_exceeded"));
                self.write_file("", &format!("{}/{name}", command::BUNDLE_DIRECTORY), &text, 0o644)?;
            }
        }
        Ok(())
    }

    /// Copies a file with its mode. A file that does not exist is not reported as missing.
    fn copy_file(
        &mut self,
        live: &SysRoot,
        directory: &str,
        path: &str,
        make: impl FnOnce(&str) -> String,
    ) -> Result<()> {
        let mode = live.mode(path).map_or(0o644, |mode| mode & 0o777);
        match live.read(path) {
            Ok(text) => self.write_file(directory, path, &make(&text), mode),
            Err(error) => {
                if !error.is_not_found() {
                    self.record_missing(path, &error, "collect as root");
                }
                Ok(())
            }
        }
    }

    /// Writes a file of the bundle, as much of it as fits.
    fn write_file(&mut self, directory: &str, path: &str, text: &str, mode: u32) -> Result<()> {
        // Secrets never leave the machine; addresses only if they may.
        let mut redacted = redact_secrets(text);
        let marks = |text: &str| text.matches(REDACTED).count() as u64;
        self.secrets += marks(&redacted).saturating_sub(marks(text));
        // A release like 5.15.90.1 is no address, and the doctor needs it.
        if !KEPT_NUMBERS.contains(&path) {
            redacted = self.redact(&redacted);
        }
        let (text, path) = (redacted, self.redact(path));
        let room = usize::try_from(self.bytes_left.min(MAX_FILE_BYTES)).unwrap_or(usize::MAX);
        let kept = truncate_at_line(&text, room);
        let is_cut = kept.len() < text.len();
        let inside = Path::new(directory).join(path.trim_start_matches('/'));
        if is_cut {
            let why = format!("{} of {} bytes fit in the bundle", kept.len(), text.len());
            self.record_missing(&inside.display().to_string(), &why, "raise --max-size");
        }
        if is_cut && kept.is_empty() {
            return Ok(());
        }
        let full = self.directory.join(&inside);
        let what = || format!("cannot write {}", full.display());
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent).with_context(what)?;
        }
        fs::write(&full, kept).with_context(what)?;
        // The owner must be able to read it.
        fs::set_permissions(&full, fs::Permissions::from_mode(mode | 0o400)).with_context(what)?;
        self.bytes_left -= kept.len() as u64;
        self.manifest.files.push(BundleFile { path: inside.display().to_string(), bytes: kept.len() as u64, is_cut });
        Ok(())
    }

    fn record_missing(&mut self, what: &str, reason: &dyn std::fmt::Display, how: &str) {
        tracing::debug!("left out: {what}: {reason}");
        self.manifest.left_out.push(MissingInput::new(what, reason, how));
    }
}

/// The lines for which `passes` is true.
fn filter_lines(text: &str, passes: impl Fn(&str) -> bool) -> String {
    text.lines().filter(|line| passes(line)).flat_map(|line| [line, "\n"]).collect()
}

/// The listening sockets of a `/proc/net/tcp` file, without their addresses (hexadecimal, which the redactor does not know).
fn listening_sockets(text: &str) -> String {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(&"0A")) = (words.get(1), words.get(3)) else { return None };
        let port = local.rsplit_once(':')?.1;
        Some(format!("0: 00000000:{port} 00000000:0000 0A\n"))
    };
    let head = text.lines().next().unwrap_or_default();
    std::iter::once(format!("{head}\n")).chain(text.lines().filter_map(line)).collect()
}

/// A line of the kernel log as dmesg prints it.
fn format_log_line(line: &kernel_log::KernelLogLine) -> String {
    match line.uptime {
        Some(seconds) => format!("[{seconds:>5}.000000] {}", line.text),
        None => line.text.clone(),
    }
}

/// The first entries of the conntrack table, as the kernel lists them.
fn first_entries(live: &SysRoot, limit: usize) -> Result<String> {
    let mut lines = BufReader::with_capacity(1 << 16, live.open_file(proc_conntrack::PATH)?);
    let mut text = String::new();
    for _ in 0..limit {
        if lines.read_line(&mut text)? == 0 {
            break;
        }
    }
    Ok(text)
}

/// At most `room` bytes of a text, cut at the end of a line.
fn truncate_at_line(text: &str, room: usize) -> &str {
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
    fn text_is_truncated_at_a_line_end() {
        assert_eq!(truncate_at_line("one\ntwo\n", 100), "one\ntwo\n");
        assert_eq!(truncate_at_line("one\ntwo\n", 7), "one\n");
        assert_eq!(truncate_at_line("one\n", 2), "");
        assert_eq!(truncate_at_line("ä\nöö\n", 4), "ä\n");
    }

    #[test]
    fn listening_sockets_keep_only_ports() {
        let tcp = "  sl  local\n   0: 0200000A:0016 00000000:0000 0A 0\n   1: 0200000A:0016 0300000A:9999 01 0\n";
        assert_eq!(listening_sockets(tcp), "  sl  local\n0: 00000000:0016 00000000:0000 0A\n");
    }

    #[test]
    fn secrets_are_redacted_in_every_file_with_and_without_redact() {
        for redact in [false, true] {
            let there = tempfile::tempdir().unwrap();
            let mut collector = Collector::new(there.path(), 1 << 20, redact);
            for (path, text) in [
                ("/proc/7/cmdline", "kube-proxy\0--token=hunter2\0--v=2\0"),
                ("/etc/rc.local", "curl -H 'Authorization: Bearer hunter2' conntrack\n"),
                ("/etc/sysctl.d/a.conf", "net.ipv4.tcp_fastopen_key = hunter2\n"),
            ] {
                collector.write_file("", path, text, 0o644).unwrap();
                let written = fs::read_to_string(there.path().join(path.trim_start_matches('/'))).unwrap();
                assert!(!written.contains("hunter2") && written.contains("[REDACTED]"), "{path} {redact}: {written}");
            }
        }
    }

    #[test]
    fn oversized_files_are_truncated_and_recorded() {
        let there = tempfile::tempdir().unwrap();
        let mut collector = Collector::new(there.path(), 6, false);
        collector.write_file("", "/proc/a", "one\ntwo\n", 0o444).unwrap();
        collector.write_file("", "/proc/b", "three\n", 0o444).unwrap();
        assert_eq!(fs::read_to_string(there.path().join("proc/a")).unwrap(), "one\n");
        assert!(!there.path().join("proc/b").exists());
        assert_eq!((collector.manifest.left_out.len(), collector.manifest.files[0].is_cut), (2, true));
    }
}
