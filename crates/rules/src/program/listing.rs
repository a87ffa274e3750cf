//! A ruleset in nft's syntax: rules as they were written, with today's counters, quotas and set elements. nft reads it, and so do we.
use super::compiled::{ListedTable, Program};
use super::format_state::format_parts;
use super::set_lines::{meter_set, set_lines};
use super::snapshot::RulesetSnapshot;
#[cfg(feature = "json")]
use crate::ast::AnonymousChain;
use crate::ast::{
    AddedItem, Chain, Dynset, ElementName, Object, ObjectBody, Query, QueryKind, Rule, Set, Statement, Table,
};
use std::fmt::{Display, Write};

/// What a listing shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListOptions {
    /// Handles, as comments.
    pub handles: bool,
    /// No elements of sets.
    pub terse: bool,
    /// No counters.
    pub stateless: bool,
}

impl Program {
    /// The whole ruleset in nft's syntax: named objects, sets with their elements, chains; every rule as written, with its current counters.
    pub fn list(&self) -> impl Display + '_ {
        let query = Query::default();
        let mut snapshot = self.start_snapshot(std::slice::from_ref(&query), self.state.last_seen);
        self.continue_snapshot(&mut snapshot, usize::MAX);
        snapshot.list(&query, ListOptions::default()).unwrap_or_default()
    }
}

impl RulesetSnapshot {
    /// The answer to a query.
    ///
    /// # Errors
    /// What was asked for by name does not exist.
    pub fn list(&self, query: &Query, options: ListOptions) -> Result<String, String> {
        let mut writer = ListingWriter { snapshot: self, options, out: String::new(), found: false };
        for (table, listed) in self.listing.tree.tables.iter().zip(&self.listing.tables) {
            if query.covers(table.family, &table.name) {
                writer.write_table(query, table, listed)?;
            }
        }
        match &query.name {
            Some(name) if !writer.found => Err(format!("nothing named {name} of this kind in this table")),
            _ => Ok(writer.out),
        }
    }

    /// What a script has added, as commands that add it again.
    pub fn list_added(&self, added: &[AddedItem], options: ListOptions) -> String {
        let mut writer = ListingWriter { snapshot: self, options, out: String::new(), found: false };
        for item in added {
            let tables = self.listing.tree.tables.iter().zip(&self.listing.tables);
            if let Some((table, listed)) = tables.into_iter().find(|(table, _)| table.handle == item.table) {
                writer.write_added(item, table, listed);
            }
        }
        writer.out
    }
}

struct ListingWriter<'a> {
    snapshot: &'a RulesetSnapshot,
    options: ListOptions,
    out: String,
    /// What the query names was found.
    found: bool,
}

