//! Tables, and commands about them.
use super::parser::{ParseResult, Parser};
use crate::ast::{Chain, Object, ObjectBody, Set, Table, TableFamily};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl Parser<'_> {
    /// After the keyword `table`.
    pub(super) fn parse_table(&mut self) -> ParseResult<()> {
        let family = self.parse_family()?;
        let (name, span) = self.expect_name("a table name")?;
        if std::mem::take(&mut self.script.create) && self.table_index(family, &name).is_some() {
            return Err(Diagnostic::new(span, format!("table {family} {name} already exists")));
        }
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
        let by_script = self.script.active;
        self.table_index(family, name).unwrap_or_else(|| {
            let table = Table {
                family,
                name: name.to_owned(),
                chains: Vec::new(),
                sets: Vec::new(),
                objects: Vec::new(),
                handle: 0,
                handles: 0,
                by_script,
                comment: None,
            };
            self.ruleset.tables.push(table);
            self.ruleset.tables.len() - 1
        })
    }

    pub(super) fn table_index(&self, family: TableFamily, name: &str) -> Option<usize> {
        self.ruleset.tables.iter().position(|table| table.family == family && table.name == name)
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

    pub(super) fn parse_object(&mut self, table: usize, what: &str) -> ParseResult<()> {
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

    pub(super) fn parse_ct_helper(&mut self, table: usize) -> ParseResult<()> {
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
        let exists = objects.iter().any(same);
        // As in Linux, to add what exists changes nothing but the size of a quota.
        if exists && self.script.active && !std::mem::take(&mut self.script.create) {
            if let Some(known) = objects.iter_mut().find(|known| same(known))
                && matches!(object.body, ObjectBody::Quota { .. })
            {
                (known.body, known.text) = (object.body, object.text);
            }
            return Ok(());
        }
        if exists {
            return Err(Diagnostic::new(object.span, format!("object {} already exists", object.name)));
        }
        objects.push(object);
        Ok(())
    }

    pub(super) fn chain_mut(&mut self, table: usize, name: &str) -> Option<&mut Chain> {
        let at = *self.chains.get(&(table, name.to_owned()))?;
        self.ruleset.tables.get_mut(table)?.chains.get_mut(at)
    }

    pub(super) fn set_mut(&mut self, table: usize, name: &str) -> Option<&mut Set> {
        self.ruleset.tables.get_mut(table)?.sets.iter_mut().find(|set| set.name == name)
    }
}
