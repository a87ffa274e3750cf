//! What a ruleset means: its syntax tree without places, with elements in order.
use keepstate_rules::ast::{Ruleset, Set, Table, TableFamily};
use keepstate_rules::{NoIncludes, compile, parse_with};

fn load(text: &str) -> Result<Ruleset, String> {
    let (tree, sources) = parse_with("r.nft", text, &NoIncludes, &[]).map_err(|error| error.to_string())?;
    compile(&tree, &sources).map_err(|error| error.to_string())?;
    Ok(tree)
}

/// The meaning of a chain's rules.
pub fn chain_meaning(text: &str, chain: &str) -> Result<String, String> {
    let tree = load(text)?;
    let chain = tree.tables.first().unwrap().chains.iter().find(|known| known.name == chain).unwrap();
    let rules = chain.rules.iter().filter(|rule| !rule.statements.is_empty());
    let rules: Vec<String> = rules.map(|rule| format!("{:?} {:?}", rule.statements, rule.comment)).collect();
    let rules = normalized(&rules.join("\n"));
    // A family that the table or the address implies may be written or left out.
    let implied = tree.tables.iter().all(|table| table.family != TableFamily::Inet);
    let families = ["v6: None, target", "v6: Some(false), target", "v6: Some(true), target"];
    Ok(families.iter().fold(rules, |rules, written| {
        let rules = rules.replace(&format!("{written}: Addresses"), "target: Addresses");
        if implied { rules.replace(written, "target") } else { rules }
    }))
}

/// The meaning of all tables.
pub fn table_meanings(text: &str) -> Result<String, String> {
    let mut tables: Vec<String> = load(text)?.tables.iter().map(table_meaning).collect();
    tables.sort();
    Ok(tables.join("\n"))
}

fn table_meaning(table: &Table) -> String {
    let mut parts: Vec<String> = Vec::new();
    for set in &table.sets {
        let Set { name, key, data, dynamic, timeout, size, stateful, elements, .. } = set;
        parts.push(normalized(&format!(
            "{name} {key:?} {data:?} {dynamic} {timeout:?} {size:?} {stateful:?} elements: {elements:?}"
        )));
    }
    parts.extend(table.objects.iter().map(|object| normalized(&format!("{} {:?}", object.name, object.body))));
    for chain in &table.chains {
        let rules: Vec<String> =
            chain.rules.iter().map(|rule| format!("{:?} {:?}", rule.statements, rule.comment)).collect();
        parts.push(normalized(&format!("{} {:?} {}", chain.name, chain.base, rules.join("\n"))));
    }
    parts.sort();
    format!("{} {}: {}", table.family, table.name, parts.join("\n  "))
}

/// Without places; the elements of a set in order of their texts.
fn normalized(text: &str) -> String {
    // `> 1024` and `1025-65535` mean the same.
    let orders = ["None", "Some(Less)", "Some(LessOrEqual)", "Some(Greater)", "Some(GreaterOrEqual)"];
    let text = orders.iter().fold(without_spans(text), |text, order| text.replace(&format!(", order: {order}"), ""));
    sort_elements(&text)
}

fn without_spans(text: &str) -> String {
    let mut parts = text.split("Span {");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += part.split_once('}').map_or("", |(_, behind)| behind);
    }
    out
}

fn sort_elements(text: &str) -> String {
    const HEAD: &str = "elements: [";
    let Some((before, rest)) = text.split_once(HEAD) else { return text.to_owned() };
    let (mut depth, mut end) = (1_usize, rest.len());
    for (at, c) in rest.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            end = at;
            break;
        }
    }
    let (inside, behind) = rest.split_at(end);
    let mut elements: Vec<&str> = inside.split("SetElement").map(|one| one.trim_end_matches([' ', ','])).collect();
    elements.sort_unstable();
    format!("{before}{HEAD}{}{}", elements.join(" "), sort_elements(behind))
}

/// Without what `nft -s` leaves out.
pub fn without_counts(meaning: &str) -> String {
    let mut parts = meaning.split("Counter(");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let behind = part.split_once(')').map_or("", |(_, behind)| behind);
        out += &format!("Counter(0, 0){behind}");
    }
    let mut parts = out.split("used: ");
    let mut bare = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        bare += &format!("used: 0{}", part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    bare
}

/// Without the time that is left to the elements of a listing.
pub fn without_expiry(listing: &str) -> String {
    let mut parts = listing.split(" expires ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += part.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    }
    out
}