impl ListingWriter<'_> {
    fn line(&mut self, indent: usize, text: &str) {
        self.out.extend(std::iter::repeat_n('\t', indent));
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn handle(&self, handle: u64) -> String {
        if self.options.handles { format!(" # handle {handle}") } else { String::new() }
    }

    fn write_table(&mut self, query: &Query, table: &Table, listed: &ListedTable) -> Result<(), String> {
        let name = format!("table {} {}", table.family, table.name);
        if query.kind == QueryKind::Tables {
            let handle = self.handle(table.handle);
            self.line(0, &format!("{name}{handle}"));
            return Ok(());
        }
        let whole = query.kind == QueryKind::Ruleset;
        self.line(0, &format!("{name} {{{}", if whole { self.handle(table.handle) } else { String::new() }));
        if let Some(comment) = table.comment.as_ref().filter(|_| whole) {
            self.line(1, &format!("comment \"{comment}\""));
        }
        if table.dormant && whole {
            self.line(1, "flags dormant");
        }
        let mut first = true;
        let named = |name: &String| query.name.as_ref().is_none_or(|wanted| wanted == name);
        for object in
            table.objects.iter().filter(|object| shows_object(query.kind, &object.body) && named(&object.name))
        {
            self.separate(&mut first, whole);
            self.write_object(object, listed);
        }
        for set in table.sets.iter().filter(|set| query.shows_set(set)) {
            self.separate(&mut first, whole);
            let elements = match self.options.terse {
                true => Vec::new(),
                false => self.element_texts(set, listed, &query.elements)?,
            };
            self.write_set(set, query.kind == QueryKind::Elements, elements);
        }
        if query.kind == QueryKind::Meters {
            self.write_meters(query, table, listed)?;
        }
        let chains = matches!(query.kind, QueryKind::Ruleset | QueryKind::Chains | QueryKind::Rules);
        for chain in table.chains.iter().filter(|chain| chains && named(&chain.name)) {
            self.separate(&mut first, whole);
            self.write_chain(chain, listed, query);
        }
        self.line(0, "}");
        Ok(())
    }

    /// An empty line between the parts of a table.
    fn separate(&mut self, first: &mut bool, whole: bool) {
        self.found = true;
        if !std::mem::take(first) && whole {
            self.out.push('\n');
        }
    }

    fn write_object(&mut self, object: &Object, listed: &ListedTable) {
        let word = object.body.keyword();
        let handle = self.handle(object.handle);
        self.line(1, &format!("{word} {} {{{handle}", object.name));
        self.object_lines(object, listed).iter().for_each(|line| self.line(2, line));
        self.line(1, "}");
    }

    fn object_lines(&self, object: &Object, listed: &ListedTable) -> Vec<String> {
        let written = split_block(&object.text);
        // It may stand in one line with the values.
        let comment = written.iter().find_map(|line| {
            let text = line.split("comment \"").nth(1)?.split('"').next()?;
            Some(format!("comment \"{text}\""))
        });
        let first = match &object.body {
            ObjectBody::Counter(..) => {
                let at = listed.counters.iter().find(|(name, _)| *name == object.name).map(|(_, at)| *at);
                let (packets, bytes) = at.and_then(|at| self.snapshot.counters.get(at).copied()).unwrap_or_default();
                if self.options.stateless { String::new() } else { format!("packets {packets} bytes {bytes}") }
            }
            ObjectBody::Quota { over, bytes, .. } => {
                let mut find = listed.stateful.iter().filter(|((name, quota), _)| *name == object.name && *quota);
                let used = find.next().and_then(|(_, at)| self.snapshot.used.get(*at).copied()).unwrap_or_default();
                let over = if *over { "over " } else { "" };
                let used =
                    if used == 0 || self.options.stateless { String::new() } else { format!(" used {used} bytes") };
                format!("{over}{bytes} bytes{used}")
            }
            _ => return written,
        };
        [first].into_iter().filter(|line| !line.is_empty()).chain(comment).collect()
    }

    fn write_set(&mut self, set: &Set, only_header: bool, elements: Vec<String>) {
        let word = if set.data.is_some() { "map" } else { "set" };
        let handle = self.handle(set.handle);
        self.line(1, &format!("{word} {} {{{handle}", set.name));
        self.write_set_lines(set, only_header, elements);
    }

    fn write_set_lines(&mut self, set: &Set, only_header: bool, elements: Vec<String>) {
        set_lines(set, only_header).iter().for_each(|line| self.line(2, line));
        if !elements.is_empty() {
            self.line(2, &format!("elements = {{ {} }}", elements.join(",\n\t\t\t     ")));
        }
        self.line(1, "}");
    }

    /// The set's elements, in the order of their keys: all, or those with these names.
    fn element_texts(&self, set: &Set, listed: &ListedTable, names: &[ElementName]) -> Result<Vec<String>, String> {
        let elements = self.snapshot.listed_elements(listed, set, names).map_err(|name| missing_element(set, name))?;
        Ok(elements.iter().map(|one| one.format(set, self.snapshot, self.options.stateless)).collect())
    }

    fn write_meters(&mut self, query: &Query, table: &Table, listed: &ListedTable) -> Result<(), String> {
        for set in meters(table) {
            if query.name.as_ref().is_some_and(|wanted| *wanted != set.name) {
                continue;
            }
            self.found = true;
            let elements = if self.options.terse { Vec::new() } else { self.element_texts(&set, listed, &[])? };
            self.line(1, &format!("meter {} {{", set.name));
            self.write_set_lines(&set, false, elements);
        }
        Ok(())
    }

    fn write_chain(&mut self, chain: &Chain, listed: &ListedTable, query: &Query) {
        let rules = query.kind != QueryKind::Chains || query.name.is_some();
        let handle = self.handle(chain.handle);
        self.line(1, &format!("chain {} {{{handle}", chain.name));
        if let Some(base) = &chain.base {
            let policy = if base.policy_drop { "drop" } else { "accept" };
            self.line(2, &format!("{}; policy {policy};", chain.base_text));
        }
        if let Some(comment) = &chain.comment {
            self.line(2, &format!("comment \"{comment}\""));
        }
        for rule in chain.rules.iter().filter(|rule| rules && query.shows_rule(rule)) {
            let text = self.rule_text(rule, listed);
            let handle = self.handle(rule.handle);
            self.line(2, &format!("{text}{handle}"));
        }
        self.line(1, "}");
    }

    fn rule_text(&self, rule: &Rule, listed: &ListedTable) -> String {
        let slots = listed.slots.get(&(rule.handle, rule.replaced));
        let counters = slots.and_then(|slots| self.snapshot.counters.get(slots.counters.clone())).unwrap_or_default();
        let mut counts = counters.iter().copied().filter(|_| !self.options.stateless);
        let mut text = full_rule_text(rule, &mut counts, self.options.stateless);
        for statement in std::iter::once(rule).chain(rule.nested_rules()).flat_map(|rule| &rule.statements) {
            // As nft does, also where none was written.
            if let Statement::Dynset(Dynset { meter_size: Some(size), set, .. }) = statement {
                text = text.replacen(&format!("meter {set} {{"), &format!("meter {set} size {size} {{"), 1);
            }
        }
        text
    }

    fn write_added(&mut self, item: &AddedItem, table: &Table, listed: &ListedTable) {
        let place = format!("{} {}", table.family, table.name);
        let Some(handle) = item.handle else {
            let handle = self.handle(table.handle);
            return self.line(0, &format!("add table {place}{handle}"));
        };
        let end = self.handle(handle);
        if let Some(chain) = table.chains.iter().find(|chain| chain.handle == handle) {
            let policy = chain.base.map(|base| if base.policy_drop { "drop" } else { "accept" });
            let head = policy.map(|policy| format!(" {{ {}; policy {policy}; }}", chain.base_text));
            self.line(0, &format!("add chain {place} {}{}{end}", chain.name, head.unwrap_or_default()));
        } else if let Some(set) = table.sets.iter().find(|set| set.handle == handle) {
            let word = if set.data.is_some() { "map" } else { "set" };
            self.line(0, &format!("add {word} {place} {} {{ {}; }}{end}", set.name, set_lines(set, false).join("; ")));
        } else if let Some(object) = table.objects.iter().find(|object| object.handle == handle) {
            let lines = self.object_lines(object, listed).join("; ");
            self.line(0, &format!("add {} {place} {} {{ {lines}; }}{end}", object.body.keyword(), object.name));
        }
        let word = if item.inserted { "insert" } else { "add" };
        for chain in &table.chains {
            if let Some(rule) = chain.rules.iter().find(|rule| rule.handle == handle) {
                let text = self.rule_text(rule, listed);
                self.line(0, &format!("{word} rule {place} {} {text}{end}", chain.name));
            }
        }
    }
}

