//! Tables, sets and chains as `nft list ruleset` prints them.
//!
//! Blocks are told by their depth: a table's line, a line of an object in it, a statement in that. A statement that goes over several lines,
//! such as the elements of a set, ends where its braces do.
use super::model::{NatChain, NatHook, NatTable};
use super::nft_rule::{self, NftSets};
use super::words::words;

/// One block in a table.
struct Object {
    kind: String,
    name: String,
    statements: Vec<String>,
}

/// The tables that hold nat chains.
pub(super) fn read(listing: &str) -> Vec<NatTable> {
    let mut found = Vec::new();
    let mut open: Option<(NatTable, Vec<Object>)> = None;
    let mut object: Option<Object> = None;
    let mut statement = String::new();
    for line in listing.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match (&mut open, &mut object) {
            (None, _) => open = table(line).map(|table| (table, Vec::new())),
            (Some((_, objects)), Some(inside)) => {
                if statement.is_empty() && line == "}" {
                    objects.extend(object.take());
                    continue;
                }
                if !statement.is_empty() {
                    statement.push(' ');
                }
                statement.push_str(line);
                if is_balanced(&statement) {
                    inside.statements.push(std::mem::take(&mut statement));
                }
            }
            (Some(_), None) if line == "}" => {
                found.extend(open.take().and_then(|(table, objects)| assemble(table, &objects)));
            }
            (Some(_), None) => object = line.strip_suffix('{').map(new_object),
        }
    }
    found
}

fn table(line: &str) -> Option<NatTable> {
    let is_ipv6 = match words(line).as_slice() {
        ["table", "ip", _, "{", ..] => Some(false),
        ["table", "ip6", _, "{", ..] => Some(true),
        ["table", "inet", _, "{", ..] => None,
        // Its blocks are passed over as those of a table without nat chains.
        ["table", ..] => None,
        _ => return None,
    };
    Some(NatTable { is_ipv6, ..NatTable::default() })
}

fn new_object(head: &str) -> Object {
    let mut words = words(head).into_iter();
    let kind = words.next().unwrap_or_default().to_owned();
    Object { kind, name: words.next().unwrap_or_default().to_owned(), statements: Vec::new() }
}

/// Are as many braces closed as opened? Braces in quotes do not count.
fn is_balanced(text: &str) -> bool {
    let (mut depth, mut is_quoted) = (0_i64, false);
    for letter in text.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '{' if !is_quoted => depth += 1,
            '}' if !is_quoted => depth -= 1,
            _ => (),
        }
    }
    depth <= 0
}

fn assemble(mut table: NatTable, objects: &[Object]) -> Option<NatTable> {
    let mut sets = NftSets::new();
    for object in objects.iter().filter(|object| matches!(object.kind.as_str(), "set" | "map")) {
        let mut elements = Some(Vec::new());
        for statement in &object.statements {
            if let Some(text) = statement.strip_prefix("elements = ") {
                elements = Some(nft_rule::elements(&words(text)));
            }
        }
        // What packets add may have been there at another time.
        if object.statements.iter().any(|statement| statement.starts_with("flags ") && statement.contains("dynamic")) {
            elements = None;
        }
        sets.insert(object.name.clone(), elements);
    }
    for object in objects.iter().filter(|object| object.kind == "chain") {
        let mut chain = NatChain::default();
        for statement in &object.statements {
            if let Some(base) = statement.strip_prefix("type ") {
                chain.base = base_chain(base);
                continue;
            }
            chain.rules.push(nft_rule::read(statement, &sets));
        }
        table.chains.insert(object.name.clone(), chain);
    }
    table.chains.values().any(|chain| chain.base.is_some()).then_some(table)
}

/// `nat hook prerouting priority dstnat + 5; policy accept;`
fn base_chain(text: &str) -> Option<(NatHook, i64)> {
    let text = text.split(';').next()?;
    let words = words(text);
    let ["nat", "hook", hook, "priority", priority @ ..] = words.as_slice() else { return None };
    let hook = match *hook {
        "prerouting" => NatHook::Prerouting,
        "output" => NatHook::Output,
        _ => return None,
    };
    let number = |name: &str| match name {
        "raw" => Some(-300),
        "mangle" => Some(-150),
        "dstnat" => Some(-100),
        "filter" => Some(0),
        "security" => Some(50),
        "srcnat" => Some(100),
        other => other.parse::<i64>().ok(),
    };
    let priority = match priority {
        [one] => number(one)?,
        [base, "+", more] => number(base)?.saturating_add(more.parse().ok()?),
        [base, "-", less] => number(base)?.saturating_sub(less.parse().ok()?),
        _ => return None,
    };
    Some((hook, priority))
}
