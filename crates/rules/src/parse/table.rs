//! Tables, and commands about them.
use super::parser::{ParseResult, Parser};
use crate::ast::{Chain, Hook, Object, ObjectBody, Set, Table, TableFamily};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;
use keepstate_engine::Helper;

/// The kernel's helpers by name, with the protocols that each is for.
const HELPERS: [(&str, u8); 13] = [
    ("ftp", 6),
    ("amanda", 17),
    ("H.245", 6),
    ("irc", 6),
    ("netbios-ns", 17),
    ("pptp", 6),
    ("Q.931", 6),
    ("RAS", 17),
    ("sane", 6),
    ("sip", 6),
    ("sip", 17),
    ("snmp", 17),
    ("tftp", 17),
];

impl Parser<'_> {
    /// After the keyword `table`.
    pub(super) fn parse_table(&mut self) -> ParseResult<()> {
        let family = self.parse_family()?;
        let (name, span) = self.expect_identifier("a table name")?;
        if std::mem::take(&mut self.script.create) && self.table_index(family, &name).is_some() {
            return Err(Diagnostic::new(span, format!("table {family} {name} already exists")));
        }
        let at = self.find_or_add_table(family, &name);
        if let Some(table) = self.ruleset.tables.get_mut(at).filter(|_| self.script.active) {
            // As in Linux, a command that names a dormant table without the flag wakes it.
            table.dormant = false;
        }
        if !self.eat_punct("{") {
            return self.expect_end();
        }
        let mut commented = false;
        loop {
            self.skip_separators();
            if self.eat_punct("}") {
                return Ok(());
            }
            if self.eat_keyword("comment") {
                let comment = self.expect_only_comment(commented)?;
                commented = true;
                if let Some(table) = self.ruleset.tables.get_mut(at) {
                    table.comment = Some(comment);
                }
                self.expect_end()?;
                continue;
            }
            let (name, depth) = (self.peek_item_name(), self.brace_depth);
            if let Err(diagnostic) = self.parse_table_item(at) {
                self.leave_out_item(at, name, diagnostic, depth)?;
            }
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
                flowtables: Vec::new(),
                dormant: false,
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
        let (word, span) = self.expect_word("chain, set, map or a named object")?;
        match word.as_str() {
            "include" => self.parse_include(span),
            "chain" => self.parse_chain(table),
            "set" | "map" => self.parse_named_set(table, word == "map"),
            "counter" | "quota" | "limit" => self.parse_object(table, &word),
            "ct" => self.parse_ct_object(table, span),
            "flags" => self.parse_table_flags(table),
            "flowtable" => self.parse_flowtable(table),
            "synproxy" => self.parse_synproxy_object(table),
            "secmark" => self.parse_secmark_object(table),
            "tunnel" => {
                let what = "tunnel is not supported: packets carry no metadata of tunnels here";
                Err(Diagnostic::unsupported(span, what).with_help("leave it out"))
            }
            _ => Err(Diagnostic::new(span, format!("unknown table item `{word}`")).with_help(
                "use chain, set, map, counter, quota, limit, synproxy, ct helper, ct timeout or ct expectation",
            )),
        }
    }

    fn parse_table_flags(&mut self, table: usize) -> ParseResult<()> {
        loop {
            let (flag, span) = self.expect_word("a flag")?;
            match flag.as_str() {
                "dormant" => {
                    if let Some(table) = self.ruleset.tables.get_mut(table) {
                        table.dormant = true;
                    }
                }
                // Who owns a table matters to programs that change the kernel's ruleset.
                "owner" | "persist" => (),
                _ => {
                    return Err(Diagnostic::new(span, format!("unknown table flag `{flag}`"))
                        .with_help("use dormant, owner or persist"));
                }
            }
            if !self.eat_punct(",") {
                return self.expect_end();
            }
        }
    }

    /// After `flowtable`: `NAME { hook ingress priority filter; devices = { … }; flags offload; counter; }`.
    pub(super) fn parse_flowtable(&mut self, table: usize) -> ParseResult<()> {
        let (name, _) = self.expect_identifier("a flowtable name")?;
        self.expect_punct("{")?;
        loop {
            self.skip_separators();
            if self.eat_punct("}") {
                break;
            }
            let (word, span) = self.expect_word("hook, devices, flags, counter or `}`")?;
            match word.as_str() {
                "hook" => {
                    self.expect_keyword("ingress")?;
                    self.expect_keyword("priority")?;
                    self.parse_priority(Hook::Prerouting)?;
                }
                "devices" => {
                    self.expect_punct("=")?;
                    self.parse_anonymous_set(&[DataType::InterfaceName], None)?;
                }
                "flags" => drop(self.expect_word("offload")?),
                "counter" => (),
                _ => {
                    return Err(Diagnostic::new(span, format!("unknown flowtable property `{word}`"))
                        .with_help("use hook, devices, flags or counter"));
                }
            }
            self.expect_end()?;
        }
        if let Some(table) = self.ruleset.tables.get_mut(table)
            && !table.flowtables.contains(&name)
        {
            table.flowtables.push(name);
        }
        Ok(())
    }

    /// `counter`, `quota` or `limit` with a name: its contents and a comment, in any order.
    pub(super) fn parse_object(&mut self, table: usize, what: &str) -> ParseResult<()> {
        let (name, span) = self.expect_object_name(what)?;
        let recording = self.start_recording();
        let body = if self.eat_punct("{") {
            let mut body = None;
            self.parse_object_properties(|parser| {
                if body.is_some() {
                    return Err(parser.unexpected("comment or `}`"));
                }
                body = Some(parser.parse_object_body(what)?);
                Ok(())
            })?;
            match body {
                Some(body) => body,
                None if what == "counter" => ObjectBody::Counter(0, 0),
                None => return Err(Diagnostic::new(span, format!("{what} {name} has no value"))),
            }
        } else {
            self.parse_object_body(what)?
        };
        let text = self.recorded_text(recording, ";");
        self.add_object(table, Object { name, span, body, text, handle: 0 })
    }

    /// After the `{` of an object, to its `}`: a comment at most, and what `property` takes, in any order. As in nft, nothing need stand behind a comment, and `property` says what stands behind it.
    pub(super) fn parse_object_properties(
        &mut self,
        mut property: impl FnMut(&mut Self) -> ParseResult<()>,
    ) -> ParseResult<()> {
        let mut commented = false;
        loop {
            self.skip_separators();
            if self.eat_punct("}") {
                return Ok(());
            }
            if self.eat_keyword("comment") {
                self.expect_only_comment(commented)?;
                commented = true;
            } else {
                property(self)?;
            }
        }
    }

    fn parse_object_body(&mut self, what: &str) -> ParseResult<ObjectBody> {
        Ok(match what {
            // Unlike the statement, the object has one order.
            "counter" if matches!(self.peek(), TokenKind::Ident(word) if word == "packets") => {
                let (packets, bytes) = self.parse_counter_values()?;
                ObjectBody::Counter(packets, bytes)
            }
            "counter" if matches!(self.peek(), TokenKind::Separator | TokenKind::Eof) => ObjectBody::Counter(0, 0),
            "counter" => return Err(self.unexpected("packets, comment or `}`")),
            "quota" => {
                let (over, bytes, used) = self.parse_quota()?;
                ObjectBody::Quota { over, bytes, used }
            }
            _ => ObjectBody::Limit(self.parse_limit()?),
        })
    }

    /// After the keyword `ct`: `helper NAME { type "ftp" protocol tcp; }`.
    fn parse_ct_object(&mut self, table: usize, start: Span) -> ParseResult<()> {
        let (what, span) = self.expect_word("helper, timeout or expectation")?;
        match what.as_str() {
            "helper" => self.parse_ct_helper(table),
            "timeout" => self.parse_ct_timeout(table),
            "expectation" => self.parse_ct_expectation(table),
            _ => Err(Diagnostic::new(start.to(span), format!("there are no objects of type `ct {what}`"))
                .with_help("use ct helper, ct timeout or ct expectation")),
        }
    }

    pub(super) fn parse_ct_helper(&mut self, table: usize) -> ParseResult<()> {
        let (name, span) = self.expect_object_name("ct")?;
        let recording = self.start_recording();
        self.expect_punct("{")?;
        let mut kind = None;
        self.parse_object_properties(|parser| {
            if parser.eat_keyword("type") {
                kind = Some(parser.parse_helper_type()?);
            } else if parser.eat_keyword("l3proto") {
                let (family, span) = parser.expect_word("ip, ip6 or inet")?;
                parser.check_l3proto(table, &family, span)?;
            } else {
                return Err(parser.unexpected("type, l3proto, comment or `}`"));
            }
            parser.expect_end()
        })?;
        let Some((kind, protocol)) = kind else {
            return Err(Diagnostic::new(span, format!("ct helper {name} has no type"))
                .with_help("write `type \"ftp\" protocol tcp;`"));
        };
        let text = self.recorded_text(recording, ";");
        self.add_object(table, Object { name, span, body: ObjectBody::CtHelper(kind, protocol), text, handle: 0 })
    }

    /// Does a helper's `l3proto` fit the table?
    pub(super) fn check_l3proto(&self, table: usize, family: &str, span: Span) -> ParseResult<()> {
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

    /// After `type`: `"ftp" protocol tcp`. Connections of a protocol that is not followed are noted: none of them is expected.
    fn parse_helper_type(&mut self) -> ParseResult<(String, u8)> {
        let TokenKind::Quoted(_) = self.peek() else { return Err(self.unexpected("a helper name in quotation marks")) };
        let (kind, span) = self.expect_name("a helper name in quotation marks")?;
        self.expect_keyword("protocol")?;
        let (protocol, protocol_span) = self.expect_word("tcp or udp")?;
        let number = match protocol.as_str() {
            "tcp" => 6,
            "udp" => 17,
            _ => {
                return Err(Diagnostic::new(protocol_span, format!("no helper is of protocol {protocol}"))
                    .with_help("use tcp or udp"));
            }
        };
        let of_kind: Vec<u8> = HELPERS.iter().filter(|(name, _)| *name == kind).map(|(_, number)| *number).collect();
        if of_kind.is_empty() {
            return Err(Diagnostic::unsupported(span, format!("helper \"{kind}\" is not known"))
                .with_help("leave it out, and accept the ports that the protocol opens"));
        }
        if !of_kind.contains(&number) {
            return Err(Diagnostic::new(protocol_span, format!("helper \"{kind}\" is not of protocol {protocol}")));
        }
        if Helper::from_name(&kind).is_none() {
            let what = format!("helper \"{kind}\" expects no connections here: only FTP and TFTP are followed");
            self.note(Diagnostic::new(span, what).with_help("accept the ports that the protocol opens"));
        }
        Ok((kind, number))
    }

    pub(super) fn add_object(&mut self, table: usize, object: Object) -> ParseResult<()> {
        let objects = self.ruleset.tables.get_mut(table).map(|table| &mut table.objects);
        let Some(objects) = objects else { return Ok(()) };
        let same = |known: &Object| {
            known.name == object.name && std::mem::discriminant(&known.body) == std::mem::discriminant(&object.body)
        };
        let exists = objects.iter().any(same);
        // As in Linux, to add what exists changes nothing but the size of a quota.
        if exists && !std::mem::take(&mut self.script.create) {
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
