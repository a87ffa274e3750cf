//! The properties of a set as nft lists them, a line each, in its order.
use crate::ast::{Dynset, Expression, Set};
use crate::datatype::format_duration;
use crate::parse::type_name;

/// The lines of a set's block above its elements. With `only_header`, as behind `get element`: without comment and without the state that each element gets.
pub(super) fn set_lines(set: &Set, only_header: bool) -> Vec<String> {
    let written = |word: &str| {
        let begins =
            |line: &&String| line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        set.properties.iter().rfind(begins).cloned()
    };
    let mut flags = Vec::new();
    for (flag, is_set) in [
        ("constant", set.flags.constant),
        ("dynamic", set.flags.dynamic || set.updated_from_start),
        ("interval", set.interval),
        ("timeout", set.flags.timeout),
    ] {
        flags.extend(is_set.then_some(flag));
    }
    // That elements expire is plain from the line `timeout`.
    let implied = flags.is_empty() || flags == ["timeout"] && set.timeout.is_some();
    let stateful = set.properties.iter().filter(|line| is_stateful(line));
    let stateful: Vec<&str> = stateful.filter(|_| !only_header).map(String::as_str).collect();
    [
        written("type").or_else(|| written("typeof")),
        written("policy"),
        set.most_elements().map(|most| format!("size {most}")),
        // That elements expire is plain from the line `timeout`.
        (!implied).then(|| format!("flags {}", flags.join(","))),
        (!stateful.is_empty()).then(|| stateful.join(" ")),
        set.timeout.map(|seconds| format!("timeout {}", format_duration(seconds.saturating_mul(1000)))),
        written("gc-interval"),
        written("auto-merge"),
        written("comment").filter(|_| !only_header),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn is_stateful(line: &str) -> bool {
    ["counter", "limit", "quota", "last", "ct"].contains(&line.split(' ').next().unwrap_or_default())
}

/// The set that a `meter` statement makes, without its elements.
pub(super) fn meter_set(meter: &Dynset) -> Set {
    let key: Vec<_> = meter.key.iter().map(Expression::data_type).collect();
    let types: Vec<String> = key.iter().map(|kind| type_name(*kind)).collect();
    let mut set = Set { name: meter.set.clone(), size: meter.meter_size, key, ..Set::default() };
    (set.flags.dynamic, set.flags.timeout) = (true, meter.timeout.is_some());
    set.properties = vec![format!("type {}", types.join(" . "))];
    set
}
