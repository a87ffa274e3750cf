//! `list` and `reset` in a script.
use super::parser::{ParseResult, Parser};
use crate::ast::{Query, QueryKind};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;

impl Parser<'_> {
    /// After `list` or `reset`.
    pub(super) fn parse_query(&mut self, reset: bool) -> ParseResult<()> {
        let (word, span) = self.expect_word("ruleset, table, chain, set, map, counter, quota, limit or rules")?;
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
        let resettable = matches!(kind, QueryKind::Counters | QueryKind::Quotas | QueryKind::Rules)
            || kind == QueryKind::Ruleset && word == "rules";
        if reset && !resettable {
            return Err(Diagnostic::new(span, format!("cannot reset `{word}`"))
                .with_help("use counter, counters, quota, quotas or rules"));
        }
        let family_next = matches!(self.peek(), TokenKind::Ident(name) if matches!(name.as_str(), "ip" | "ip6" | "inet" | "arp" | "bridge" | "netdev"));
        let mut family = family_next.then(|| self.parse_family()).transpose()?;
        let (mut table, mut name) = (None, None);
        if word != "ruleset" && !family_next {
            // `list counters table inet t` names the table after a word.
            self.eat_keyword("table");
            let inner = matches!(self.peek(), TokenKind::Ident(name) if matches!(name.as_str(), "ip" | "ip6" | "inet"));
            family = if inner { Some(self.parse_family()?) } else { None };
        }
        if word == "table"
            || named
            || word != "ruleset" && matches!(self.peek(), TokenKind::Ident(_) | TokenKind::Quoted(_))
        {
            let span = self.span();
            let wanted = self.expect_identifier("a table name")?.0;
            let of = family.unwrap_or(crate::ast::TableFamily::Ip);
            if self.table_index(of, &wanted).is_none() {
                return Err(Diagnostic::new(span, format!("no table {of} {wanted}"))
                    .with_help("write the family before it: `inet filter`; without one it is ip"));
            }
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
        self.script.queries.push(Query { kind, family, table, name, reset });
        self.expect_end()
    }
}
