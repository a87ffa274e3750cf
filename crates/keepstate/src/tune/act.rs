//! The deeds: plan, apply, verify, roll back, tell.
use super::journal::{Content, Journal, Stage};
use super::{Here, Wanted, files, goal, knob, look, page, place, watcher, write};
use anyhow::{Context, Result, bail};
use keepstate_advisor::tune::{self, COUNT, MAX, Plan};
use keepstate_linux::boot::{Boot, Effect};
use keepstate_linux::{Root, sysctl};
use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// A plan, and the files that make it last.
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) files: files::Files,
}

/// Plans what is wanted.
fn planned(wanted: &Wanted, root: &Root) -> Result<Planned> {
    let situation = look::situation(root)?;
    if situation.knobs.is_empty() {
        bail!(
            "{} has no knobs of connection tracking: load the module (modprobe nf_conntrack), or look into the namespace where it is used",
            root.path("/proc/sys/net/netfilter").display()
        );
    }
    let goal = goal::goal(wanted, root, &situation)?;
    let plan = tune::plan(&goal, &situation);
    let mut targets = plan.kept.clone();
    targets.extend(plan.changes.iter().map(|change| (change.key.clone(), change.after)));
    let files = match wanted.persist && !targets.is_empty() && plan.refusals.is_empty() {
        true => files::lasting(root, &targets)?,
        false => files::Files::default(),
    };
    Ok(Planned { plan, files })
}

