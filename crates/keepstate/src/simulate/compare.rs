//! The choices for a full table, side by side.
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table};
use keepstate_advisor::simulate::{ChoiceOutcome, TableChoice, TrafficModel};
use keepstate_advisor::units::Count;
use keepstate_engine::{Sysctl, Sysctls};
use keepstate_gateway::gateway_file::TableSettings;
use std::io::Write;

/// Linux's behaviour and what is given, each by itself and then together; or all with usual values.
///
/// # Errors
/// What is given does not fit the table.
pub fn choices(given: &TableSettings, knobs: &Sysctls) -> Result<Vec<TableChoice>> {
    let all = given.policy(knobs)?;
    let mut choices = vec![TableChoice::linux()];
    for text in given.reserve.iter().flat_map(|given| &given.value) {
        choices.push(TableChoice::reserve(&String::from(text.clone()), text.value.clone()));
    }
    for text in given.source_limit.iter().flat_map(|given| &given.value) {
        choices.push(TableChoice::source_limit(&String::from(text.clone()), text.value.clone()));
    }
    choices.extend(all.adaptive_timeouts.map(TableChoice::adaptive));
    choices.extend(all.grow_to.map(TableChoice::grow_to));
    match choices.len() {
        1 => return Ok(TableChoice::usual(knobs[Sysctl::Max])),
        2 => (),
        _ => choices.push(TableChoice { name: "all of them", setting: String::new(), policy: all }),
    }
    Ok(choices)
}

/// Writes one line a choice.
///
/// # Errors
/// Write errors.
pub fn write(out: &mut impl Write, compared: &[(TableChoice, ChoiceOutcome)]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let mut head =
        vec!["choice", "peak", "limit", "opened", "refused", "broken", "evicted", "logins dropped", "packets dropped"];
    let has_scan = compared.iter().any(|(_, outcome)| outcome.clients.scan_dropped > 0);
    if has_scan {
        head.push("of the scan");
    }
    table.set_header(head);
    for (choice, outcome) in compared {
        let clients = &outcome.clients;
        let mut numbers = vec![
            Count(outcome.peak).to_string(),
            Count(outcome.limit).to_string(),
            Count(clients.opened).to_string(),
            Count(clients.refused).to_string(),
            Count(clients.broken).to_string(),
            Count(outcome.early_dropped).to_string(),
            format!("{} of {}", Count(clients.logins_dropped), Count(clients.logins)),
            Count(outcome.dropped.iter().map(|(_, count)| count).sum()).to_string(),
        ];
        if has_scan {
            numbers.push(Count(clients.scan_dropped).to_string());
        }
        let numbers = numbers.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row(std::iter::once(Cell::new(choice.name)).chain(numbers));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)?;
    for (choice, outcome) in compared {
        let reasons: Vec<String> =
            outcome.dropped.iter().map(|(name, count)| format!("{name} {}", Count(*count))).collect();
        let setting = if choice.setting.is_empty() { String::new() } else { format!(" \"{}\"", choice.setting) };
        let cut = match outcome.timeouts_cut {
            0 => String::new(),
            cut => format!("; timeouts cut: {}", Count(cut)),
        };
        let dropped = if reasons.is_empty() { "nothing".to_owned() } else { reasons.join(", ") };
        writeln!(out, "{}{setting}: dropped: {dropped}{cut}", choice.name)?;
    }
    Ok(())
}

/// The JSON document.
pub fn json_document(model: &TrafficModel, compared: &[(TableChoice, ChoiceOutcome)]) -> serde_json::Value {
    let choices = compared.iter().map(|(choice, outcome)| {
        let dropped: serde_json::Map<_, _> =
            outcome.dropped.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
        serde_json::json!({
            "choice": choice.name,
            "setting": choice.setting,
            "peak": outcome.peak,
            "nf_conntrack_max": outcome.limit,
            "early_dropped": outcome.early_dropped,
            "dropped": dropped,
            "timeouts_cut": outcome.timeouts_cut,
            "clients": outcome.clients,
        })
    });
    serde_json::json!({
        "schema": "keepstate.simulate-compare/1",
        "model": model,
        "choices": choices.collect::<Vec<_>>(),
    })
}
