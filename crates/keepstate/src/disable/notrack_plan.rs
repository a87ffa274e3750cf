//! `--ports` and `--remove`: notrack rules for single services. Checks the rules of one namespace, writes the file or the reasons
//! against it, and loads or removes it if requested. It never deletes an entry of the table.
use super::args::Disable;
use super::mgmt_port::{self, MgmtPort};
use super::notrack_ruleset::{NotrackFile, TABLE, delete_commands};
use super::output;
use super::report::SCHEMA;
use super::rule_conflict::{NotrackRequest, NotrackScope, RuleConflicts};
use super::service::ServicePort;
use crate::netns_arg::find_netns;
use crate::stderr::note;
use anyhow::{Context, Result, bail};
use keepstate_linux::command;
use keepstate_linux::ct_users::{self, NetnsInspection};
use keepstate_linux::netns::{self, Netns};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use tracing::debug;

/// The rules to write, and what was found in the namespace.
struct NotrackPlan {
    requests: Vec<NotrackRequest>,
    mgmt_port: Option<ServicePort>,
    conflicts: RuleConflicts,
    unchecked: Vec<String>,
}

/// `--ports`: the file, or the reasons against it.
pub fn run_ports(asked: &Disable) -> Result<ExitCode> {
    let namespace = open_namespace(asked)?;
    debug!("reading the rules of {}", namespace.name);
    let inspection = ct_users::inspect_netns(&namespace);
    let plan = build_plan(asked, &inspection);
    let refusals = plan.refusal_lines(asked.force);
    let fixes = &plan.conflicts.fixes;
    for forbids in &plan.conflicts.ineffective {
        note(format!("{} will have no effect on packets of {}: {}", forbids.location, forbids.service, forbids.rule));
    }
    for fix in fixes {
        let sure = if fix.certain { "would be dropped" } else { "may be dropped" };
        note(format!("{} {sure} in {} by rules that match the state:", fix.packets(), fix.location));
        fix.rules.iter().for_each(|rule| note(format!("    {rule}")));
        note(format!("  fix it first: {}", fix.command));
    }
    for input in &plan.unchecked {
        note(format!("not checked: {input}"));
    }
    let file = NotrackFile { requests: &plan.requests, mgmt_port: plan.mgmt_port, fixes, unchecked: &plan.unchecked };
    let text = file.text();
    let code = match (refusals.is_empty() && fixes.is_empty(), plan.unchecked.is_empty()) {
        (false, _) => 1,
        (true, false) => 3,
        (true, true) => 0,
    };
    let mut applied = false;
    if !refusals.is_empty() {
        refusals.iter().for_each(note);
    } else if asked.apply && code != 0 && !asked.force {
        note("nothing was loaded, for the reasons above; --force loads it anyway");
    } else if asked.apply {
        load_nft(&namespace, &text)?;
        applied = true;
        note(format!("loaded as table inet {TABLE} in {}, until the next boot; --remove removes it", namespace.name));
    }
    if asked.json {
        output::print_json(&plan.json(&refusals, &text, applied))?;
    } else if refusals.is_empty() && (!asked.apply || asked.file.is_some()) {
        output::write_text(asked.file.as_deref(), &text)?;
    }
    if refusals.is_empty() {
        note("existing entries stay until they time out; these commands delete only them:");
        delete_commands(&asked.ports).iter().for_each(|line| note(format!("  {line}")));
    }
    Ok(ExitCode::from(if applied { 0 } else { code }))
}

/// `--remove`: removes the table, if it exists.
pub fn run_remove(asked: &Disable) -> Result<ExitCode> {
    let namespace = open_namespace(asked)?;
    // Declared first, because deleting a table that does not exist is an error.
    load_nft(&namespace, &format!("table inet {TABLE}\ndelete table inet {TABLE}\n"))?;
    note(format!("table inet {TABLE} removed from {}", namespace.name));
    Ok(ExitCode::SUCCESS)
}

fn open_namespace(asked: &Disable) -> Result<Netns> {
    match &asked.netns {
        Some(name) => Ok(find_netns(name)?),
        None => Ok(netns::current()?),
    }
}

