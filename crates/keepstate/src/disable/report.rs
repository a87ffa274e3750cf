//! An audit as people read it, and as programs do.
use super::verdict::{Verdict, is_weighty};
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use keepstate_advisor::quantity::Count;
use keepstate_linux::dependents::module::Tracking;
use keepstate_linux::dependents::{Audit, Dependent, Unseen};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The name and version of the JSON.
pub const SCHEMA: &str = "keepstate.disable/1";

/// For people: the verdict, who depends on tracking and where, what would break, what could not be seen.
pub fn text(audit: &Audit, verdict: Verdict) -> String {
    let mut text = format!("{}\n{}\n", coloured(verdict), tracking(&audit.tracking));
    for namespace in &audit.namespaces {
        let depends: Vec<&Dependent> =
            namespace.dependents.iter().filter(|dependent| !dependent.need.is_idle()).collect();
        if depends.is_empty() {
            continue;
        }
        let connections =
            namespace.connections.map_or(String::new(), |count| format!(", {} connections", Count(count)));
        let _ = writeln!(text, "\nIn {} (net:[{}]{connections}):", namespace.name, namespace.inode);
        rows(&mut text, &depends);
    }
    let machine: Vec<&Dependent> = audit.machine.iter().collect();
    if !machine.is_empty() {
        text.push_str("\nOn the machine:\n");
        rows(&mut text, &machine);
    }
    let breaks: BTreeMap<&str, &str> = audit
        .dependents()
        .filter(|(_, dependent)| is_weighty(dependent))
        .map(|(_, dependent)| (dependent.need.name(), dependent.need.breaks()))
        .collect();
    if !breaks.is_empty() {
        text.push_str("\nWithout tracking:\n");
        table(&mut text, breaks.iter().map(|(need, breaks)| vec![need.to_string(), breaks.to_string()]));
    }
    let idle: Vec<Vec<String>> = audit
        .dependents()
        .filter(|(_, dependent)| dependent.need.is_idle())
        .map(|(namespace, dependent)| {
            let place = format!("{}: {}", namespace.unwrap_or("the machine"), place(dependent));
            vec![place, dependent.what.clone(), dependent.need.breaks().to_owned()]
        })
        .collect();
    if !idle.is_empty() {
        text.push_str("\nThese lose nothing:\n");
        some(&mut text, idle);
    }
    let unseen = audit.unseen().map(|(namespace, Unseen { what, why })| {
        vec![namespace.map_or(what.clone(), |namespace| format!("{what} in {namespace}")), why.clone()]
    });
    let unseen: Vec<Vec<String>> = unseen.collect();
    if !unseen.is_empty() {
        text.push_str("\nNot seen:\n");
        some(&mut text, unseen);
    }
    text.push_str(match verdict {
        Verdict::May => "\nNext: keepstate disable --unload says how; keepstate disable --ports tcp/PORT spares single services.\n",
        _ => "\nNext: keepstate disable --ports tcp/PORT keeps single services out of it, with a file to look at first.\n",
    });
    text
}

fn coloured(verdict: Verdict) -> String {
    let colour = match verdict {
        Verdict::May => AnsiColor::Green,
        Verdict::Depends(_) => AnsiColor::Red,
        Verdict::Unknown(_) => AnsiColor::Yellow,
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    format!("{style}{}{style:#}", verdict.sentence())
}

/// Is tracking there, and can it go?
pub fn tracking(tracking: &Tracking) -> String {
    match tracking {
        Tracking::Absent => "nf_conntrack is not loaded: nothing is tracked.".into(),
        Tracking::BuiltIn => {
            "nf_conntrack is built into this kernel: it cannot be unloaded, and tracks only where a rule asks for it."
                .into()
        }
        Tracking::Module { references, holders } => {
            let references = references.map_or("an unknown number of".into(), |count| count.to_string());
            let holders = if holders.is_empty() { "no module".into() } else { holders.join(", ") };
            format!("nf_conntrack is a module with {references} references, held by {holders}.")
        }
    }
}

fn place(dependent: &Dependent) -> String {
    dependent.number.map_or(dependent.place.clone(), |number| format!("{} #{number}", dependent.place))
}

fn rows(text: &mut String, dependents: &[&Dependent]) {
    let row = |dependent: &&Dependent| {
        let sure = if is_weighty(dependent) { String::new() } else { format!(" ({})", dependent.sure.name()) };
        let owner = dependent.owner.map_or(String::new(), |owner| format!(" [{owner}]"));
        vec![dependent.need.name().into(), place(dependent), format!("{}{owner}{sure}", dependent.what)]
    };
    some(text, dependents.iter().map(row).collect());
}

/// The first rows; a node with ten thousand service rules is not printed whole.
fn some(text: &mut String, rows: Vec<Vec<String>>) {
    let more = rows.len().saturating_sub(SHOWN);
    table(text, rows.into_iter().take(SHOWN));
    if more > 0 {
        let _ = writeln!(text, "  … and {} more: --json lists them all", Count(more as u64));
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

/// For programs: everything.
pub fn json(audit: &Audit, verdict: Verdict) -> Value {
    let (state, references, holders) = match &audit.tracking {
        Tracking::Absent => ("absent", None, Vec::new()),
        Tracking::BuiltIn => ("built-in", None, Vec::new()),
        Tracking::Module { references, holders } => ("module", *references, holders.clone()),
    };
    let namespaces: Vec<Value> = audit
        .namespaces
        .iter()
        .map(|one| json!({ "name": one.name, "inode": one.inode, "connections": one.connections }))
        .collect();
    let dependents: Vec<Value> = audit.dependents().map(|(namespace, dependent)| entry(namespace, dependent)).collect();
    let unseen: Vec<Value> = audit
        .unseen()
        .map(|(namespace, Unseen { what, why })| json!({ "namespace": namespace, "what": what, "why": why }))
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

fn entry(namespace: Option<&str>, dependent: &Dependent) -> Value {
    json!({
        "need": dependent.need.name(),
        "by": dependent.by,
        "namespace": namespace,
        "place": dependent.place,
        "number": dependent.number,
        "what": dependent.what,
        "owner": dependent.owner,
        "sure": dependent.sure.name(),
        "idle": dependent.need.is_idle(),
        "breaks": dependent.need.breaks(),
    })
}

/// So many rows of one kind are shown.
const SHOWN: usize = 25;
