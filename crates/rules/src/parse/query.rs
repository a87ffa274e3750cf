//! `list`, `reset` and `get` in a script.
use super::parser::{ParseResult, Parser};
use crate::ast::{Query, QueryKind, TableFamily};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;

impl Parser<'_> {
    /// After `list` or `reset`.
    pub(super) fn parse_query(&mut self, reset: bool) -> ParseResult<()> {
        let (word, span) = self.expect_word("ruleset, table, chain, set, map, counter, quota, limit or rules")?;
        match word.as_str() {
            "element" if reset => return self.parse_element_query(true),
            "rule" if reset => return self.parse_rule_query(),
            _ => (),
        }
        let (mut kind, named) = match word.as_str() {
            "ruleset" => (QueryKind::Ruleset, false),
            "table" => (QueryKind::Ruleset, false),
            "tables" => (QueryKind::Tables, false),
            "chain" => (QueryKind::Chains, true),
            "chains" => (QueryKind::Chains, false),
            "set" => (QueryKind::Sets, true),
            "sets" => (QueryKind::Sets, false),
            "map" => (QueryKind::Maps, true),
            "maps" => (QueryKind::Maps, false),
            "meter" => (QueryKind::Meters, true),
            "meters" => (QueryKind::Meters, false),
            "counter" => (QueryKind::Counters, true),
            "counters" => (QueryKind::Counters, false),
            "quota" => (QueryKind::Quotas, true),
            "quotas" => (QueryKind::Quotas, false),
            "limit" => (QueryKind::Limits, true),
            "limits" => (QueryKind::Limits, false),
            "synproxy" => (QueryKind::Synproxies, true),
            "synproxys" => (QueryKind::Synproxies, false),
            "secmark" => (QueryKind::SecMarks, true),
            "secmarks" => (QueryKind::SecMarks, false),
            "flowtables" => (QueryKind::Flowtables, false),
            "rules" => (QueryKind::Rules, false),
            "ct" => match self.expect_word("helper, timeout or expectation")?.0.as_str() {
                "helper" => (QueryKind::CtHelpers, true),
                "helpers" => (QueryKind::CtHelpers, false),
                "timeout" => (QueryKind::CtTimeouts, true),
                "expectation" => (QueryKind::CtExpectations, true),
                "expectations" => (QueryKind::CtExpectations, false),
                _ => (QueryKind::CtTimeouts, false),
            },
            _ => {
                return Err(Diagnostic::new(span, format!("cannot list `{word}`")).with_help(
                    "use ruleset, table, tables, chain, chains, set, sets, map, maps, counters, quotas or limits",
                ));
            }
        };
        let resettable = matches!(word.as_str(), "counter" | "counters" | "quota" | "quotas" | "rules" | "set" | "map");
        if reset && !resettable {
            return Err(Diagnostic::new(span, format!("cannot reset `{word}`"))
                .with_help("use counter, counters, quota, quotas, rule, rules, set, map or element"));
        }
        let mut family = self.is_family_next().then(|| self.parse_family()).transpose()?;
        let (mut table, mut name) = (None, None);
        let mut in_chain = false;
        if word != "ruleset" && family.is_none() {
            // `list counters table inet t` names the table after a word, `reset rules chain inet t c` the chain too.
            in_chain = kind == QueryKind::Rules && self.eat_keyword("chain");
            if !in_chain {
                self.eat_keyword("table");
            }
            family = self.is_family_next().then(|| self.parse_family()).transpose()?;
        }
        if word == "table"
            || named
            || in_chain
            || word != "ruleset" && matches!(self.peek(), TokenKind::Ident(_) | TokenKind::Quoted(_))
        {
            let (of, wanted) = self.parse_queried_table(family)?;
            (family, table) = (Some(of), Some(wanted));
        }
        if named {
            name = Some(self.expect_identifier("a name")?.0);
        }
        if kind == QueryKind::Rules && matches!(self.peek(), TokenKind::Ident(_)) {
            name = Some(self.expect_identifier("a chain name")?.0);
        }
        if word == "table" {
            kind = QueryKind::Ruleset;
        }
        self.script.queries.push(Query { kind, family, table, name, reset, ..Query::default() });
        self.expect_end()
    }

    /// After `reset rule`: `[FAMILY] TABLE CHAIN handle N`.
    fn parse_rule_query(&mut self) -> ParseResult<()> {
        let family = self.parse_family()?;
        let (family, table) = self.parse_queried_table(Some(family))?;
        let (chain, span) = self.expect_identifier("a chain name")?;
        self.expect_keyword("handle")?;
        let (handle, handle_span) = self.expect_number("a handle")?;
        let index = self.table_index(family, &table);
        let found = index.and_then(|table| self.chain_mut(table, &chain));
        let Some(found) = found else {
            return Err(Diagnostic::new(span, format!("no chain named {chain}")));
        };
        if !found.rules.iter().any(|rule| rule.handle == handle) {
            let what = format!("chain {chain} has no rule with handle {handle}");
            return Err(
                Diagnostic::new(handle_span, what).with_help("`keepstate control nft -a list ruleset` shows handles")
            );
        }
        let query = Query {
            kind: QueryKind::Rules,
            family: Some(family),
            table: Some(table),
            name: Some(chain),
            rule: Some(handle),
            reset: true,
            ..Query::default()
        };
        self.script.queries.push(query);
        self.expect_end()
    }

    /// After `get element` or `reset element`: `[FAMILY] TABLE SET { ELEMENTS }`.
    pub(super) fn parse_element_query(&mut self, reset: bool) -> ParseResult<()> {
        let family = self.parse_family()?;
        let (family, table) = self.parse_queried_table(Some(family))?;
        let (name, span) = self.expect_identifier("a set name")?;
        let set = self.table_index(family, &table).and_then(|table| self.set_mut(table, &name));
        let Some(set) = set else {
            return Err(Diagnostic::new(span, format!("no set or map named {name}")));
        };
        let (key, data, interval) = (set.key.clone(), set.data.clone(), set.interval);
        let braces = self.span();
        self.script.names_elements = true;
        let elements = self.parse_elements(&key, data.as_deref());
        self.script.names_elements = false;
        let elements = elements?;
        if elements.is_empty() {
            return Err(Diagnostic::new(braces, "there are no elements in these braces")
                .with_help(format!("name one, or write `list set {family} {table} {name}` to see all")));
        }
        let is_range = |key: &Vec<(u128, u128)>| key.iter().any(|(first, last)| first != last);
        if let Some(range) = elements.iter().find(|one| !interval && one.key.as_ref().is_some_and(is_range)) {
            return Err(Diagnostic::new(range.span, format!("{name} has no ranges")).with_help("name its elements"));
        }
        let elements = elements.into_iter().map(|element| element.key).collect();
        let (family, table, name) = (Some(family), Some(table), Some(name));
        self.script.queries.push(Query { kind: QueryKind::Elements, family, table, name, elements, reset, rule: None });
        self.expect_end()
    }

    fn is_family_next(&mut self) -> bool {
        matches!(self.peek(), TokenKind::Ident(name) if matches!(name.as_str(), "ip" | "ip6" | "inet" | "arp" | "bridge" | "netdev"))
    }

    /// The name of a table that exists, with its family; without one it is `ip`.
    fn parse_queried_table(&mut self, family: Option<TableFamily>) -> ParseResult<(TableFamily, String)> {
        let span = self.span();
        let wanted = self.expect_identifier("a table name")?.0;
        let family = family.unwrap_or(TableFamily::Ip);
        if self.table_index(family, &wanted).is_none() {
            return Err(Diagnostic::new(span, format!("no table {family} {wanted}"))
                .with_help("write the family before it: `inet filter`; without one it is ip"));
        }
        Ok((family, wanted))
    }
}