/// Shows the plan.
pub(super) fn plan(wanted: &Wanted) -> Result<ExitCode> {
    let root = wanted.here.root()?;
    let planned = planned(wanted, &root)?;
    page::plan(&root, &planned, wanted.persist, wanted.here.json)?;
    Ok(if planned.plan.refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Carries the plan out.
pub(super) fn apply(wanted: &Wanted, confirm_within: Option<u64>) -> Result<ExitCode> {
    let root = wanted.here.root()?;
    let planned = planned(wanted, &root)?;
    let before = Journal::read(&root)?;
    if before.as_ref().is_some_and(|journal| journal.stage == Stage::RollingBack) {
        bail!("a rollback was cut short: finish it first, with keepstate tune rollback");
    }
    page::plan(&root, &planned, wanted.persist, wanted.here.json)?;
    if !planned.plan.refusals.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let files = files_to_write(&root, &planned)?;
    if planned.plan.changes.is_empty() && files.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut journal = Journal::begin(before, now());
    for (path, before, after) in &files {
        journal.make_way(&root, path);
        journal.file(path, before.clone(), after.clone());
    }
    for change in &planned.plan.changes {
        let value = knob::read(&root, &change.key)?;
        journal.knob(&change.key, &value, &change.after.to_string());
    }
    journal.confirm_until = confirm_within.map(|seconds| now().saturating_add(seconds));
    journal.write(&root)?;
    // Before the first deed: whatever happens to this process or to who has begun it, somebody waits.
    if let Some(seconds) = confirm_within {
        watcher::begin(&journal.id, seconds)?;
    }
    carry_out(&root, &planned.plan, &files).context("cut short: keepstate tune rollback puts back what was changed")?;
    journal.stage = Stage::Applied;
    journal.write(&root)?;
    if !wanted.here.json {
        page::applied(&journal, confirm_within)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the files, then sets the knobs.
fn carry_out(root: &Root, plan: &Plan, files: &ToWrite) -> Result<()> {
    for (path, _, after) in files {
        write::file(&root.path(path), &after.octets, after.mode)?;
    }
    for change in &plan.changes {
        set(root, &change.key, &change.after.to_string())?;
    }
    Ok(())
}

/// Files whose content is not there yet: path on a running machine, what is there, what will be.
type ToWrite = Vec<(std::path::PathBuf, Option<Content>, Content)>;

fn files_to_write(root: &Root, planned: &Planned) -> Result<ToWrite> {
    let mut wanted = Vec::new();
    for (path, text, _) in &planned.files.files {
        let there = Content::at(&root.path(path))?;
        let after = Content { octets: text.clone().into_bytes(), mode: 0o644 };
        if there.as_ref() != Some(&after) {
            wanted.push((path.clone(), there, after));
        }
    }
    Ok(wanted)
}

/// Writes a knob and reads it back.
fn set(root: &Root, key: &str, value: &str) -> Result<()> {
    write::step();
    let hint =
        "writing it needs root in the initial network namespace (CAP_NET_ADMIN); in a container, set it on the host";
    knob::write(root, key, value).with_context(|| format!("{key}={value}: {hint}"))?;
    write::step();
    let there = knob::read(root, key)?;
    if there != value {
        bail!(
            "{key} was set to {value}, and is {there}: somebody else writes it too, or the kernel took another value"
        );
    }
    Ok(())
}

/// Is everything as it was applied?
pub(super) fn verify(here: &Here) -> Result<ExitCode> {
    let root = here.root()?;
    let Some(journal) = Journal::read(&root)? else {
        bail!("nothing was applied: there is no {}", place::journal(&root).display());
    };
    let mut checks = Vec::new();
    if journal.stage != Stage::Applied {
        checks.push((
            format!("{:?}", journal.stage),
            false,
            "it was cut short: keepstate tune rollback, or apply again".to_owned(),
        ));
    }
    for knob in &journal.knobs {
        let there = knob::read(&root, &knob.key).unwrap_or_else(|error| error.to_string());
        let good = there == knob.after;
        checks.push((
            knob.key.clone(),
            good,
            if good { format!("is {there}") } else { format!("is {there}, not {}", knob.after) },
        ));
    }
    for file in &journal.files {
        let good = Content::at(&root.path(&file.path))?.as_ref() == Some(&file.after);
        let what = if good { "is as it was written" } else { "was changed or removed since" };
        checks.push((file.path.display().to_string(), good, what.to_owned()));
    }
    if journal.files.iter().any(|file| file.path.starts_with("/etc/sysctl.d")) {
        let boot = Boot::read(&root)?;
        for (key, value) in lasting_values(&journal) {
            let (good, what) = match boot.standing(&key) {
                Some(standing) if standing.value.trim() == value && standing.effect == Effect::Always => {
                    (true, format!("{value} after the next boot, by {}", standing.winner))
                }
                Some(standing) if standing.value.trim() == value && standing.effect == Effect::OnlyIfModuleLoaded => {
                    (true, format!("{value} as soon as the module is loaded, by {}", standing.winner))
                }
                Some(standing) => (
                    false,
                    format!("{} after the next boot, by {}: {:?}", standing.value, standing.winner, standing.effect),
                ),
                None => (false, "no file sets it at boot".to_owned()),
            };
            checks.push((key, good, what));
        }
    }
    let good = checks.iter().all(|(_, good, _)| *good);
    page::checks(&checks, here.json)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What our own sysctl files say.
fn lasting_values(journal: &Journal) -> BTreeMap<String, String> {
    let ours = journal.files.iter().filter(|file| file.path.starts_with("/etc/sysctl.d"));
    let lines = ours.flat_map(|file| {
        let text = String::from_utf8_lossy(&file.after.octets).into_owned();
        let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        });
        pairs.collect::<Vec<_>>()
    });
    lines.collect()
}

/// Puts everything back.
pub(super) fn rollback(here: &Here, force: bool) -> Result<ExitCode> {
    let root = here.root()?;
    let Some(journal) = Journal::read(&root)? else {
        bail!("nothing to roll back: there is no {}", place::journal(&root).display());
    };
    let troubles = troubles(&root, &journal)?;
    if !force && !troubles.is_empty() {
        bail!("nothing was rolled back:\n  {}\n--force does it all the same", troubles.join("\n  "));
    }
    put_back(&root, &journal)?;
    page::rolled_back(&journal, here.json)?;
    Ok(ExitCode::SUCCESS)
}

/// What keeps it from being rolled back without force.
pub(super) fn troubles(root: &Root, journal: &Journal) -> Result<Vec<String>> {
    let mut troubles = Vec::new();
    for file in &journal.files {
        let there = Content::at(&root.path(&file.path))?;
        if there != file.before && there.as_ref() != Some(&file.after) {
            troubles.push(format!("{} was changed by somebody else since", file.path.display()));
        }
    }
    for knob in &journal.knobs {
        let there = knob::read(root, &knob.key)?;
        if there != knob.before && there != knob.after {
            troubles.push(format!(
                "{} is {there}: somebody else has set it since (it was {}, then {})",
                knob.key, knob.before, knob.after
            ));
        }
    }
    let before = journal.knobs.iter().find(|knob| knob.key == MAX).and_then(|knob| knob.before.parse::<u64>().ok());
    let count = sysctl::number(root, COUNT).ok().flatten();
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
pub(super) fn put_back(root: &Root, journal: &Journal) -> Result<()> {
    let journal = Journal { stage: Stage::RollingBack, ..journal.clone() };
    journal.write(root)?;
    for file in journal.files.iter().rev() {
        let path = root.path(&file.path);
        write::sweep(&path);
        match &file.before {
            _ if Content::at(&path)? == file.before => (),
            Some(before) => write::file(&path, &before.octets, before.mode)?,
            None => write::remove(&path)?,
        }
    }
    // The other way round than they were set: a limit shrinks before its buckets do.
    for knob in journal.knobs.iter().rev() {
        if knob::read(root, &knob.key)? != knob.before {
            set(root, &knob.key, &knob.before)?;
        }
    }
    for directory in &journal.directories {
        write::step();
        // Somebody else may have put something there since.
        let _ = fs::remove_dir(root.path(directory));
    }
    write::remove(&place::journal(root))?;
    write::sweep(&place::journal(root));
    for directory in [place::STATE, "/var/lib/keepstate"] {
        let _ = fs::remove_dir(root.path(directory));
    }
    Ok(())
}

/// Tells what was applied.
pub(super) fn status(here: &Here) -> Result<ExitCode> {
    let root = here.root()?;
    let last = fs::read_to_string(place::last(&root)).ok();
    page::status(&root, Journal::read(&root)?.as_ref(), last.as_deref(), here.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
