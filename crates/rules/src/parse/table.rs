//! Tables, and commands about them.
use super::parser::{ParseResult, Parser};
use crate::ast::{Chain, Object, ObjectBody, Set, Table, TableFamily};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;

impl Parser<'_> {
    /// After the keyword `table`.
    pub(super) fn parse_table(&mut self) -> ParseResult<()> {
        let family = self.parse_family()?;
        let (name, _) = self.expect_name("a table name")?;
        let at = self.find_or_add_table(family, &name);
        if !self.eat_punct("{") {
            return self.expect_end();
        }
        loop {
            self.skip_separators();
            if self.eat_punct("}") {
                return Ok(());
            }
            self.parse_table_item(at)?;
        }
    }

    /// The table of that name, created if it does not exist.
    pub(super) fn find_or_add_table(&mut self, family: TableFamily, name: &str) -> usize {
        let known = self.ruleset.tables.iter().position(|table| table.family == family && table.name == name);
        known.unwrap_or_else(|| {
            let table = Table {
                family,
                name: name.to_owned(),
                chains: Vec::new(),
                sets: Vec::new(),
                objects: Vec::new(),
                handle: 0,
                handles: 0,
                by_script: false,
                comment: None,
            };
            self.ruleset.tables.push(table);
            self.ruleset.tables.len() - 1
        })
    }

    /// One item of a table's block.
    fn parse_table_item(&mut self, table: usize) -> ParseResult<()> {
        if self.parse_definition()? {
            return Ok(());
        }
        let (word, span) = self.expect_name("chain, set, map or a named object")?;
        match word.as_str() {
            "include" => self.parse_include(span),
            "chain" => self.parse_chain(table),
            "set" | "map" => self.parse_named_set(table, word == "map"),
            "counter" | "quota" | "limit" => self.parse_object(table, &word),
            "ct" => self.parse_ct_object(table, span),
            "comment" => {
                let comment = self.expect_comment()?;
                if let Some(table) = self.ruleset.tables.get_mut(table) {
                    table.comment = Some(comment);
                }
                Ok(())
            }
            "flags" => {
                let (flag, span) = self.expect_name("a flag")?;
                Err(Diagnostic::new(span, format!("table flag `{flag}` is not supported"))
                    .with_help("leave it out: tables are always active here"))
            }
            "flowtable" => Err(Diagnostic::new(span, "flowtable is not needed")
                .with_help("remove it and `flow add`: established connections use the fast path automatically")),
            "synproxy" => self.parse_synproxy_object(table),
            "secmark" => Err(Diagnostic::new(span, "secmark is not supported").with_help("leave it out")),
            _ => Err(Diagnostic::new(span, format!("unknown table item `{word}`"))
                .with_help("use chain, set, map, counter, quota, limit, synproxy, ct helper or ct timeout")),
        }
    }

    fn parse_object(&mut self, table: usize, what: &str) -> ParseResult<()> {
        let (name, span) = self.expect_name("an object name")?;
        let recording = self.start_recording();
        let body = if self.eat_punct("{") {
            self.skip_separators();
            let body = self.parse_object_body(what)?;
            self.skip_separators();
            if self.eat_keyword("comment") {
                self.expect_comment()?;
                self.skip_separators();
            }
            self.expect_punct("}")?;
            body
        } else {
            self.parse_object_body(what)?
        };
        let text = self.recorded_text(recording, ";");
        self.add_object(table, Object { name, span, body, text, handle: 0 })
    }

    fn parse_object_body(&mut self, what: &str) -> ParseResult<ObjectBody> {
        Ok(match what {
            "counter" => {
                let (packets, bytes) = self.parse_counter_values()?;
                ObjectBody::Counter(packets, bytes)
            }
            "quota" => {
                let (over, bytes) = self.parse_quota()?;
                self.parse_quota_used(bytes)?;
                ObjectBody::Quota { over, bytes }
            }
            _ => ObjectBody::Limit(self.parse_limit()?),
        })
    }

    /// After the keyword `ct`: `helper NAME { type "ftp" protocol tcp; }`.
    fn parse_ct_object(&mut self, table: usize, start: Span) -> ParseResult<()> {
        let (what, span) = self.expect_name("helper or timeout")?;
        match what.as_str() {
            "helper" => (),
            "timeout" => return self.parse_ct_timeout(table),
            _ => {
                return Err(Diagnostic::new(start.to(span), format!("objects of type `ct {what}` are not supported"))
                    .with_help("use ct helper or ct timeout"));
            }
        }
        self.parse_ct_helper(table)
    }

    fn parse_ct_helper(&mut self, table: usize) -> ParseResult<()> {
        let (name, span) = self.expect_name("an object name")?;
        let recording = self.start_recording();
        self.expect_punct("{")?;
        self.skip_separators();
        self.expect_keyword("type")?;
        let (kind, kind_span) = self.expect_name("a helper name in quotation marks")?;
        if kind != "ftp" {
            return Err(
                Diagnostic::new(kind_span, format!("unknown helper \"{kind}\"")).with_help("only \"ftp\" is supported")
            );
        }
        self.expect_keyword("protocol")?;
        let (protocol, protocol_span) = self.expect_name("tcp")?;
        if protocol != "tcp" {
            return Err(Diagnostic::new(protocol_span, "helper \"ftp\" needs protocol tcp"));
        }
        loop {
            self.skip_separators();
            if self.eat_punct("}") {
                break;
            }
            if self.eat_keyword("l3proto") {
                let (family, span) = self.expect_name("ip, ip6 or inet")?;
                self.check_l3proto(table, &family, span)?;
            } else if self.eat_keyword("comment") {
                self.expect_comment()?;
            } else {
                return Err(self.unexpected("l3proto, comment or `}`"));
            }
        }
        let text = self.recorded_text(recording, ";");
        self.add_object(table, Object { name, span, body: ObjectBody::CtHelper(kind, 6), text, handle: 0 })
    }

    /// Does a helper's `l3proto` fit the table?
    fn check_l3proto(&self, table: usize, family: &str, span: Span) -> ParseResult<()> {
        let of_table = self.ruleset.tables.get(table).map(|table| table.family);
        let fits = match (family, of_table) {
            ("ip", of_table) => of_table != Some(TableFamily::Ip6),
            ("ip6", of_table) => of_table != Some(TableFamily::Ip),
            ("inet", _) => true,
            _ => {
                return Err(
                    Diagnostic::new(span, format!("unknown family `{family}`")).with_help("use ip, ip6 or inet")
                );
            }
        };
        if fits {
            return Ok(());
        }
        Err(Diagnostic::new(span, format!("the table never sees packets of family {family}"))
            .with_help("leave l3proto out, or use a table of family inet"))
    }

    pub(super) fn add_object(&mut self, table: usize, object: Object) -> ParseResult<()> {
        let objects = self.ruleset.tables.get_mut(table).map(|table| &mut table.objects);
        let Some(objects) = objects else { return Ok(()) };
        let same = |known: &Object| {
            known.name == object.name && std::mem::discriminant(&known.body) == std::mem::discriminant(&object.body)
        };
        if objects.iter().any(same) {
            return Err(Diagnostic::new(object.span, format!("object {} already exists", object.name)));
        }
        objects.push(object);
        Ok(())
    }

    /// After `flush`.
    pub(super) fn parse_flush(&mut self) -> ParseResult<()> {
        let (what, span) = self.expect_name("ruleset")?;
        match what.as_str() {
            "ruleset" => {
                let family = matches!(self.peek(), TokenKind::Ident(_)).then(|| self.parse_family()).transpose()?;
                self.ruleset.tables.retain(|table| family.is_some_and(|family| table.family != family));
                self.ruleset.flushed |= family.is_none();
                self.reindex_chains();
                self.expect_end()
            }
            "table" => {
                let family = self.parse_family()?;
                let (name, _) = self.expect_name("a table name")?;
                let emptied = self.ruleset.tables.iter_mut().find(|table| table.family == family && table.name == name);
                if let Some(table) = emptied {
                    table.chains.iter_mut().for_each(|chain| chain.rules.clear());
                }
                self.expect_end()
            }
            "chain" => {
                let (table, name, span) = self.parse_table_and_name("a chain name")?;
                let chain = table.and_then(|table| self.chain_mut(table, &name));
                match chain {
                    Some(chain) => chain.rules.clear(),
                    None => return Err(Diagnostic::new(span, format!("no chain named {name}"))),
                }
                self.expect_end()
            }
            "set" | "map" => {
                let (table, name, span) = self.parse_table_and_name("a set name")?;
                match table.and_then(|table| self.set_mut(table, &name)) {
                    Some(set) => set.elements.clear(),
                    None => return Err(Diagnostic::new(span, format!("no set or map named {name}"))),
                }
                self.expect_end()
            }
            _ => Err(Diagnostic::new(span, format!("cannot flush `{what}`"))
                .with_help("use ruleset, table, chain, set or map")),
        }
    }

    /// After `delete`: only tables, which files delete before they create them again.
    pub(super) fn parse_delete(&mut self) -> ParseResult<()> {
        let (what, span) = self.expect_name("table")?;
        if what != "table" {
            return Err(Diagnostic::new(
                span,
                format!("`delete {what}` is not supported: a ruleset is always loaded as a whole"),
            )
            .with_help("remove this line and what it deletes"));
        }
        let family = self.parse_family()?;
        let (name, _) = self.expect_name("a table name")?;
        self.ruleset.tables.retain(|table| table.family != family || table.name != name);
        self.reindex_chains();
        self.expect_end()
    }

    /// Rebuilds the chain index after tables were removed.
    fn reindex_chains(&mut self) {
        let tables = self.ruleset.tables.iter().enumerate();
        let chains = tables.flat_map(|(table, content)| {
            let names = content.chains.iter().enumerate();
            names.map(move |(at, chain)| ((table, chain.name.clone()), at))
        });
        self.chains = chains.collect();
    }

    /// After `add`, or (with `first`) after `insert`, which puts a rule before the others.
    pub(super) fn parse_add(&mut self, first: bool) -> ParseResult<()> {
        let (what, span) = self.expect_name("table, chain, rule, set, map or element")?;
        match what.as_str() {
            "table" => self.parse_table(),
            "chain" => {
                let family = self.parse_family()?;
                let (name, _) = self.expect_name("a table name")?;
                let table = self.find_or_add_table(family, &name);
                self.parse_chain(table)
            }
            "rule" => {
                let (table, name, span) = self.parse_table_and_name("a chain name")?;
                let rule = self.parse_rule()?;
                match table.and_then(|table| self.chain_mut(table, &name)) {
                    Some(chain) if first => chain.rules.insert(0, rule),
                    Some(chain) => chain.rules.push(rule),
                    None => return Err(Diagnostic::new(span, format!("no chain named {name}"))),
                }
                self.expect_end()
            }
            "set" | "map" => {
                let family = self.parse_family()?;
                let (name, _) = self.expect_name("a table name")?;
                let table = self.find_or_add_table(family, &name);
                self.parse_named_set(table, what == "map")
            }
            "element" => {
                let (table, name, span) = self.parse_table_and_name("a set name")?;
                let Some(table) = table else {
                    return Err(Diagnostic::new(span, format!("no table for set {name}")));
                };
                self.parse_added_elements(table, &name, span)?;
                self.expect_end()
            }
            "counter" | "quota" | "limit" | "ct" => {
                // `add ct helper ip filter name { … }`: the object type precedes the table.
                let kind = if what == "ct" { Some(self.expect_name("helper or timeout")?) } else { None };
                let family = self.parse_family()?;
                let (name, _) = self.expect_name("a table name")?;
                let table = self.find_or_add_table(family, &name);
                match kind {
                    None => self.parse_object(table, &what),
                    Some((kind, _)) if kind == "timeout" => self.parse_ct_timeout(table),
                    Some((kind, _)) if kind == "helper" => self.parse_ct_helper(table),
                    Some((kind, at)) => {
                        Err(Diagnostic::new(at, format!("objects of type `ct {kind}` are not supported"))
                            .with_help("use ct helper or ct timeout"))
                    }
                }
            }
            _ => Err(Diagnostic::new(span, format!("cannot add `{what}`"))
                .with_help("use table, chain, rule, set, map, element, counter, quota, limit or ct")),
        }
    }

    /// `[FAMILY] TABLE NAME`: the table, if there is one, and the name.
    fn parse_table_and_name(&mut self, wanted: &str) -> ParseResult<(Option<usize>, String, Span)> {
        let family = self.parse_family()?;
        let (table, _) = self.expect_name("a table name")?;
        let (name, span) = self.expect_name(wanted)?;
        let at = self.ruleset.tables.iter().position(|known| known.family == family && known.name == table);
        Ok((at, name, span))
    }

    pub(super) fn chain_mut(&mut self, table: usize, name: &str) -> Option<&mut Chain> {
        let at = *self.chains.get(&(table, name.to_owned()))?;
        self.ruleset.tables.get_mut(table)?.chains.get_mut(at)
    }

    pub(super) fn set_mut(&mut self, table: usize, name: &str) -> Option<&mut Set> {
        self.ruleset.tables.get_mut(table)?.sets.iter_mut().find(|set| set.name == name)
    }
}
