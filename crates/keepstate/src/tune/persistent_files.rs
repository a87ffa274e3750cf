//! Which files make a plan last, and what is in them: our own only, and only those that this machine needs.
use super::sysctl_file;
use anyhow::{Result, bail};
use keepstate_advisor::tune::BUCKETS;
use keepstate_linux::SysRoot;
use keepstate_linux::boot::{BootConfig, ModuleLoad, SysctlEffect, SysctlLoader};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Files, and why each.
#[derive(Debug, Default)]
pub(super) struct PersistentFiles {
    /// Path on a running machine, content, reason.
    pub(super) files: Vec<(PathBuf, String, String)>,
    /// What to know: other writers, lines that win or lose.
    pub(super) warnings: Vec<String>,
}

/// Names under which our sysctl file may stand; the first that wins against what is there is taken.
const SYSCTL_FILE_NAMES: [&str; 4] =
    ["99-keepstate.conf", "99-zz-keepstate.conf", "zz-keepstate.conf", "zzzz-keepstate.conf"];
const MODULES_LOAD_FILE: &str = "/etc/modules-load.d/keepstate.conf";
const MODPROBE_FILE: &str = "/etc/modprobe.d/keepstate.conf";
const UDEV_RULE_FILE: &str = "/etc/udev/rules.d/99-keepstate.rules";
const SYSTEMD_SYSCTL_PATHS: [&str; 2] = ["/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"];
const UDEV_PATHS: [&str; 3] = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd", "/usr/bin/udevadm"];
const FILE_HEADER: &str = "# Written by keepstate tune; `keepstate tune rollback` takes it away again.\n";

/// The files that make `knobs` (key and value) stand after the next boot.
///
/// # Errors
/// The files of the machine cannot be read, or nothing that we may write would last.
pub(super) fn plan_files(root: &SysRoot, knobs: &BTreeMap<String, u64>) -> Result<PersistentFiles> {
    let now = BootConfig::read(root)?;
    let mut files = PersistentFiles::default();
    // What an apply before this one made last goes on.
    let mut knobs = knobs.clone();
    for (key, value) in previously_persisted(root) {
        knobs.entry(key).or_insert(value);
    }
    add_module_load(root, &now, &mut files)?;
    if sysctl_file::is_module_parameter(root, BUCKETS)
        && let Some(buckets) = knobs.remove(BUCKETS)
    {
        add_hashsize_option(&now, &mut files, buckets);
    }
    let knobs = &knobs;
    let mut text = FILE_HEADER.to_owned();
    for (key, value) in knobs {
        text.push_str(&format!("{key} = {value}\n"));
    }
    let name =
        SYSCTL_FILE_NAMES.into_iter().find(|name| takes_effect(root, &files, name, &text, knobs).unwrap_or(false));
    let Some(name) = name else {
        bail!("no file of ours would win at boot: {}", overriding_settings(root, &files, &text, knobs)?);
    };
    files.files.push((
        PathBuf::from("/etc/sysctl.d").join(name),
        text,
        "read at each boot after the files before it in the alphabet".to_owned(),
    ));
    warn_other_writers(&mut files, &now, knobs);
    Ok(files)
}

/// The knobs exist only when the module is there: it is loaded early, or a rule writes them when it comes.
fn add_module_load(root: &SysRoot, now: &BootConfig, files: &mut PersistentFiles) -> Result<()> {
    let mut why_a_rule = None;
    if let SysctlLoader::NotLoaded(why) = &now.loader {
        why_a_rule = Some(format!("nobody reads sysctl.d at boot here ({why})"));
    } else if now.module == ModuleLoad::OnFirstUse {
        let text = format!("{FILE_HEADER}nf_conntrack\n");
        let early = BootConfig::read_with_overlay(root, &[(MODULES_LOAD_FILE.into(), text.clone())].into())?;
        if early.module == ModuleLoad::OnFirstUse {
            why_a_rule = Some("nothing loads modules by name before sysctl.d is read here".to_owned());
        } else {
            let why = "the module would come by its first use, after sysctl.d was read, and its knobs would keep their defaults";
            files.files.push((MODULES_LOAD_FILE.into(), text, why.to_owned()));
        }
    }
    let Some(why) = why_a_rule else { return Ok(()) };
    let program = SYSTEMD_SYSCTL_PATHS.iter().find(|path| root.exists(path));
    let (Some(program), true, false) =
        (program, UDEV_PATHS.iter().any(|path| root.exists(path)), now.module == ModuleLoad::BuiltIn)
    else {
        bail!(
            "{why}, and no udev could write the knobs when the module comes: in a container, --persist belongs on the host"
        );
    };
    // One `--prefix` is written with slashes, and the alias net.nf_conntrack_max lies outside it: our file has the other key.
    let text = format!(
        "{FILE_HEADER}ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", RUN+=\"{program} --prefix=/net/netfilter\"\n"
    );
    files.files.push((
        UDEV_RULE_FILE.into(),
        text,
        format!("{why}: udev writes the knobs as soon as the module is loaded"),
    ));
    Ok(())
}