/// The sets that the `meter` statements of a table make, in the order of their names.
fn meters(table: &Table) -> Vec<Set> {
    let mut found = std::collections::BTreeMap::new();
    for statement in table.chains.iter().flat_map(Chain::all_rules).flat_map(|rule| &rule.statements) {
        match statement {
            Statement::Dynset(change) if change.meter_size.is_some() => {
                found.entry(change.set.clone()).or_insert_with(|| meter_set(change));
            }
            _ => (),
        }
    }
    found.into_values().collect()
}

/// What is said when a query names an element that is not there.
pub(crate) fn missing_element(set: &Set, name: &ElementName) -> String {
    let element = name.as_ref().map_or("*".to_owned(), |key| format_parts(&set.key, key.iter().copied()));
    format!("{} does not have the element {element}", set.name)
}

pub(super) fn shows_object(kind: QueryKind, body: &ObjectBody) -> bool {
    match kind {
        QueryKind::Ruleset => true,
        QueryKind::Counters => matches!(body, ObjectBody::Counter(..)),
        QueryKind::Quotas => matches!(body, ObjectBody::Quota { .. }),
        QueryKind::Limits => matches!(body, ObjectBody::Limit(_)),
        QueryKind::CtHelpers => matches!(body, ObjectBody::CtHelper(..)),
        QueryKind::CtTimeouts => matches!(body, ObjectBody::CtTimeout(_)),
        QueryKind::CtExpectations => matches!(body, ObjectBody::CtExpectation(_)),
        QueryKind::SecMarks => matches!(body, ObjectBody::SecMark(_)),
        QueryKind::Synproxies => matches!(body, ObjectBody::Synproxy(_)),
        _ => false,
    }
}

