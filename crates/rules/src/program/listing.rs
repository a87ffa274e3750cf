//! Listing a program: every rule as written in the ruleset, with current counters.
//!
//! The texts and names come from compilation ([`Listing`](super::compiled::Listing)); numbers are read when the listing is formatted.
use super::compiled::{ListedTable, Program};
use super::instr::Instr;
use super::set::CompiledSet;
use crate::ast::BaseChainSpec;
use crate::source::{Sources, Span};
use std::fmt::{self, Display, Write};

impl Program {
    /// The ruleset in nft's syntax: tables, named counters, sets (only the number of elements), chains; every rule as written, with its current counters.
    pub fn list(&self) -> impl Display + '_ {
        RulesetListing(self)
    }
}

struct RulesetListing<'a>(&'a Program);

impl Display for RulesetListing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.listing.tables.iter().try_for_each(|table| self.write_table(table, f))
    }
}

impl RulesetListing<'_> {
    fn write_table(&self, table: &ListedTable, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", table.family, table.name)?;
        for (name, at) in &table.counters {
            let (packets, bytes) = self.0.state.counters.get(*at).copied().unwrap_or_default();
            writeln!(f, "\tcounter {name} {{\n\t\tpackets {packets} bytes {bytes}\n\t}}")?;
        }
        for (name, at) in &table.sets {
            let count = self.0.sets.get(*at).map_or(0, CompiledSet::len);
            writeln!(f, "\tset {name} {{ # elements: {count}\n\t}}")?;
        }
        for ((name, base), at) in table.chains.iter().zip(table.chain_indices.clone()) {
            writeln!(f, "\tchain {name} {{")?;
            base.iter().try_for_each(|base| write_base_chain(base, f))?;
            for rule in self.0.chains.get(at).into_iter().flat_map(|chain| &chain.rules) {
                let named: Vec<usize> = table.counters.iter().map(|(_, at)| *at).collect();
                let counts = rule.instrs.iter().filter_map(|instr| match instr {
                    Instr::Counter(at) if !named.contains(at) => self.0.state.counters.get(*at).copied(),
                    _ => None,
                });
                writeln!(f, "\t\t{}", insert_counters(&rule_text(&self.0.listing.sources, rule.span), counts))?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

fn write_base_chain(base: &BaseChainSpec, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = if base.nat { "nat" } else { "filter" };
    let policy = if base.policy_drop { "drop" } else { "accept" };
    writeln!(f, "\t\ttype {kind} hook {} priority {}; policy {policy};", base.hook, base.priority)
}

/// A rule's text on one line: up to the end of its line, its semicolon or its block, without comments. Braces and quotation marks are respected.
fn rule_text(sources: &Sources, span: Span) -> String {
    let rest = sources.text(span.file).get(span.start as usize..).unwrap_or_default();
    let (mut text, mut depth, mut quoted, mut comment) = (String::new(), 0_usize, false, false);
    for c in rest.chars() {
        match c {
            '"' if !comment => quoted = !quoted,
            '#' if !quoted => comment = true,
            '\n' if quoted => break,
            '\n' if depth > 0 || text.ends_with('\\') => {
                comment = false;
                text.truncate(text.trim_end_matches('\\').len());
            }
            '\n' => break,
            ';' if depth == 0 && !quoted && !comment => break,
            '{' if !quoted && !comment => depth += 1,
            '}' if !quoted && !comment => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => break,
            },
            _ => (),
        }
        match c {
            _ if comment => (),
            c if c.is_whitespace() && !quoted => {
                if !text.ends_with(' ') {
                    text.push(' ');
                }
            }
            c => text.push(c),
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The rule's text with the current values of its counters.
fn insert_counters(text: &str, mut counts: impl Iterator<Item = (u64, u64)>) -> String {
    let (mut out, mut depth, mut words) = (String::with_capacity(text.len() + 32), 0_usize, text.split(' ').peekable());
    while let Some(word) = words.next() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        depth = (depth + word.matches('{').count()).saturating_sub(word.matches('}').count());
        if word != "counter" || depth > 0 || words.peek() == Some(&"name") {
            continue;
        }
        let Some((packets, bytes)) = counts.next() else { continue };
        // The initial values in the text are replaced.
        if words.next_if_eq(&"packets").is_some() {
            let _ = (words.next(), words.next_if_eq(&"bytes"), words.next());
        }
        // Writing to a string does not fail.
        let _ = write!(out, " packets {packets} bytes {bytes}");
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::{NoIncludes, compile, parse_with};

    #[test]
    fn listing_keeps_rule_text_and_adds_counters() {
        let text = "define lan = 10.0.0.0/8\ntable inet t {\n\tcounter web { }\n\tset bad {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1, 10.0.0.2 }\n\t}\n\
            \tchain c { type filter hook forward priority filter; policy drop; tcp dport 80 counter name web; counter packets 7 bytes 8 accept }\n\
            \tchain d {\n\t\tip saddr $lan tcp dport {\n\t\t\t22, # ssh\n\t\t\t23 } \\\n\t\t\tlog prefix \"a # b; }  c\" counter drop # a remark\n\t\tip saddr @bad drop\n\t}\n}\n";
        let (tree, sources) = parse_with("r.nft", text, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
        let program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            program.list().to_string(),
            "table inet t {\n\tcounter web {\n\t\tpackets 0 bytes 0\n\t}\n\tset bad { # elements: 2\n\t}\n\
             \tchain c {\n\t\ttype filter hook forward priority 0; policy drop;\n\t\ttcp dport 80 counter name web\n\t\tcounter packets 7 bytes 8 accept\n\t}\n\
             \tchain d {\n\t\tip saddr $lan tcp dport { 22, 23 } log prefix \"a # b; }  c\" counter packets 0 bytes 0 drop\n\t\tip saddr @bad drop\n\t}\n}\n"
        );
    }
}
