//! The deeds: plan, apply, verify, roll back, tell.
use super::journal::{FileContent, Journal, JournalStage};
use super::{
    PlanArgs, RootArgs, atomic_file, confirm_timer, current_state, desired_state, paths, persistent_files, report,
    sysctl_file,
};
use anyhow::{Context, Result, bail};
use keepstate_advisor::tune::{self, COUNT, MAX, TunePlan};
use keepstate_linux::boot::{BootConfig, SysctlEffect};
use keepstate_linux::{SysRoot, sysctl};
use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// A plan, and the files that make it last.
pub(super) struct PlanWithFiles {
    pub(super) plan: TunePlan,
    pub(super) files: persistent_files::PersistentFiles,
}

/// Plans what is wanted.
fn make_plan(wanted: &PlanArgs, root: &SysRoot) -> Result<PlanWithFiles> {
    let situation = current_state::read(root)?;
    if situation.sysctls.is_empty() {
        bail!(
            "{} has no knobs of connection tracking: load the module (modprobe nf_conntrack), or look into the namespace where it is used",
            root.path("/proc/sys/net/netfilter").display()
        );
    }
    let goal = desired_state::build(wanted, root, &situation)?;
    let plan = tune::plan(&goal, &situation);
    let mut targets = plan.unchanged.clone();
    targets.extend(plan.changes.iter().map(|change| (change.key.clone(), change.after)));
    let files = match wanted.persist && !targets.is_empty() && plan.refusals.is_empty() {
        true => persistent_files::plan_files(root, &targets)?,
        false => persistent_files::PersistentFiles::default(),
    };
    Ok(PlanWithFiles { plan, files })
}

