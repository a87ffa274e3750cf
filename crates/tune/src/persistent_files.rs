//! The files that make a plan persistent, and their content: only our own, and only those that this machine needs.
use crate::sysctl_file;
use anyhow::{Result, bail};
use keepstate_advisor::tune::BUCKETS;
use keepstate_linux::SysRoot;
use keepstate_linux::boot::{BootConfig, ModuleLoad, SysctlEffect, SysctlLoader};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The files to write, and what else the operator should know.
#[derive(Debug, Default)]
pub struct PersistentFiles {
    /// The files, in the order they are written.
    pub files: Vec<PersistentFile>,
    /// Other writers of the same sysctls, and settings that win or lose.
    pub warnings: Vec<String>,
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentFile {
    /// Its path on a running machine.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
    /// Why it is needed.
    pub why: String,
}

/// Possible names of our sysctl file; the first that wins against the existing files is taken.
const SYSCTL_FILE_NAMES: [&str; 4] =
    ["99-keepstate.conf", "99-zz-keepstate.conf", "zz-keepstate.conf", "zzzz-keepstate.conf"];
/// Every file that `tune` may write.
pub const OWN_FILES: [&str; 7] = [
    "/etc/sysctl.d/99-keepstate.conf",
    "/etc/sysctl.d/99-zz-keepstate.conf",
    "/etc/sysctl.d/zz-keepstate.conf",
    "/etc/sysctl.d/zzzz-keepstate.conf",
    MODULES_LOAD_FILE,
    MODPROBE_FILE,
    UDEV_RULE_FILE,
];
const MODULES_LOAD_FILE: &str = "/etc/modules-load.d/keepstate.conf";
const MODPROBE_FILE: &str = "/etc/modprobe.d/keepstate.conf";
const UDEV_RULE_FILE: &str = "/etc/udev/rules.d/99-keepstate.rules";
const SYSTEMD_SYSCTL_PATHS: [&str; 2] = ["/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"];
const UDEV_PATHS: [&str; 3] = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd", "/usr/bin/udevadm"];
/// The beginning of every file that any version of `keepstate tune` has written.
const OWNED_FILE_MARK: &str = "# Written by keepstate tune;";
const FILE_HEADER: &str = "# Written by keepstate tune; `keepstate tune rollback` removes it.\n";

/// The files that set `values` (by sysctl key) at the next boot.
///
/// # Errors
/// If the files of the machine cannot be read, or no file of ours would take effect.
pub fn plan_files(root: &SysRoot, values: &BTreeMap<String, u64>) -> Result<PersistentFiles> {
    let now = BootConfig::read(root)?;
    let mut files = PersistentFiles::default();
    // Values that an earlier apply made persistent stay.
    let mut values = values.clone();
    for (key, value) in previously_persisted(root) {
        values.entry(key).or_insert(value);
    }
    add_module_load(root, &now, &mut files)?;
    if sysctl_file::is_module_parameter(root, BUCKETS)
        && let Some(buckets) = values.remove(BUCKETS)
    {
        add_hashsize_option(&now, &mut files, buckets);
    }
    let values = &values;
    let mut text = FILE_HEADER.to_owned();
    for (key, value) in values {
        text.push_str(&format!("{key} = {value}\n"));
    }
    let name =
        SYSCTL_FILE_NAMES.into_iter().find(|name| takes_effect(root, &files, name, &text, values).unwrap_or(false));
    let Some(name) = name else {
        bail!(
            "no file in /etc/sysctl.d would take effect at boot: {}",
            overriding_settings(root, &files, &text, values)?
        );
    };
    files.files.push(PersistentFile {
        path: PathBuf::from("/etc/sysctl.d").join(name),
        text,
        why: "sets the values at each boot; files are read in alphabetical order, and the last one wins".to_owned(),
    });
    warn_other_writers(&mut files, &now, values);
    Ok(files)
}

/// The sysctls exist only while the module is loaded: load it early at boot, or let a udev rule write them when it is loaded.
fn add_module_load(root: &SysRoot, now: &BootConfig, files: &mut PersistentFiles) -> Result<()> {
    let mut rule_reason = None;
    if let SysctlLoader::NotLoaded(why) = &now.loader {
        rule_reason = Some(format!("sysctl.d is not read at boot here ({why})"));
    } else if now.module == ModuleLoad::OnFirstUse {
        let text = format!("{FILE_HEADER}nf_conntrack\n");
        let early = BootConfig::read_with_overlay(root, &[(MODULES_LOAD_FILE.into(), text.clone())].into())?;
        if early.module == ModuleLoad::OnFirstUse {
            rule_reason = Some("nothing loads modules by name before sysctl.d is read".to_owned());
        } else {
            let why =
                "loads the module before sysctl.d is read; loaded later, at first use, it would keep its defaults";
            files.files.push(PersistentFile { path: MODULES_LOAD_FILE.into(), text, why: why.to_owned() });
        }
    }
    let Some(why) = rule_reason else { return Ok(()) };
    let program = SYSTEMD_SYSCTL_PATHS.iter().find(|path| root.exists(path));
    let (Some(program), true, false) =
        (program, UDEV_PATHS.iter().any(|path| root.exists(path)), now.module == ModuleLoad::BuiltIn)
    else {
        bail!(
            "{why}, and there is no udev to set the values when the module is loaded: in a container, use --persist on the host"
        );
    };
    // `--prefix` takes slashes; the alias net.nf_conntrack_max is outside it, so our file uses net.netfilter.nf_conntrack_max.
    let text = format!(
        "{FILE_HEADER}ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", RUN+=\"{program} --prefix=/net/netfilter\"\n"
    );
    files.files.push(PersistentFile {
        path: UDEV_RULE_FILE.into(),
        text,
        why: format!("{why}: udev sets the values as soon as the module is loaded"),
    });
    Ok(())
}

/// Old kernels take the buckets as an option of the module.
fn add_hashsize_option(now: &BootConfig, files: &mut PersistentFiles, buckets: u64) {
    if now.module == ModuleLoad::BuiltIn {
        files.warnings.push(format!(
            "{BUCKETS} is read-only on this kernel and nf_conntrack is built in: to set it at boot, add nf_conntrack.hashsize={buckets} to the kernel command line"
        ));
        return;
    }
    let text = format!("{FILE_HEADER}options nf_conntrack hashsize={buckets}\n");
    let why = format!("{BUCKETS} is read-only on this kernel: the module takes its buckets when it is loaded");
    files.files.push(PersistentFile { path: MODPROBE_FILE.into(), text, why });
    if let Some(hashsize) = now.hashsize.as_ref().filter(|hashsize| !hashsize.location.file.contains("keepstate")) {
        files.warnings.push(format!(
            "{} sets hashsize={} too, and the last option wins: remove that line",
            hashsize.location, hashsize.buckets
        ));
    }
}

/// The values that a file of ours sets already.
fn previously_persisted(root: &SysRoot) -> BTreeMap<String, u64> {
    let texts = SYSCTL_FILE_NAMES.iter().filter_map(|name| root.read(PathBuf::from("/etc/sysctl.d").join(name)).ok());
    let ours = texts.filter(|text| text.starts_with(OWNED_FILE_MARK));
    let settings = ours.flat_map(|text| parse_settings(&text));
    settings.filter_map(|(key, value)| Some((key, value.parse().ok()?))).collect()
}

/// The settings of a sysctl file that we wrote.
pub fn parse_settings(text: &str) -> Vec<(String, String)> {
    let settings = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim().to_owned(), value.trim().to_owned()))
    });
    settings.collect()
}

