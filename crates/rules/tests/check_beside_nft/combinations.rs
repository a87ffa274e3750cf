//! Rulesets made of every selector, statement, hook, chain type and family, in right and wrong combinations.
mod types;
mod words;

use types::{ASSIGNED, LOOKED_UP, SET_TYPES, SOURCES};
use words::{CONTEXTS, DECLARATIONS, PAIRED, PROBES, SELECTORS, STATEMENTS};

const FAMILIES: [&str; 3] = ["ip", "ip6", "inet"];

/// Heads of chains: every type at every hook that it can have, and a chain without a hook.
const CHAINS: [&str; 11] = [
    "type filter hook prerouting priority 0;",
    "type filter hook input priority 0;",
    "type filter hook forward priority 0;",
    "type filter hook output priority 0;",
    "type filter hook postrouting priority 0;",
    "type nat hook prerouting priority -100;",
    "type nat hook input priority 100;",
    "type nat hook output priority -100;",
    "type nat hook postrouting priority 100;",
    "type route hook output priority 0;",
    "",
];

/// All combinations.
pub fn all() -> Vec<String> {
    [selectors(), pairs(), contexts(), statements(), priorities(), assignments(), lookups()].concat()
}

fn ruleset(family: &str, head: &str, rule: &str) -> String {
    format!("table {family} t {{ chain c {{ {head} {rule}; }}; }}")
}

/// Every selector in every chain.
fn selectors() -> Vec<String> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for selector in SELECTORS {
            all.extend(CHAINS.iter().map(|head| ruleset(family, head, &format!("{selector} accept"))));
        }
    }
    all
}

/// Two matches in a row: do they exclude each other?
fn pairs() -> Vec<String> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for first in PAIRED {
            all.extend(PAIRED.iter().map(|second| ruleset(family, CHAINS[1], &format!("{first} {second} accept"))));
        }
    }
    all
}

/// What a statement says about the packets that reach the next one, with a match before it and without.
fn contexts() -> Vec<String> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for context in CONTEXTS.iter().chain(PAIRED) {
            for probe in PROBES {
                let chain = format!("{} {context} {probe}", CHAINS[1]);
                all.push(format!("table {family} t {{ {DECLARATIONS} chain c {{ {chain}; }}; }}"));
            }
        }
    }
    for first in PAIRED.iter().take(20) {
        for second in PAIRED.iter().take(20) {
            all.extend(PROBES.iter().map(|probe| ruleset("inet", CHAINS[1], &format!("{first} {second} {probe}"))));
        }
    }
    all
}

/// Every statement in every chain, directly and by a jump.
fn statements() -> Vec<String> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for statement in STATEMENTS {
            let statement =
                if family == "inet" { statement.replace("nat to 10", "nat ip to 10") } else { statement.to_string() };
            for head in CHAINS {
                all.push(format!("table {family} t {{ {DECLARATIONS} chain c {{ {head} {statement}; }}; }}"));
                if !head.is_empty() {
                    all.push(format!(
                        "table {family} t {{ {DECLARATIONS} chain d {{ {statement}; }}; chain e {{ meta mark 1 jump d; }}; chain c {{ {head} goto e; }}; }}"
                    ));
                }
            }
        }
    }
    all
}

/// Every chain type, hook and priority.
fn priorities() -> Vec<String> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for kind in ["filter", "nat", "route"] {
            for hook in ["prerouting", "input", "forward", "output", "postrouting"] {
                for priority in [
                    "-500",
                    "-300",
                    "-225",
                    "-201",
                    "-200",
                    "-199",
                    "-100",
                    "0",
                    "100",
                    "301",
                    "2147483647",
                    "-2147483648",
                    "raw",
                    "mangle",
                    "filter",
                    "security",
                    "filter - 10",
                    "raw - 5",
                    "mangle - 60",
                    "dstnat",
                    "srcnat",
                    "dstnat - 101",
                ] {
                    all.push(format!(
                        "table {family} t {{ chain c {{ type {kind} hook {hook} priority {priority}; }}; }}"
                    ));
                }
            }
        }
    }
    all
}

/// Every value that can be set, from every source.
fn assignments() -> Vec<String> {
    let targets = ASSIGNED.iter();
    targets
        .flat_map(|target| {
            SOURCES
                .iter()
                .map(move |source| format!("table inet t {{ {DECLARATIONS} chain c {{ {target} set {source}; }}; }}"))
        })
        .collect()
}

/// Every selector looked up in sets of every type.
fn lookups() -> Vec<String> {
    let types = SET_TYPES.iter();
    types
        .flat_map(|kind| {
            LOOKED_UP
                .iter()
                .map(move |selector| format!("table inet t {{ set s {{ {kind}; }}; chain c {{ {selector} @s; }}; }}"))
        })
        .collect()
}

/// Names and comments at their limits.
pub fn lengths() -> Vec<String> {
    let mut all = Vec::new();
    for length in [127, 128, 129, 255, 256, 257] {
        let word = "x".repeat(length);
        all.extend([
            format!("table ip t {{ chain c {{ accept comment \"{word}\"; }}; }}"),
            format!("table ip t {{ chain c {{ comment \"{word}\"; type filter hook input priority 0; }}; }}"),
            format!("table ip t {{ comment \"{word}\"; }}"),
            format!("table ip t {{ set s {{ type ipv4_addr; comment \"{word}\"; }}; }}"),
            format!("table ip t {{ set s {{ type ipv4_addr; elements = {{ 10.0.0.1 comment \"{word}\" }}; }}; }}"),
            format!("table ip t {{ counter c {{ comment \"{word}\"; }}; }}"),
            format!("table ip t {{ chain c {{ log prefix \"{word}\"; }}; }}"),
            format!("table ip {word} {{ }}"),
            format!("table ip t {{ chain {word} {{ }}; }}"),
            format!("table ip t {{ set {word} {{ type ipv4_addr; }}; }}"),
            format!("table ip t {{ counter {word} {{ }}; }}"),
        ]);
    }
    all
}
