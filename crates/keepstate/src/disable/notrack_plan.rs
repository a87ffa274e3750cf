//! The first rung: services that are not tracked. Looks at the rules of one namespace, writes the file or says why not, loads it or
//! takes it away where that is asked for. It never deletes an entry of the table.
use super::mgmt_port::{self, MgmtPort};
use super::notrack_ruleset::{NotrackFile, TABLE, delete_commands};
use super::report::SCHEMA;
use super::rule_conflict::{NotrackRequest, NotrackScope, RuleConflicts};
use super::service::ServicePort;
use super::{Disable, output};
use crate::stderr::note;
use anyhow::{Context, Result, bail};
use keepstate_linux::command;
use keepstate_linux::ct_users::{self, NetnsInspection};
use keepstate_linux::netns::{self, Netns};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use tracing::debug;

/// What was found out before anything is written.
struct NotrackPlan {
    requests: Vec<NotrackRequest>,
    mgmt_port: Option<ServicePort>,
    conflicts: RuleConflicts,
    unchecked: Vec<String>,
}

/// `--ports`: the file, or the reasons against it.
pub fn run_ports(asked: &Disable) -> Result<ExitCode> {
    let namespace = open_namespace(asked)?;
    debug!("looking at the rules of {}", namespace.name);
    let inspection = ct_users::inspect_netns(&namespace);
    let plan = build_plan(asked, &inspection);
    let refusals = plan.refusal_lines(asked.force);
    let mends = &plan.conflicts.fixes;
    for forbids in &plan.conflicts.ineffective {
        note(format!("{} will have no effect on packets of {}: {}", forbids.location, forbids.service, forbids.rule));
    }
    for mend in mends {
        let sure = if mend.certain { "would be dropped" } else { "may be dropped" };
        note(format!("{} {sure} in {}, which looks at the state:", mend.packets(), mend.location));
        mend.rules.iter().for_each(|rule| note(format!("    {rule}")));
        note(format!("  mend it first: {}", mend.command));
    }
    for unseen in &plan.unchecked {
        note(format!("not checked: {unseen}"));
    }
    let file =
        NotrackFile { requests: &plan.requests, mgmt_port: plan.mgmt_port, fixes: mends, unchecked: &plan.unchecked };
    let text = file.text();
    let code = match (refusals.is_empty() && mends.is_empty(), plan.unchecked.is_empty()) {
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
        load_nft(&namespace, &text)?;
        applied = true;
        note(format!(
            "loaded as table inet {TABLE} in {}, until the next boot; --remove takes it away",
            namespace.name
        ));
    }
    if asked.json {
        output::print_json(&plan.json(&refusals, &text, applied))?;
    } else if refusals.is_empty() && (!asked.apply || asked.file.is_some()) {
        output::write_text(asked.file.as_deref(), &text)?;
    }
    if refusals.is_empty() {
        note(
            "connections that are tracked already stay in the table until they time out; these delete them, no others:",
        );
        delete_commands(&asked.ports).iter().for_each(|line| note(format!("  {line}")));
    }
    Ok(ExitCode::from(if applied { 0 } else { code }))
}

/// `--remove`: takes the table away, if it is there.
pub fn run_remove(asked: &Disable) -> Result<ExitCode> {
    let namespace = open_namespace(asked)?;
    // Declaring it first makes deleting it right where it is not there.
    load_nft(&namespace, &format!("table inet {TABLE}\ndelete table inet {TABLE}\n"))?;
    note(format!("table inet {TABLE} is not in {} any more", namespace.name));
    Ok(ExitCode::SUCCESS)
}

fn open_namespace(asked: &Disable) -> Result<Netns> {
    match &asked.netns {
        Some(name) => {
            let hint = || {
                format!("no network namespace {name:?}: `ip netns` lists the names, and a process number does as well")
            };
            Ok(netns::find(name).with_context(hint)?)
        }
        None => Ok(netns::current()?),
    }
}

fn build_plan(asked: &Disable, inspection: &NetnsInspection) -> NotrackPlan {
    let reach = if asked.server_only { NotrackScope::LocalOnly } else { NotrackScope::All };
    let mut wishes: Vec<NotrackRequest> =
        asked.ports.iter().map(|service| NotrackRequest { service: *service, scope: reach }).collect();
    wishes.sort_by_key(|wish| wish.service);
    wishes.dedup();
    let lifeline = match asked.lifeline {
        Some(MgmtPort::None) => None,
        Some(MgmtPort::Service(service)) => Some(service),
        None => {
            let found = mgmt_port::ssh_session_port();
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
    let of_lifeline = lifeline.map(|service| NotrackRequest { service, scope: NotrackScope::LocalOnly });
    let all: Vec<NotrackRequest> = wishes.iter().cloned().chain(of_lifeline).collect();
    let obstacles = RuleConflicts::find(&all, &inspection.tables, &inspection.ct_users);
    let of_rules = inspection.not_checked.iter().filter(|unseen| !unseen.what.starts_with("traffic control"));
    let unseen = of_rules.map(|unseen| format!("{}: {}", unseen.what, unseen.why)).collect();
    NotrackPlan { requests: wishes, mgmt_port: lifeline, conflicts: obstacles, unchecked: unseen }
}

impl NotrackPlan {
    /// Why it is refused. `force` is for rules that may touch the packets among others; one that names the port is never passed over.
    fn refusal_lines(&self, force: bool) -> Vec<String> {
        let forbids = self.conflicts.blocking.iter().filter(|forbids| forbids.names_port || !force);
        let lines = forbids.map(|forbids| {
            let touches = if forbids.names_port { "translates" } else { "may translate" };
            format!(
                "refused: {} {touches} packets of {}, which needs tracking: {}",
                forbids.location, forbids.service, forbids.rule
            )
        });
        let mut lines: Vec<String> = lines.collect();
        let all_served = self.requests.iter().all(|wish| wish.scope == NotrackScope::LocalOnly);
        if self.conflicts.blocking.iter().any(|forbids| !forbids.names_port) && !force {
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
        let services: Vec<String> = self.requests.iter().map(|wish| wish.service.to_string()).collect();
        let rules = |list: &[super::rule_conflict::ConflictingRule]| -> Vec<Value> {
            let one = |rule: &super::rule_conflict::ConflictingRule| json!({ "service": rule.service.to_string(), "place": rule.location, "rule": rule.rule, "names_it": rule.names_port });
            list.iter().map(one).collect()
        };
        let mends = self.conflicts.fixes.iter().map(|mend| {
            json!({ "packets": mend.packets(), "place": mend.location, "rules": mend.rules, "command": mend.command, "certain": mend.certain })
        });
        json!({
            "schema": SCHEMA,
            "services": services,
            "lifeline": self.mgmt_port.map(|service| service.to_string()),
            "refused": !refusals.is_empty(),
            "forbids": rules(&self.conflicts.blocking),
            "losses": rules(&self.conflicts.ineffective),
            "mends": mends.collect::<Vec<Value>>(),
            "unseen": self.unchecked,
            "file": refusals.is_empty().then_some(text),
            "applied": applied,
            "deletions": delete_commands(&self.requests.iter().map(|wish| wish.service).collect::<Vec<_>>()),
        })
    }
}

/// Hands a file to nft, which takes all of it or nothing.
fn load_nft(namespace: &Netns, text: &str) -> Result<()> {
    let Some(nft) = command::find_in_path("nft") else {
        bail!("nft is not installed; it loads the rules: install nftables")
    };
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
    if namespace.is_current { run() } else { namespace.enter(run).context("run as root (CAP_SYS_ADMIN)")? }
}
