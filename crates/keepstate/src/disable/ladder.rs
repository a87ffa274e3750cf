//! The first rung: services that are not tracked. Looks at the rules of one namespace, writes the file or says why not, loads it or
//! takes it away where that is asked for. It never deletes an entry of the table.
use super::lifeline::{self, Lifeline};
use super::notrack::{File, TABLE, deletions};
use super::obstacle::{Obstacles, Reach, Wish};
use super::report::SCHEMA;
use super::service::Service;
use super::{Disable, output};
use crate::notes::note;
use anyhow::{Context, Result, bail};
use keepstate_linux::dependents::{self, Inspection, program};
use keepstate_linux::namespace::{self, Namespace};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use tracing::debug;

/// What was found out before anything is written.
struct Plan {
    wishes: Vec<Wish>,
    lifeline: Option<Service>,
    obstacles: Obstacles,
    unseen: Vec<String>,
}

/// `--ports`: the file, or the reasons against it.
pub fn notrack(asked: &Disable) -> Result<ExitCode> {
    let namespace = namespace(asked)?;
    debug!("looking at the rules of {}", namespace.name);
    let inspection = dependents::entered(&namespace);
    let plan = plan(asked, &inspection);
    let refusals = plan.refusals(asked.force);
    let mends = &plan.obstacles.mends;
    for forbids in &plan.obstacles.losses {
        note(format!("{} will have no effect on packets of {}: {}", forbids.place, forbids.service, forbids.rule));
    }
    for mend in mends {
        let sure = if mend.certain { "would be dropped" } else { "may be dropped" };
        note(format!("{} {sure} in {}, which looks at the state:", mend.packets(), mend.place));
        mend.rules.iter().for_each(|rule| note(format!("    {rule}")));
        note(format!("  mend it first: {}", mend.command));
    }
    for unseen in &plan.unseen {
        note(format!("not checked: {unseen}"));
    }
    let file = File { wishes: &plan.wishes, lifeline: plan.lifeline, mends, unseen: &plan.unseen };
    let text = file.text();
    let code = match (refusals.is_empty() && mends.is_empty(), plan.unseen.is_empty()) {
        (false, _) => 1,
        (true, false) => 3,
        (true, true) => 0,
    };
    let mut applied = false;
    if !refusals.is_empty() {
        refusals.iter().for_each(note);
    } else if asked.apply && code != 0 && !asked.force {
        note("nothing was loaded: see above; --force loads it nevertheless");
    } else if asked.apply {
        load(&namespace, &text)?;
        applied = true;
        note(format!(
            "loaded as table inet {TABLE} in {}, until the next boot; --remove takes it away",
            namespace.name
        ));
    }
    if asked.json {
        output::json(&plan.json(&refusals, &text, applied))?;
    } else if refusals.is_empty() && (!asked.apply || asked.file.is_some()) {
        output::file(asked.file.as_deref(), &text)?;
    }
    if refusals.is_empty() {
        note(
            "connections that are tracked already stay in the table until they time out; these delete them, no others:",
        );
        deletions(&asked.ports).iter().for_each(|line| note(format!("  {line}")));
    }
    Ok(ExitCode::from(if applied { 0 } else { code }))
}

/// `--remove`: takes the table away, if it is there.
pub fn remove(asked: &Disable) -> Result<ExitCode> {
    let namespace = namespace(asked)?;
    // Declaring it first makes deleting it right where it is not there.
    load(&namespace, &format!("table inet {TABLE}\ndelete table inet {TABLE}\n"))?;
    note(format!("table inet {TABLE} is not in {} any more", namespace.name));
    Ok(ExitCode::SUCCESS)
}

fn namespace(asked: &Disable) -> Result<Namespace> {
    match &asked.netns {
        Some(name) => {
            let hint = || {
                format!("no network namespace {name:?}: `ip netns` lists the names, and a process number does as well")
            };
            Ok(namespace::named(name).with_context(hint)?)
        }
        None => Ok(namespace::ours()?),
    }
}

