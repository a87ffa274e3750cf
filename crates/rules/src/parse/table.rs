//! Tables, and commands about them.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::source::Span;
use crate::token::Word;
use crate::tree::{Chain, Family, Object, ObjectBody, Set, Table};

impl Parser<'_> {
    /// Behind the word `table`.
    pub(super) fn table(&mut self) -> Parsed<()> {
        let family = self.family()?;
        let (name, _) = self.name("the table's name")?;
        let at = self.table_at(family, &name);
        if !self.takes_sign("{") {
            return self.ends();
        }
        loop {
            self.skip_separators();
            if self.takes_sign("}") {
                return Ok(());
            }
            self.item(at)?;
        }
    }

    /// The table of that name, made if there is none.
    pub(super) fn table_at(&mut self, family: Family, name: &str) -> usize {
        let known = self.ruleset.tables.iter().position(|table| table.family == family && table.name == name);
        known.unwrap_or_else(|| {
            let table =
                Table { family, name: name.to_owned(), chains: Vec::new(), sets: Vec::new(), objects: Vec::new() };
            self.ruleset.tables.push(table);
            self.ruleset.tables.len() - 1
        })
    }

    /// One thing in a table's block.
    fn item(&mut self, table: usize) -> Parsed<()> {
        if self.definition()? {
            return Ok(());
        }
        let (word, span) = self.name("chain, set, map or a named object")?;
        match word.as_str() {
            "include" => self.include(span),
            "chain" => self.chain(table),
            "set" | "map" => self.named_set(table, word == "map"),
            "counter" | "quota" | "limit" => self.object(table, &word),
            "ct" => self.ct_object(table, span),
            "comment" => self.name("a comment").map(|_| ()),
            "flags" => {
                let (flag, span) = self.name("a flag")?;
                Err(Fault::new(span, format!("flags {flag}: a table that can be put to sleep or owned"))
                    .instead("leave it away: the gateway owns all its tables"))
            }
            "flowtable" => Err(Fault::new(span, "flowtable: nothing has to be handed over here")
                .instead("leave it and `flow add` away: established connections take the short way by themselves")),
            "synproxy" => self.synproxy_object(table),
            "secmark" => Err(Fault::new(span, "secmark is not supported").instead("leave it away")),
            _ => Err(Fault::new(span, format!("{word}: no such thing in a table"))
                .instead("chain, set, map, counter, quota, limit, synproxy, ct helper or ct timeout")),
        }
    }

    fn object(&mut self, table: usize, what: &str) -> Parsed<()> {
        let (name, span) = self.name("its name")?;
        let body = if self.takes_sign("{") {
            self.skip_separators();
            let body = self.object_body(what)?;
            self.skip_separators();
            if self.takes("comment") {
                self.name("a comment")?;
                self.skip_separators();
            }
            self.sign("}")?;
            body
        } else {
            self.object_body(what)?
        };
        self.add_object(table, Object { name, span, what: body })
    }

    fn object_body(&mut self, what: &str) -> Parsed<ObjectBody> {
        Ok(match what {
            "counter" => {
                let (packets, octets) = self.counted()?;
                ObjectBody::Counter(packets, octets)
            }
            "quota" => {
                let (over, octets) = self.quota()?;
                if self.takes("used") {
                    self.octets()?;
                }
                ObjectBody::Quota { over, octets }
            }
            _ => ObjectBody::Limit(self.limit()?),
        })
    }

    /// Behind the word `ct`: `helper NAME { type "ftp" protocol tcp; }`.
    fn ct_object(&mut self, table: usize, start: Span) -> Parsed<()> {
        let (what, span) = self.name("helper or timeout")?;
        match what.as_str() {
            "helper" => (),
            "timeout" => return self.timeout(table),
            _ => {
                return Err(Fault::new(start.to(span), format!("ct {what} objects are not supported"))
                    .instead("ct helper, or ct timeout"));
            }
        }
        self.helper(table)
    }

    fn helper(&mut self, table: usize) -> Parsed<()> {
        let (name, span) = self.name("its name")?;
        self.sign("{")?;
        self.skip_separators();
        self.keyword("type")?;
        let (kind, kind_span) = self.name("the helper's name, in quotation marks")?;
        if kind != "ftp" {
            return Err(
                Fault::new(kind_span, format!("{kind}: there is no such helper")).instead("the one there is: \"ftp\"")
            );
        }
        self.keyword("protocol")?;
        let (protocol, protocol_span) = self.name("tcp")?;
        if protocol != "tcp" {
            return Err(Fault::new(protocol_span, "ftp is spoken over tcp"));
        }
        loop {
            self.skip_separators();
            if self.takes_sign("}") {
                break;
            }
            if self.takes("l3proto") || self.takes("comment") {
                self.name("its value")?;
            } else {
                return Err(self.unexpected("l3proto or the end of the helper"));
            }
        }
        self.add_object(table, Object { name, span, what: ObjectBody::Helper(kind, 6) })
    }

    pub(super) fn add_object(&mut self, table: usize, object: Object) -> Parsed<()> {
        let objects = self.ruleset.tables.get_mut(table).map(|table| &mut table.objects);
        let Some(objects) = objects else { return Ok(()) };
        let same = |known: &Object| {
            known.name == object.name && std::mem::discriminant(&known.what) == std::mem::discriminant(&object.what)
        };
        if objects.iter().any(same) {
            return Err(Fault::new(object.span, format!("{} is there already", object.name)));
        }
        objects.push(object);
        Ok(())
    }

    /// Behind `flush`.
    pub(super) fn flush(&mut self) -> Parsed<()> {
        let (what, span) = self.name("ruleset")?;
        match what.as_str() {
            "ruleset" => {
                let family = matches!(self.peek(), Word::Name(_)).then(|| self.family()).transpose()?;
                self.ruleset.tables.retain(|table| family.is_some_and(|family| table.family != family));
                self.find_chains();
                self.ends()
            }
            "table" => {
                let family = self.family()?;
                let (name, _) = self.name("the table's name")?;
                let emptied = self.ruleset.tables.iter_mut().find(|table| table.family == family && table.name == name);
                if let Some(table) = emptied {
                    table.chains.iter_mut().for_each(|chain| chain.rules.clear());
                }
                self.ends()
            }
            "chain" => {
                let (table, name, span) = self.named_in_table("the chain's name")?;
                let chain = table.and_then(|table| self.chain_of(table, &name));
                match chain {
                    Some(chain) => chain.rules.clear(),
                    None => return Err(Fault::new(span, format!("{name}: there is no such chain"))),
                }
                self.ends()
            }
            "set" | "map" => {
                let (table, name, span) = self.named_in_table("the set's name")?;
                match table.and_then(|table| self.set_of(table, &name)) {
                    Some(set) => set.elements.clear(),
                    None => return Err(Fault::new(span, format!("{name}: there is no such set"))),
                }
                self.ends()
            }
            _ => {
                Err(Fault::new(span, format!("{what} cannot be flushed")).instead("ruleset, table, chain, set or map"))
            }
        }
    }

    /// Behind `delete`: what a file deletes before it makes it anew.
    pub(super) fn delete(&mut self) -> Parsed<()> {
        let (what, span) = self.name("table")?;
        if what != "table" {
            return Err(Fault::new(span, format!("delete {what}: a ruleset is loaded whole here"))
                .instead("leave it away, and what it deletes"));
        }
        let family = self.family()?;
        let (name, _) = self.name("the table's name")?;
        self.ruleset.tables.retain(|table| table.family != family || table.name != name);
        self.find_chains();
        self.ends()
    }

    /// Tables have gone: those behind them have moved.
    fn find_chains(&mut self) {
        let tables = self.ruleset.tables.iter().enumerate();
        let chains = tables.flat_map(|(table, content)| {
            let names = content.chains.iter().enumerate();
            names.map(move |(at, chain)| ((table, chain.name.clone()), at))
        });
        self.chains = chains.collect();
    }

    /// Behind `add`; or `insert`, which puts a rule before those that are there.
    pub(super) fn add(&mut self, first: bool) -> Parsed<()> {
        let (what, span) = self.name("table, chain, rule, set, map or element")?;
        match what.as_str() {
            "table" => self.table(),
            "chain" => {
                let family = self.family()?;
                let (name, _) = self.name("the table's name")?;
                let table = self.table_at(family, &name);
                self.chain(table)
            }
            "rule" => {
                let (table, name, span) = self.named_in_table("the chain's name")?;
                let rule = self.rule()?;
                match table.and_then(|table| self.chain_of(table, &name)) {
                    Some(chain) if first => chain.rules.insert(0, rule),
                    Some(chain) => chain.rules.push(rule),
                    None => return Err(Fault::new(span, format!("{name}: there is no such chain"))),
                }
                self.ends()
            }
            "set" | "map" => {
                let family = self.family()?;
                let (name, _) = self.name("the table's name")?;
                let table = self.table_at(family, &name);
                self.named_set(table, what == "map")
            }
            "element" => {
                let (table, name, span) = self.named_in_table("the set's name")?;
                let Some(table) = table else {
                    return Err(Fault::new(span, format!("{name}: there is no such table")));
                };
                self.more_elements(table, &name, span)?;
                self.ends()
            }
            "counter" | "quota" | "limit" | "ct" => {
                // `add ct helper ip filter name { … }`: the kind stands before the table.
                let kind = if what == "ct" { Some(self.name("helper or timeout")?) } else { None };
                let family = self.family()?;
                let (name, _) = self.name("the table's name")?;
                let table = self.table_at(family, &name);
                match kind {
                    None => self.object(table, &what),
                    Some((kind, _)) if kind == "timeout" => self.timeout(table),
                    Some((kind, _)) if kind == "helper" => self.helper(table),
                    Some((kind, at)) => Err(Fault::new(at, format!("ct {kind} objects are not supported"))
                        .instead("ct helper, or ct timeout")),
                }
            }
            _ => Err(Fault::new(span, format!("{what} cannot be added"))
                .instead("table, chain, rule, set, map, element, counter, quota or limit")),
        }
    }

    /// `[FAMILY] TABLE NAME`: the table, if there is one, and the name.
    fn named_in_table(&mut self, wanted: &str) -> Parsed<(Option<usize>, String, Span)> {
        let family = self.family()?;
        let (table, _) = self.name("the table's name")?;
        let (name, span) = self.name(wanted)?;
        let at = self.ruleset.tables.iter().position(|known| known.family == family && known.name == table);
        Ok((at, name, span))
    }

    pub(super) fn chain_of(&mut self, table: usize, name: &str) -> Option<&mut Chain> {
        let at = *self.chains.get(&(table, name.to_owned()))?;
        self.ruleset.tables.get_mut(table)?.chains.get_mut(at)
    }

    pub(super) fn set_of(&mut self, table: usize, name: &str) -> Option<&mut Set> {
        self.ruleset.tables.get_mut(table)?.sets.iter_mut().find(|set| set.name == name)
    }
}