/// Shows the plan.
pub(super) fn plan(wanted: &PlanArgs) -> Result<ExitCode> {
    let root = wanted.here.root()?;
    let planned = make_plan(wanted, &root)?;
    report::plan(&root, &planned, wanted.persist, wanted.here.json)?;
    Ok(if planned.plan.refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Carries the plan out.
pub(super) fn apply(wanted: &PlanArgs, confirm_within: Option<u64>) -> Result<ExitCode> {
    let root = wanted.here.root()?;
    let planned = make_plan(wanted, &root)?;
    let before = Journal::read(&root)?;
    if before.as_ref().is_some_and(|journal| journal.stage == JournalStage::RollingBack) {
        bail!("a rollback was cut short: finish it first, with keepstate tune rollback");
    }
    report::plan(&root, &planned, wanted.persist, wanted.here.json)?;
    if !planned.plan.refusals.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let files = pending_files(&root, &planned)?;
    if planned.plan.changes.is_empty() && files.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut journal = Journal::begin(before, unix_now());
    for (path, before, after) in &files {
        journal.record_missing_directories(&root, path);
        journal.record_file(path, before.clone(), after.clone());
    }
    for change in &planned.plan.changes {
        let value = sysctl_file::read(&root, &change.key)?;
        journal.record_sysctl(&change.key, &value, &change.after.to_string());
    }
    journal.confirm_until = confirm_within.map(|seconds| unix_now().saturating_add(seconds));
    journal.write(&root)?;
    // Before the first deed: whatever happens to this process or to who has begun it, somebody waits.
    if let Some(seconds) = confirm_within {
        confirm_timer::spawn(&journal.id, seconds)?;
    }
    apply_changes(&root, &planned.plan, &files)
        .context("cut short: keepstate tune rollback puts back what was changed")?;
    journal.stage = JournalStage::Applied;
    journal.write(&root)?;
    if !wanted.here.json {
        report::applied(&journal, confirm_within)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the files, then sets the knobs.
fn apply_changes(root: &SysRoot, plan: &TunePlan, files: &PendingFiles) -> Result<()> {
    for (path, _, after) in files {
        atomic_file::write(&root.path(path), &after.bytes, after.mode)?;
    }
    for change in &plan.changes {
        write_and_verify(root, &change.key, &change.after.to_string())?;
    }
    Ok(())
}

/// Files whose content is not there yet: path on a running machine, what is there, what will be.
type PendingFiles = Vec<(std::path::PathBuf, Option<FileContent>, FileContent)>;

fn pending_files(root: &SysRoot, planned: &PlanWithFiles) -> Result<PendingFiles> {
    let mut wanted = Vec::new();
    for (path, text, _) in &planned.files.files {
        let there = FileContent::read(&root.path(path))?;
        let after = FileContent { bytes: text.clone().into_bytes(), mode: 0o644 };
        if there.as_ref() != Some(&after) {
            wanted.push((path.clone(), there, after));
        }
    }
    Ok(wanted)
}

/// Writes a knob and reads it back.
fn write_and_verify(root: &SysRoot, key: &str, value: &str) -> Result<()> {
    atomic_file::kill_point();
    let hint =
        "writing it needs root in the initial network namespace (CAP_NET_ADMIN); in a container, set it on the host";
    sysctl_file::write(root, key, value).with_context(|| format!("{key}={value}: {hint}"))?;
    atomic_file::kill_point();
    let there = sysctl_file::read(root, key)?;
    if there != value {
        bail!(
            "{key} was set to {value}, and is {there}: somebody else writes it too, or the kernel took another value"
        );
    }
    Ok(())
}

/// Is everything as it was applied?
pub(super) fn verify(here: &RootArgs) -> Result<ExitCode> {
    let root = here.root()?;
    let Some(journal) = Journal::read(&root)? else {
        bail!("nothing was applied: there is no {}", paths::journal_path(&root).display());
    };
    let mut checks = Vec::new();
    if journal.stage != JournalStage::Applied {
        checks.push((
            format!("{:?}", journal.stage),
            false,
            "it was cut short: keepstate tune rollback, or apply again".to_owned(),
        ));
    }
    for knob in &journal.knobs {
        let there = sysctl_file::read(&root, &knob.key).unwrap_or_else(|error| error.to_string());
        let good = there == knob.after;
        checks.push((
            knob.key.clone(),
            good,
            if good { format!("is {there}") } else { format!("is {there}, not {}", knob.after) },
        ));
    }
    for file in &journal.files {
        let good = FileContent::read(&root.path(&file.path))?.as_ref() == Some(&file.after);
        let what = if good { "is as it was written" } else { "was changed or removed since" };
        checks.push((file.path.display().to_string(), good, what.to_owned()));
    }
    if journal.files.iter().any(|file| file.path.starts_with("/etc/sysctl.d")) {
        let boot = BootConfig::read(&root)?;
        for (key, value) in persisted_values(&journal) {
            let (good, what) = match boot.effective(&key) {
                Some(standing) if standing.value.trim() == value && standing.effect == SysctlEffect::Always => {
                    (true, format!("{value} after the next boot, by {}", standing.source))
                }
                Some(standing)
                    if standing.value.trim() == value && standing.effect == SysctlEffect::OnlyIfModuleLoaded =>
                {
                    (true, format!("{value} as soon as the module is loaded, by {}", standing.source))
                }
                Some(standing) => (
                    false,
                    format!("{} after the next boot, by {}: {:?}", standing.value, standing.source, standing.effect),
                ),
                None => (false, "no file sets it at boot".to_owned()),
            };
            checks.push((key, good, what));
        }
    }
    let good = checks.iter().all(|(_, good, _)| *good);
    report::checks(&checks, here.json)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What our own sysctl files say.
fn persisted_values(journal: &Journal) -> BTreeMap<String, String> {
    let ours = journal.files.iter().filter(|file| file.path.starts_with("/etc/sysctl.d"));
    let lines = ours.flat_map(|file| {
        let text = String::from_utf8_lossy(&file.after.bytes).into_owned();
        let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        });
        pairs.collect::<Vec<_>>()
    });
    lines.collect()
}

/// Puts everything back.
pub(super) fn rollback(here: &RootArgs, force: bool) -> Result<ExitCode> {
    let root = here.root()?;
    let Some(journal) = Journal::read(&root)? else {
        bail!("nothing to roll back: there is no {}", paths::journal_path(&root).display());
    };
    let troubles = rollback_blockers(&root, &journal)?;
    if !force && !troubles.is_empty() {
        bail!("nothing was rolled back:\n  {}\n--force does it all the same", troubles.join("\n  "));
    }
    restore(&root, &journal)?;
    report::rolled_back(&journal, here.json)?;
    Ok(ExitCode::SUCCESS)
}

/// What keeps it from being rolled back without force.
pub(super) fn rollback_blockers(root: &SysRoot, journal: &Journal) -> Result<Vec<String>> {
    let mut troubles = Vec::new();
    for file in &journal.files {
        let there = FileContent::read(&root.path(&file.path))?;
        if there != file.before && there.as_ref() != Some(&file.after) {
            troubles.push(format!("{} was changed by somebody else since", file.path.display()));
        }
    }
    for knob in &journal.knobs {
        let there = sysctl_file::read(root, &knob.key)?;
        if there != knob.before && there != knob.after {
            troubles.push(format!(
                "{} is {there}: somebody else has set it since (it was {}, then {})",
                knob.key, knob.before, knob.after
            ));
        }
    }
    let before = journal.knobs.iter().find(|knob| knob.key == MAX).and_then(|knob| knob.before.parse::<u64>().ok());
    let count = sysctl::read_u64(root, COUNT).ok().flatten();
    if let (Some(before), Some(count)) = (before, count)
        && before != 0
        && count > before
    {
        troubles.push(format!(
            "{count} connections are in the table, and {MAX} was {before} before: new ones would be dropped"
        ));
    }
    Ok(troubles)
}

/// Restores files, knobs, directories; then forgets.
pub(super) fn restore(root: &SysRoot, journal: &Journal) -> Result<()> {
    let journal = Journal { stage: JournalStage::RollingBack, ..journal.clone() };
    journal.write(root)?;
    for file in journal.files.iter().rev() {
        let path = root.path(&file.path);
        atomic_file::remove_leftover(&path);
        match &file.before {
            _ if FileContent::read(&path)? == file.before => (),
            Some(before) => atomic_file::write(&path, &before.bytes, before.mode)?,
            None => atomic_file::remove(&path)?,
        }
    }
    // The other way round than they were set: a limit shrinks before its buckets do.
    for knob in journal.knobs.iter().rev() {
        if sysctl_file::read(root, &knob.key)? != knob.before {
            write_and_verify(root, &knob.key, &knob.before)?;
        }
    }
    for directory in &journal.directories {
        atomic_file::kill_point();
        // Somebody else may have put something there since.
        let _ = fs::remove_dir(root.path(directory));
    }
    atomic_file::remove(&paths::journal_path(root))?;
    atomic_file::remove_leftover(&paths::journal_path(root));
    for directory in [paths::STATE_DIRECTORY, "/var/lib/keepstate"] {
        let _ = fs::remove_dir(root.path(directory));
    }
    Ok(())
}

/// Tells what was applied.
pub(super) fn status(here: &RootArgs) -> Result<ExitCode> {
    let root = here.root()?;
    let last = fs::read_to_string(paths::last_outcome_path(&root)).ok();
    report::status(&root, Journal::read(&root)?.as_ref(), last.as_deref(), here.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