/// Would this text under this name set every value at boot?
fn takes_effect(
    root: &SysRoot,
    files: &PersistentFiles,
    name: &str,
    text: &str,
    values: &BTreeMap<String, u64>,
) -> Result<bool> {
    let boot = BootConfig::read_with_overlay(root, &overlay(files, name, text))?;
    Ok(values.iter().all(|(key, value)| {
        boot.effective(key)
            .is_some_and(|effective| is_persistent(&effective.effect) && effective.value.trim() == value.to_string())
    }))
}

/// A udev rule that writes when the module is loaded is early enough: without the module nothing is tracked.
fn is_persistent(effect: &SysctlEffect) -> bool {
    matches!(effect, SysctlEffect::Always | SysctlEffect::OnlyIfModuleLoaded)
}

fn overlay(files: &PersistentFiles, name: &str, text: &str) -> BTreeMap<PathBuf, String> {
    let ours = files.files.iter().map(|file| (file.path.clone(), file.text.clone()));
    ours.chain([(PathBuf::from("/etc/sysctl.d").join(name), text.to_owned())]).collect()
}

/// The settings that win instead.
fn overriding_settings(
    root: &SysRoot,
    files: &PersistentFiles,
    text: &str,
    values: &BTreeMap<String, u64>,
) -> Result<String> {
    let boot = BootConfig::read_with_overlay(root, &overlay(files, SYSCTL_FILE_NAMES[3], text))?;
    let winners = values.keys().filter_map(|key| {
        let effective = boot.effective(key)?;
        let why = match &effective.effect {
            effect if is_persistent(effect) && effective.source.file.contains("keepstate") => return None,
            SysctlEffect::Never(why) => why.clone(),
            _ => format!("{} sets it to {}", effective.source, effective.value),
        };
        Some(format!("{key}: {why}"))
    });
    Ok(winners.collect::<Vec<_>>().join("; "))
}

/// Warns of other settings and writers of the same sysctls.
fn warn_other_writers(files: &mut PersistentFiles, now: &BootConfig, values: &BTreeMap<String, u64>) {
    for key in values.keys() {
        if let Some(effective) = now.effective(key).filter(|effective| !effective.source.file.contains("keepstate")) {
            files
                .warnings
                .push(format!("{} sets {key} to {}; the new file overrides it", effective.source, effective.value));
        }
    }
    let others =
        now.other_writers.iter().filter(|writer| writer.key.as_ref().is_none_or(|key| values.contains_key(key)));
    for writer in others {
        files.warnings.push(format!(
            "{} sets it again later and wins: {} ({}). Change it there",
            writer.name, writer.description, writer.location
        ));
    }
    if let Some(hashsize) = now.hashsize.as_ref().filter(|_| values.contains_key(BUCKETS)) {
        files.warnings.push(format!(
            "{} loads the module with {} buckets; the new file sets them again",
            hashsize.location, hashsize.buckets
        ));
    }
    files.warnings.extend(now.notes.iter().cloned());
}