fn plan(asked: &Disable, inspection: &Inspection) -> Plan {
    let reach = if asked.server_only { Reach::Served } else { Reach::All };
    let mut wishes: Vec<Wish> = asked.ports.iter().map(|service| Wish { service: *service, reach }).collect();
    wishes.sort_by_key(|wish| wish.service);
    wishes.dedup();
    let lifeline = match asked.lifeline {
        Some(Lifeline::None) => None,
        Some(Lifeline::Service(service)) => Some(service),
        None => {
            let found = lifeline::of_session();
            if found.is_none() {
                note(
                    "no lifeline: this is no SSH session; --lifeline tcp/22 adds one, --lifeline none says that none is wanted",
                );
            }
            found
        }
    };
    // Who asks not to track the management port anyway needs no second rule for it.
    let lifeline = lifeline.filter(|service| !asked.ports.contains(service));
    let of_lifeline = lifeline.map(|service| Wish { service, reach: Reach::Served });
    let all: Vec<Wish> = wishes.iter().cloned().chain(of_lifeline).collect();
    let obstacles = Obstacles::to(&all, &inspection.tables, &inspection.dependents);
    let of_rules = inspection.unseen.iter().filter(|unseen| !unseen.what.starts_with("traffic control"));
    let unseen = of_rules.map(|unseen| format!("{}: {}", unseen.what, unseen.why)).collect();
    Plan { wishes, lifeline, obstacles, unseen }
}

impl Plan {
    /// Why it is refused. `force` is for rules that may touch the packets among others; one that names the port is never passed over.
    fn refusals(&self, force: bool) -> Vec<String> {
        let forbids = self.obstacles.forbids.iter().filter(|forbids| forbids.names_it || !force);
        let lines = forbids.map(|forbids| {
            let touches = if forbids.names_it { "translates" } else { "may translate" };
            format!(
                "refused: {} {touches} packets of {}, which needs tracking: {}",
                forbids.place, forbids.service, forbids.rule
            )
        });
        let mut lines: Vec<String> = lines.collect();
        let all_served = self.wishes.iter().all(|wish| wish.reach == Reach::Served);
        if self.obstacles.forbids.iter().any(|forbids| !forbids.names_it) && !force {
            if !all_served {
                lines.push(
                    "if the services are on this machine, --server-only leaves all that only passes through tracked"
                        .into(),
                );
            }
            lines.push("--force passes over rules that do not name the port".into());
        }
        lines
    }

    fn json(&self, refusals: &[String], text: &str, applied: bool) -> Value {
        let services: Vec<String> = self.wishes.iter().map(|wish| wish.service.to_string()).collect();
        let rules = |list: &[super::obstacle::Forbids]| -> Vec<Value> {
            let one = |rule: &super::obstacle::Forbids| json!({ "service": rule.service.to_string(), "place": rule.place, "rule": rule.rule, "names_it": rule.names_it });
            list.iter().map(one).collect()
        };
        let mends = self.obstacles.mends.iter().map(|mend| {
            json!({ "packets": mend.packets(), "place": mend.place, "rules": mend.rules, "command": mend.command, "certain": mend.certain })
        });
        json!({
            "schema": SCHEMA,
            "services": services,
            "lifeline": self.lifeline.map(|service| service.to_string()),
            "refused": !refusals.is_empty(),
            "forbids": rules(&self.obstacles.forbids),
            "losses": rules(&self.obstacles.losses),
            "mends": mends.collect::<Vec<Value>>(),
            "unseen": self.unseen,
            "file": refusals.is_empty().then_some(text),
            "applied": applied,
            "deletions": deletions(&self.wishes.iter().map(|wish| wish.service).collect::<Vec<_>>()),
        })
    }
}

/// Hands a file to nft, which takes all of it or nothing.
fn load(namespace: &Namespace, text: &str) -> Result<()> {
    let Some(nft) = program::find("nft") else { bail!("nft is not installed; it loads the rules: install nftables") };
    let run = || -> Result<()> {
        let mut child = Command::new(&nft)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", nft.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may have refused before the end; then its own words tell why.
            let _ = stdin.write_all(text.as_bytes());
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let hint = if said.contains("ermitted") || said.contains("ermission") {
                "; run as root (CAP_NET_ADMIN)"
            } else {
                ""
            };
            bail!("nft took nothing of it: {}{hint}", said.trim());
        }
        Ok(())
    };
    if namespace.is_ours { run() } else { namespace.enter(run).context("run as root (CAP_SYS_ADMIN)")? }
}
