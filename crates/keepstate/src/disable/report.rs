//! An audit as text and as JSON.
use super::verdict::{DisableVerdict, breaks_when_disabled};
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use keepstate_advisor::units::Count;
use keepstate_linux::ct_users::kernel_module::CtModuleState;
use keepstate_linux::ct_users::{CtUser, CtUserAudit, NotChecked};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Schema name and version.
pub const SCHEMA: &str = "keepstate.disable/1";

/// The text: the verdict, what depends on tracking and where, what would break, what could not be checked.
pub fn text(audit: &CtUserAudit, verdict: DisableVerdict) -> String {
    let mut text = format!("{}\n{}\n", colored_sentence(verdict), tracking_state(&audit.module_state));
    for namespace in &audit.namespaces {
        let depends: Vec<&CtUser> = namespace.ct_users.iter().filter(|dependent| !dependent.kind.is_idle()).collect();
        if depends.is_empty() {
            continue;
        }
        let connections =
            namespace.connections.map_or(String::new(), |count| format!(", {} connections", Count(count)));
        let _ = writeln!(text, "\nIn {} (net:[{}]{connections}):", namespace.name, namespace.inode);
        rows(&mut text, &depends);
    }
    let machine: Vec<&CtUser> = audit.host_wide.iter().collect();
    if !machine.is_empty() {
        text.push_str("\nOn the machine:\n");
        rows(&mut text, &machine);
    }
    let breaks: BTreeMap<&str, &str> = audit
        .ct_users()
        .filter(|(_, dependent)| breaks_when_disabled(dependent))
        .map(|(_, dependent)| (dependent.kind.name(), dependent.kind.impact()))
        .collect();
    if !breaks.is_empty() {
        text.push_str("\nWithout tracking:\n");
        table(&mut text, breaks.iter().map(|(need, breaks)| vec![need.to_string(), breaks.to_string()]));
    }
    let idle: Vec<Vec<String>> = audit
        .ct_users()
        .filter(|(_, dependent)| dependent.kind.is_idle())
        .map(|(namespace, dependent)| {
            let place = format!("{}: {}", namespace.unwrap_or("the machine"), location(dependent));
            vec![place, dependent.description.clone(), dependent.kind.impact().to_owned()]
        })
        .collect();
    if !idle.is_empty() {
        text.push_str("\nNot affected:\n");
        first_rows(&mut text, idle);
    }
    let unseen = audit.not_checked().map(|(namespace, NotChecked { what, why })| {
        vec![namespace.map_or(what.clone(), |namespace| format!("{what} in {namespace}")), why.clone()]
    });
    let unseen: Vec<Vec<String>> = unseen.collect();
    if !unseen.is_empty() {
        text.push_str("\nNot checked:\n");
        first_rows(&mut text, unseen);
    }
    text.push_str(match verdict {
        DisableVerdict::Safe => "\nNext: keepstate disable --unload (commands to unload it), or keepstate disable --ports tcp/PORT (exempt single services).\n",
        _ => "\nNext: keepstate disable --ports tcp/PORT (exempt single services: prints the rules first).\n",
    });
    text
}

fn colored_sentence(verdict: DisableVerdict) -> String {
    let colour = match verdict {
        DisableVerdict::Safe => AnsiColor::Green,
        DisableVerdict::InUse(_) => AnsiColor::Red,
        DisableVerdict::Unknown(_) => AnsiColor::Yellow,
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    format!("{style}{}{style:#}", verdict.sentence())
}

/// The state of the module in a sentence.
pub fn tracking_state(tracking: &CtModuleState) -> String {
    match tracking {
        CtModuleState::Absent => "nf_conntrack is not loaded: nothing is tracked.".into(),
        CtModuleState::BuiltIn => {
            "nf_conntrack is built into this kernel: it cannot be unloaded, and tracks only where a rule uses it."
                .into()
        }
        CtModuleState::Module { references, holders } => {
            let references = references.map_or("an unknown number of".into(), |count| count.to_string());
            let holders = if holders.is_empty() { "no module".into() } else { holders.join(", ") };
            format!("nf_conntrack is a module with {references} references, used by {holders}.")
        }
    }
}

fn location(dependent: &CtUser) -> String {
    dependent.number.map_or(dependent.location.clone(), |number| format!("{} #{number}", dependent.location))
}

fn rows(text: &mut String, dependents: &[&CtUser]) {
    let row = |dependent: &&CtUser| {
        let sure =
            if breaks_when_disabled(dependent) { String::new() } else { format!(" ({})", dependent.confidence.name()) };
        let owner = dependent.owner.map_or(String::new(), |owner| format!(" [{owner}]"));
        vec![dependent.kind.name().into(), location(dependent), format!("{}{owner}{sure}", dependent.description)]
    };
    first_rows(text, dependents.iter().map(row).collect());
}

/// The first rows: a node can have ten thousand service rules.
fn first_rows(text: &mut String, rows: Vec<Vec<String>>) {
    let more = rows.len().saturating_sub(MAX_ROWS);
    table(text, rows.into_iter().take(MAX_ROWS));
    if more > 0 {
        let _ = writeln!(text, "  and {} more: --json lists all", Count(more as u64));
    }
}

fn table(text: &mut String, rows: impl Iterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.add_rows(rows);
    for line in table.lines() {
        let _ = writeln!(text, " {}", line.trim_end());
    }
}

/// The JSON document: everything.
pub fn json(audit: &CtUserAudit, verdict: DisableVerdict) -> Value {
    let (state, references, holders) = match &audit.module_state {
        CtModuleState::Absent => ("absent", None, Vec::new()),
        CtModuleState::BuiltIn => ("built-in", None, Vec::new()),
        CtModuleState::Module { references, holders } => ("module", *references, holders.clone()),
    };
    let namespaces: Vec<Value> = audit
        .namespaces
        .iter()
        .map(|one| json!({ "name": one.name, "inode": one.inode, "connections": one.connections }))
        .collect();
    let dependents: Vec<Value> =
        audit.ct_users().map(|(namespace, dependent)| dependent_json(namespace, dependent)).collect();
    let unseen: Vec<Value> = audit
        .not_checked()
        .map(|(namespace, NotChecked { what, why })| json!({ "namespace": namespace, "what": what, "why": why }))
        .collect();
    json!({
        "schema": SCHEMA,
        "may_be_disabled": verdict.name(),
        "tracking": { "state": state, "references": references, "holders": holders },
        "namespaces": namespaces,
        "dependents": dependents,
        "unseen": unseen,
    })
}

fn dependent_json(namespace: Option<&str>, dependent: &CtUser) -> Value {
    json!({
        "need": dependent.kind.name(),
        "by": dependent.listed_by,
        "namespace": namespace,
        "place": dependent.location,
        "number": dependent.number,
        "what": dependent.description,
        "owner": dependent.owner,
        "sure": dependent.confidence.name(),
        "idle": dependent.kind.is_idle(),
        "breaks": dependent.kind.impact(),
    })
}

/// Limit on the rows of one kind.
const MAX_ROWS: usize = 25;