/// Old kernels take the buckets as the module's option.
fn add_hashsize_option(now: &BootConfig, files: &mut PersistentFiles, buckets: u64) {
    if now.module == ModuleLoad::BuiltIn {
        files.warnings.push(format!(
            "{BUCKETS} can only be read on this kernel and tracking is built in: for good, put nf_conntrack.hashsize={buckets} on the kernel's command line"
        ));
        return;
    }
    let text = format!("{FILE_HEADER}options nf_conntrack hashsize={buckets}\n");
    let why = format!("{BUCKETS} can only be read on this kernel: the module is given its buckets when it is loaded");
    files.files.push((MODPROBE_FILE.into(), text, why));
    if let Some(hashsize) = now.hashsize.as_ref().filter(|hashsize| !hashsize.location.file.contains("keepstate")) {
        files.warnings.push(format!(
            "{} says hashsize={} too, and of two options the later is taken: take that line out",
            hashsize.location, hashsize.buckets
        ));
    }
}

/// Knobs that a file of ours sets already.
fn previously_persisted(root: &SysRoot) -> BTreeMap<String, u64> {
    let texts = SYSCTL_FILE_NAMES.iter().filter_map(|name| root.read(PathBuf::from("/etc/sysctl.d").join(name)).ok());
    let ours = texts.filter(|text| text.starts_with(FILE_HEADER));
    let pairs = ours.flat_map(|text| {
        let lines = text.lines().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().parse().ok()?))
        });
        lines.collect::<Vec<_>>()
    });
    pairs.collect()
}

/// Would this text, under this name, make every knob stand?
fn takes_effect(
    root: &SysRoot,
    files: &PersistentFiles,
    name: &str,
    text: &str,
    knobs: &BTreeMap<String, u64>,
) -> Result<bool> {
    let boot = BootConfig::read_with_overlay(root, &overlay(files, name, text))?;
    Ok(knobs.iter().all(|(key, value)| {
        boot.effective(key)
            .is_some_and(|standing| is_persistent(&standing.effect) && standing.value.trim() == value.to_string())
    }))
}

/// A rule of udev writes when the module comes, which is early enough: without it nothing is tracked.
pub(super) fn is_persistent(effect: &SysctlEffect) -> bool {
    matches!(effect, SysctlEffect::Always | SysctlEffect::OnlyIfModuleLoaded)
}

fn overlay(files: &PersistentFiles, name: &str, text: &str) -> BTreeMap<PathBuf, String> {
    let ours = files.files.iter().map(|(path, text, _)| (path.clone(), text.clone()));
    ours.chain([(PathBuf::from("/etc/sysctl.d").join(name), text.to_owned())]).collect()
}

/// Who wins instead.
fn overriding_settings(
    root: &SysRoot,
    files: &PersistentFiles,
    text: &str,
    knobs: &BTreeMap<String, u64>,
) -> Result<String> {
    let boot = BootConfig::read_with_overlay(root, &overlay(files, SYSCTL_FILE_NAMES[3], text))?;
    let winners = knobs.keys().filter_map(|key| {
        let standing = boot.effective(key)?;
        let why = match &standing.effect {
            effect if is_persistent(effect) && standing.source.file.contains("keepstate") => return None,
            SysctlEffect::Never(why) => why.clone(),
            _ => format!("{} sets it to {}", standing.source, standing.value),
        };
        Some(format!("{key}: {why}"))
    });
    Ok(winners.collect::<Vec<_>>().join("; "))
}

/// What others say about the same knobs.
fn warn_other_writers(files: &mut PersistentFiles, now: &BootConfig, knobs: &BTreeMap<String, u64>) {
    for key in knobs.keys() {
        if let Some(standing) = now.effective(key).filter(|standing| !standing.source.file.contains("keepstate")) {
            files.warnings.push(format!("{} sets {key} to {} and loses to our file", standing.source, standing.value));
        }
    }
    let others =
        now.other_writers.iter().filter(|writer| writer.key.as_ref().is_none_or(|key| knobs.contains_key(key)));
    for writer in others {
        files.warnings.push(format!(
            "{} writes after all this: {} ({}). Change it there, or it wins",
            writer.name, writer.description, writer.location
        ));
    }
    if let Some(hashsize) = now.hashsize.as_ref().filter(|_| knobs.contains_key(BUCKETS)) {
        files.warnings.push(format!(
            "{} gives the module {} buckets at its start; our file sets them again",
            hashsize.location, hashsize.buckets
        ));
    }
    files.warnings.extend(now.notes.iter().cloned());
}