/// The lines of an object's block: split at semicolons outside of braces and quotation marks.
fn split_block(text: &str) -> Vec<String> {
    let inside = text.trim();
    let inside = inside.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inside);
    let (mut lines, mut line, mut depth, mut quoted) = (Vec::new(), String::new(), 0_usize, false);
    for c in inside.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' if !quoted => depth += 1,
            '}' if !quoted => depth = depth.saturating_sub(1),
            ';' if !quoted && depth == 0 => {
                lines.push(std::mem::take(&mut line));
                continue;
            }
            _ => (),
        }
        line.push(c);
    }
    lines.push(line);
    lines.into_iter().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// The rule's text with the current values of its counters (with `bare`, without any), and with the rules that stand in it, a line each.
fn full_rule_text(rule: &Rule, counts: &mut impl Iterator<Item = (u64, u64)>, bare: bool) -> String {
    let (mut out, mut written) = (String::new(), 0);
    for statement in &rule.statements {
        let Statement::AnonymousChain(chain) = statement else { continue };
        let head = rule.text.get(written..chain.text_offset).unwrap_or_default();
        out.push_str(&insert_counters(head, counts, bare));
        for nested in &chain.rules {
            out.push_str("\n\t\t\t");
            out.push_str(&full_rule_text(nested, counts, bare));
        }
        out.push_str("\n\t\t");
        written = chain.text_offset;
    }
    let tail = rule.text.get(written..).unwrap_or_default();
    out.push_str(&insert_counters(if written > 0 { tail.trim_start() } else { tail }, counts, bare));
    out
}

/// A chain without a name as text.
#[cfg(feature = "json")]
pub(super) fn anonymous_chain_text(chain: &AnonymousChain, counts: &mut impl Iterator<Item = (u64, u64)>) -> String {
    let mut out = if chain.comes_back { "jump {" } else { "goto {" }.to_owned();
    for rule in &chain.rules {
        out.push_str("\n\t\t\t");
        out.push_str(&full_rule_text(rule, counts, false));
    }
    out + "\n\t\t}"
}

/// The text with the current values of its counters; with `bare`, without any.
fn insert_counters(text: &str, counts: &mut impl Iterator<Item = (u64, u64)>, bare: bool) -> String {
    let (mut out, mut depth, mut words) = (String::with_capacity(text.len() + 32), 0_usize, text.split(' ').peekable());
    let mut quoted = false;
    while let Some(word) = words.next() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        let was_quoted = quoted;
        quoted ^= word.matches('"').count() % 2 == 1;
        if was_quoted || quoted {
            continue;
        }
        depth = (depth + word.matches('{').count()).saturating_sub(word.matches('}').count());
        if word != "counter" || depth > 0 || words.peek() == Some(&"name") {
            continue;
        }
        let count = counts.next();
        if count.is_none() && !bare {
            continue;
        }
        // The initial values in the text are replaced, in either order.
        for _ in 0..2 {
            if words.next_if(|word| matches!(*word, "packets" | "bytes")).is_some() {
                words.next();
            }
        }
        if let Some((packets, bytes)) = count {
            // Writing to a string does not fail.
            let _ = write!(out, " packets {packets} bytes {bytes}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::{NoIncludes, compile, parse_with};

    #[test]
    fn listing_keeps_rule_text_and_adds_counters() {
        let text = "define lan = 10.0.0.0/8\ntable inet t {\n\tcounter web { }\n\tset bad {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.2, 10.0.0.1 }\n\t}\n\
            \tchain c { type filter hook forward priority filter; policy drop; tcp dport 80 counter name web; counter packets 7 bytes 8 accept }\n\
            \tchain d {\n\t\tip saddr $lan tcp dport {\n\t\t\t22, # ssh\n\t\t\t23 } \\\n\t\t\tlog prefix \"a # b; }  c\" counter drop # a remark\n\t\tip saddr @bad drop\n\t}\n}\n";
        let (tree, sources) = parse_with("r.nft", text, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
        let program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
        let listing = "table inet t {\n\tcounter web {\n\t\tpackets 0 bytes 0\n\t}\n\n\tset bad {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1,\n\t\t\t     10.0.0.2 }\n\t}\n\
             \n\tchain c {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\ttcp dport 80 counter name web\n\t\tcounter packets 7 bytes 8 accept\n\t}\n\
             \n\tchain d {\n\t\tip saddr 10.0.0.0/8 tcp dport { 22, 23 } log prefix \"a # b; }  c\" counter packets 0 bytes 0 drop\n\t\tip saddr @bad drop\n\t}\n}\n";
        assert_eq!(program.list().to_string(), listing);
        // What was listed lists the same again.
        let (tree, sources) = parse_with("r.nft", listing, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
        let again = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.list().to_string(), listing);
    }
}
