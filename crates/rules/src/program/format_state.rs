//! Set elements as nft writes them.
use super::set::{DynElement, ElementValue};
use super::state::StatefulExpr;
use crate::ast::{ElementData, Limit, NftVerdict, Set, SetElement};
use crate::datatype::{DataType, format_duration};
use crate::parse::DEFAULT_BURST;
use keepstate_engine::Instant;
use std::fmt::Write;

/// An element of a set in use; `*` has no key.
pub(super) fn format_element(
    set: &Set,
    key: Option<&[u128]>,
    element: &DynElement,
    now: Instant,
    stateless: bool,
) -> String {
    let mut out = match key {
        None => "*".to_owned(),
        Some(key) => format_parts(&set.key, key.iter().map(|value| (*value, *value))),
    };
    for state in &element.stateful {
        let text = format_stateful(state, stateless);
        out.push(' ');
        out.push_str(&text);
    }
    write_times(&mut out, element.timeout.filter(|own| Some(*own) != set.timeout), element.expires_at, now);
    write_comment(&mut out, element.comment.as_deref());
    if let (Some(kinds), ElementValue::Values(values)) = (&set.data, &element.value) {
        let _ = write!(out, " : {}", format_parts(kinds, values.iter().copied()));
    }
    out
}

/// An element that is kept in the tree.
pub(super) fn format_tree_element(
    set: &Set,
    element: &SetElement,
    in_use: Option<&DynElement>,
    (now, stateless): (Instant, bool),
) -> String {
    let mut out = match &element.key {
        None => "*".to_owned(),
        Some(key) => format_parts(&set.key, key.iter().copied()),
    };
    for (at, spec) in element.stateful.iter().enumerate() {
        let text = match in_use.and_then(|element| element.stateful.get(at)) {
            Some(state) => format_stateful(state, stateless),
            None => format_stateful(&StatefulExpr::new(spec), stateless),
        };
        out.push(' ');
        out.push_str(&text);
    }
    write_times(&mut out, element.timeout, element.deadline, now);
    write_comment(&mut out, element.comment.as_deref());
    match &element.data {
        None => (),
        Some(ElementData::Values(values)) => {
            let kinds = set.data.as_deref().unwrap_or_default();
            let _ = write!(out, " : {}", format_parts(kinds, values.iter().copied()));
        }
        Some(ElementData::Object(name, _)) => {
            let _ = write!(out, " : \"{name}\"");
        }
        Some(ElementData::Verdict(verdict)) => {
            let _ = write!(out, " : {}", format_verdict(verdict));
        }
    }
    out
}

fn write_comment(out: &mut String, comment: Option<&str>) {
    if let Some(comment) = comment {
        let _ = write!(out, " comment \"{comment}\"");
    }
}

fn write_times(out: &mut String, timeout: Option<u64>, until: Option<Instant>, now: Instant) {
    if let Some(seconds) = timeout {
        let _ = write!(out, " timeout {}", format_duration(seconds.saturating_mul(1000)));
    }
    if let Some(until) = until {
        let left = until.0.saturating_sub(now.0) / 1_000_000;
        let _ = write!(out, " expires {}", format_duration(left.max(1)));
    }
}

pub(super) fn format_parts(kinds: &[DataType], ranges: impl Iterator<Item = (u128, u128)>) -> String {
    let parts: Vec<String> = kinds
        .iter()
        .zip(ranges)
        .map(|(kind, (first, last))| match (first, last) == (0, kind.max_value()) && kinds.len() > 1 && first != last {
            true => "*".to_owned(),
            // A comma would begin another element.
            false if kind.is_bitmask() => kind.format_range(first, last).replace(',', " | "),
            false => kind.format_range(first, last),
        })
        .collect();
    parts.join(" . ")
}

/// A verdict as it is written.
pub(super) fn format_verdict(verdict: &NftVerdict) -> String {
    match verdict {
        NftVerdict::Accept => "accept".to_owned(),
        NftVerdict::Drop => "drop".to_owned(),
        NftVerdict::Continue => "continue".to_owned(),
        NftVerdict::Return => "return".to_owned(),
        NftVerdict::Jump(name, _) => format!("jump {name}"),
        NftVerdict::Goto(name, _) => format!("goto {name}"),
    }
}

fn format_stateful(state: &StatefulExpr, stateless: bool) -> String {
    match state {
        StatefulExpr::Counter(..) if stateless => "counter".to_owned(),
        StatefulExpr::Counter(packets, bytes) => format!("counter packets {packets} bytes {bytes}"),
        StatefulExpr::Limit(limit, ..) => format_limit(limit),
        StatefulExpr::Quota { over, bytes, used } => {
            let used = if *used == 0 || stateless { String::new() } else { format!(" used {used} bytes") };
            format!("quota {}{bytes} bytes{used}", if *over { "over " } else { "" })
        }
        StatefulExpr::ConnLimit { over, count, .. } => format!("ct count {}{count}", if *over { "over " } else { "" }),
    }
}

fn format_limit(limit: &Limit) -> String {
    let over = if limit.over { "over " } else { "" };
    let unit = match limit.seconds {
        1 => "second",
        60 => "minute",
        3600 => "hour",
        86_400 => "day",
        _ => "week",
    };
    match limit.per_byte {
        true if limit.burst == 0 => format!("limit rate {over}{} bytes/{unit}", limit.rate),
        true => format!("limit rate {over}{} bytes/{unit} burst {} bytes", limit.rate, limit.burst),
        // As nft: what is usual is not written.
        false if limit.burst == DEFAULT_BURST => format!("limit rate {over}{}/{unit}", limit.rate),
        false => format!("limit rate {over}{}/{unit} burst {} packets", limit.rate, limit.burst),
    }
}