fn build_plan(asked: &Disable, inspection: &NetnsInspection) -> NotrackPlan {
    let reach = if asked.server_only { NotrackScope::LocalOnly } else { NotrackScope::All };
    let mut requests: Vec<NotrackRequest> =
        asked.ports.iter().map(|service| NotrackRequest { service: *service, scope: reach }).collect();
    requests.sort_by_key(|request| request.service);
    requests.dedup();
    let lifeline = match asked.lifeline {
        Some(MgmtPort::None) => None,
        Some(MgmtPort::Service(service)) => Some(service),
        None => {
            let found = mgmt_port::ssh_session_port();
            if found.is_none() {
                note(
                    "no lifeline: this is not an SSH session; add one with --lifeline tcp/22, or silence this with --lifeline none",
                );
            }
            found
        }
    };
    // If the management port is in --ports it needs no second rule.
    let lifeline = lifeline.filter(|service| !asked.ports.contains(service));
    let of_lifeline = lifeline.map(|service| NotrackRequest { service, scope: NotrackScope::LocalOnly });
    let all: Vec<NotrackRequest> = requests.iter().cloned().chain(of_lifeline).collect();
    let obstacles = RuleConflicts::find(&all, &inspection.tables, &inspection.ct_users);
    let of_rules = inspection.not_checked.iter().filter(|input| !input.what.starts_with("traffic control"));
    let unchecked = of_rules.map(|input| format!("{}: {}", input.what, input.why)).collect();
    NotrackPlan { requests, mgmt_port: lifeline, conflicts: obstacles, unchecked }
}

impl NotrackPlan {
    /// The reasons for a refusal. `force` ignores rules that may match the packets among others, but never one that names the port.
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
        let all_served = self.requests.iter().all(|request| request.scope == NotrackScope::LocalOnly);
        if self.conflicts.blocking.iter().any(|forbids| !forbids.names_port) && !force {
            if !all_served {
                lines.push(
                    "if the services run on this machine, --server-only leaves forwarded connections tracked".into(),
                );
            }
            lines.push("--force ignores rules that do not name the port".into());
        }
        lines
    }

    fn json(&self, refusals: &[String], text: &str, applied: bool) -> Value {
        let services: Vec<String> = self.requests.iter().map(|request| request.service.to_string()).collect();
        let rules = |list: &[super::rule_conflict::ConflictingRule]| -> Vec<Value> {
            let one = |rule: &super::rule_conflict::ConflictingRule| json!({ "service": rule.service.to_string(), "place": rule.location, "rule": rule.rule, "names_it": rule.names_port });
            list.iter().map(one).collect()
        };
        let fixes = self.conflicts.fixes.iter().map(|fix| {
            json!({ "packets": fix.packets(), "place": fix.location, "rules": fix.rules, "command": fix.command, "certain": fix.certain })
        });
        json!({
            "schema": SCHEMA,
            "services": services,
            "lifeline": self.mgmt_port.map(|service| service.to_string()),
            "refused": !refusals.is_empty(),
            "forbids": rules(&self.conflicts.blocking),
            "losses": rules(&self.conflicts.ineffective),
            "mends": fixes.collect::<Vec<Value>>(),
            "unseen": self.unchecked,
            "file": refusals.is_empty().then_some(text),
            "applied": applied,
            "deletions": delete_commands(&self.requests.iter().map(|request| request.service).collect::<Vec<_>>()),
        })
    }
}

/// Loads a file with nft, completely or not at all.
fn load_nft(namespace: &Netns, text: &str) -> Result<()> {
    let Some(nft) = command::find_in_path("nft") else {
        bail!("nft is not installed (needed to load the rules): install nftables")
    };
    let run = || -> Result<()> {
        let mut child = Command::new(&nft)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", nft.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // nft may stop reading at an error, which it then prints.
            let _ = stdin.write_all(text.as_bytes());
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let hint = if stderr.contains("ermitted") || stderr.contains("ermission") {
                "; run as root (CAP_NET_ADMIN)"
            } else {
                ""
            };
            bail!("nft rejected the rules, nothing was loaded: {}{hint}", stderr.trim());
        }
        Ok(())
    };
    if namespace.is_current { run() } else { namespace.enter(run).context("run as root (CAP_SYS_ADMIN)")? }
}
