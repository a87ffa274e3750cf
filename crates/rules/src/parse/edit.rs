//! Commands that change a ruleset: add, create, insert, replace, delete, destroy, flush, rename.
use super::parser::{ParseResult, Parser};
use crate::ast::{AddedItem, Chain, NftVerdict, Rule, Set, SetChangeKind, Statement, TableFamily};
use crate::ast::{ElementData, SetRef};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;

/// How something is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddMode {
    /// What exists already stays as it is.
    Add,
    /// It must not exist.
    Create,
    /// Rules only: before the others.
    Insert,
}

impl Parser<'_> {
    /// After `add`, `create` or `insert`.
    pub(super) fn parse_add(&mut self, mode: AddMode) -> ParseResult<()> {
        let (what, span) = self.expect_word("table, chain, rule, set, map or element")?;
        let fits = match mode {
            AddMode::Add => true,
            AddMode::Create => what != "rule",
            AddMode::Insert => what == "rule",
        };
        if !fits {
            return Err(
                Diagnostic::new(span, "`insert` is for rules, and `create` for everything else").with_help("use add")
            );
        }
        self.script.create = mode == AddMode::Create;
        match what.as_str() {
            "rule" => self.parse_add_rule(mode),
            "element" => {
                self.script.create = false;
                self.parse_elements_command(|elements| SetChangeKind::Add { elements, create: mode == AddMode::Create })
            }
            "table" => self.echoed(|parser| parser.parse_table()),
            _ => self.echoed(|parser| parser.parse_add_item(&what, span)),
        }
    }

    /// After `add chain`, `add set` and so on.
    fn parse_add_item(&mut self, what: &str, span: Span) -> ParseResult<()> {
        // `add ct helper ip filter name { … }`: the object type precedes the table.
        let kind = if what == "ct" { Some(self.expect_word("helper, timeout or expectation")?) } else { None };
        if !matches!(
            what,
            "chain" | "set" | "map" | "counter" | "quota" | "limit" | "synproxy" | "secmark" | "ct" | "flowtable"
        ) {
            return Err(Diagnostic::new(span, format!("cannot add `{what}`")).with_help(
                "use table, chain, rule, set, map, element, flowtable, counter, quota, limit, synproxy or ct",
            ));
        }
        let family = self.parse_family()?;
        let (name, name_span) = self.expect_identifier("a table name")?;
        let table = match self.table_index(family, &name) {
            None => {
                return Err(Diagnostic::new(name_span, format!("no table {family} {name}"))
                    .with_help(format!("write `add table {family} {name}` first")));
            }
            Some(table) => table,
        };
        match (what, kind) {
            ("chain", _) => self.parse_chain(table),
            ("set" | "map", _) => self.parse_named_set(table, what == "map"),
            ("synproxy", _) => self.parse_synproxy_object(table),
            ("secmark", _) => self.parse_secmark_object(table),
            ("flowtable", _) => self.parse_flowtable(table),
            (_, None) => self.parse_object(table, what),
            (_, Some((kind, _))) if kind == "timeout" => self.parse_ct_timeout(table),
            (_, Some((kind, _))) if kind == "expectation" => self.parse_ct_expectation(table),
            (_, Some((kind, _))) if kind == "helper" => self.parse_ct_helper(table),
            (_, Some((kind, at))) => Err(Diagnostic::new(at, format!("there are no objects of type `ct {kind}`"))
                .with_help("use ct helper, ct timeout or ct expectation")),
        }
    }

    /// Runs a command that adds tables or parts of tables, and notes what it has added, for `--echo`.
    pub(super) fn echoed(&mut self, command: impl FnOnce(&mut Self) -> ParseResult<()>) -> ParseResult<()> {
        if !self.script.active {
            return command(self);
        }
        let before: Vec<(u64, u64)> = self.ruleset.tables.iter().map(|table| (table.handle, table.handles)).collect();
        self.script.tree_changed = true;
        command(self)?;
        self.ruleset.assign_handles();
        for table in &self.ruleset.tables {
            let known = before.iter().find(|(handle, _)| *handle == table.handle);
            let item = |handle| AddedItem { table: table.handle, handle, inserted: false };
            if known.is_none() {
                self.script.added.push(item(None));
            }
            let first = known.map_or(0, |(_, handles)| *handles) + 1;
            self.script.added.extend((first..=table.handles).map(|handle| item(Some(handle))));
        }
        Ok(())
    }

    /// After `add rule` or `insert rule`: where, and the rule.
    fn parse_add_rule(&mut self, mode: AddMode) -> ParseResult<()> {
        self.script.create = false;
        let (table, chain, span) = self.parse_table_and_name("a chain name")?;
        let insert = mode == AddMode::Insert;
        let place_span = self.span();
        let place = match self.peek() {
            TokenKind::Ident(word) if matches!(word.as_str(), "handle" | "position" | "index") => {
                let by_index = word == "index";
                self.next_token();
                let number = self.expect_number("a number")?.0;
                // As in nft, 0 names no rule: the usual place.
                (by_index || number > 0).then_some((by_index, number))
            }
            _ => None,
        };
        let rule = self.parse_rule(table)?;
        let (table, chain) = self.chain_at(table, &chain, span)?;
        let at = match place {
            None if insert => 0,
            None => chain.rules.len(),
            Some((by_index, number)) => {
                let found = match by_index {
                    true => usize::try_from(number).ok().filter(|at| *at < chain.rules.len()),
                    false => chain.rules.iter().position(|rule| rule.handle == number),
                };
                let what = if by_index { "index" } else { "handle" };
                let missing =
                    || Diagnostic::new(place_span, format!("chain {} has no rule with {what} {number}", chain.name));
                found.ok_or_else(missing)? + usize::from(!insert)
            }
        };
        chain.rules.insert(at.min(chain.rules.len()), rule);
        self.number_rule(table, insert);
        self.expect_end()
    }

    /// Gives the rule that a command has added its handle.
    fn number_rule(&mut self, table: usize, inserted: bool) {
        if !self.script.active {
            return;
        }
        self.script.tree_changed = true;
        let Some(table) = self.ruleset.tables.get_mut(table) else { return };
        let mut rules = table.chains.iter_mut().flat_map(|chain| &mut chain.rules);
        if let Some(rule) = rules.find(|rule| rule.handle == 0) {
            rule.assign_handle(&mut table.handles);
            self.script.added.push(AddedItem { table: table.handle, handle: Some(rule.handle), inserted });
        }
    }

    /// After `replace`: `rule [FAMILY] TABLE CHAIN handle N RULE`.
    pub(super) fn parse_replace(&mut self) -> ParseResult<()> {
        self.expect_keyword("rule")?;
        let (table, chain, span) = self.parse_table_and_name("a chain name")?;
        self.expect_keyword("handle")?;
        let (handle, handle_span) = self.expect_number("a handle")?;
        let rule = self.parse_rule(table)?;
        let (table, chain) = self.chain_at(table, &chain, span)?;
        let missing = Diagnostic::new(handle_span, format!("chain {} has no rule with handle {handle}", chain.name));
        let old = chain.rules.iter_mut().find(|rule| rule.handle == handle).ok_or(missing)?;
        *old = Rule { handle, replaced: old.replaced.wrapping_add(1), ..rule };
        self.script.tree_changed = true;
        let table = self.ruleset.tables.get(table).map_or(0, |table| table.handle);
        self.script.added.push(AddedItem { table, handle: Some(handle), inserted: false });
        self.expect_end()
    }

    /// After `delete`, or (with `must_exist` false) after `destroy`.
    pub(super) fn parse_delete(&mut self, must_exist: bool) -> ParseResult<()> {
        let (what, span) = self.expect_word("table, chain, rule, set, map, element or an object")?;
        // A ruleset file may delete a table that was never there, before it creates it.
        let strict = must_exist && self.script.active;
        match what.as_str() {
            "table" => {
                let family = self.parse_family()?;
                let (name, name_span) = self.parse_name_or_handle("a table name")?;
                let same = |table: &crate::ast::Table| table.family == family && name.is(&table.name, table.handle);
                let deleted = self.ruleset.tables.iter().find(|table| same(table)).map(|table| table.name.clone());
                self.ruleset.tables.retain(|table| !same(table));
                match deleted {
                    Some(name) => self.forget_changes(family, &name, None),
                    None if strict => return Err(Diagnostic::new(name_span, format!("no table {family} {name}"))),
                    None => (),
                }
                self.index_chains();
            }
            "rule" => {
                let (table, chain, span) = self.parse_table_and_name("a chain name")?;
                self.expect_keyword("handle")?;
                let (handle, handle_span) = self.expect_number("a handle")?;
                let chain = match self.chain_at(table, &chain, span) {
                    Err(_) if !must_exist => return self.expect_end(),
                    other => other?.1,
                };
                let before = chain.rules.len();
                chain.rules.retain(|rule| rule.handle != handle);
                if chain.rules.len() == before && must_exist {
                    let what = format!("chain {} has no rule with handle {handle}", chain.name);
                    return Err(Diagnostic::new(handle_span, what)
                        .with_help("`keepstate control nft -a list ruleset` shows handles"));
                }
            }
            "element" => {
                return self.parse_elements_command(|elements| SetChangeKind::Delete { elements, must_exist });
            }
            _ => self.parse_delete_item(&what, span, must_exist)?,
        }
        self.script.tree_changed = true;
        self.expect_end()
    }

    /// After `delete chain`, `delete set` and so on.
    fn parse_delete_item(&mut self, what: &str, span: Span, must_exist: bool) -> ParseResult<()> {
        let kind = if what == "ct" { self.expect_word("helper, timeout or expectation")?.0 } else { what.to_owned() };
        if !matches!(
            kind.as_str(),
            "chain"
                | "set"
                | "map"
                | "flowtable"
                | "counter"
                | "quota"
                | "limit"
                | "synproxy"
                | "secmark"
                | "helper"
                | "timeout"
                | "expectation"
        ) {
            return Err(Diagnostic::new(span, format!("cannot delete `{what}`")).with_help(
                "use table, chain, rule, set, map, element, flowtable, counter, quota, limit, synproxy or ct",
            ));
        }
        let family = self.parse_family()?;
        let (table_name, table_span) = self.expect_identifier("a table name")?;
        let (name, name_span) = self.parse_name_or_handle("a name")?;
        // `delete chain ip t c { type filter hook …; }` is the same as without the block.
        self.skip_block()?;
        let Some(at) = self.table_index(family, &table_name) else {
            let missing = Diagnostic::new(table_span, format!("no table {family} {table_name}"));
            return if must_exist { Err(missing) } else { Ok(()) };
        };
        let Some(table) = self.ruleset.tables.get_mut(at) else { return Ok(()) };
        let length = |table: &crate::ast::Table| {
            table.chains.len() + table.sets.len() + table.objects.len() + table.flowtables.len()
        };
        let before = length(table);
        let mut gone_set = None;
        match kind.as_str() {
            "chain" => table.chains.retain(|chain| !name.is(&chain.name, chain.handle)),
            "set" | "map" => {
                let same = |set: &Set| name.is(&set.name, set.handle);
                gone_set = table.sets.iter().find(|set| same(set)).map(|set| set.name.clone());
                table.sets.retain(|set| !same(set));
            }
            "flowtable" => table.flowtables.retain(|known| !name.is(known, 0)),
            _ => table.objects.retain(|object| {
                !(name.is(&object.name, object.handle) && object.body.keyword().trim_start_matches("ct ") == kind)
            }),
        }
        if length(table) == before && must_exist {
            return Err(Diagnostic::new(name_span, format!("table {family} {table_name} has no {kind} {name}")));
        }
        if let Some(set) = gone_set {
            self.forget_changes(family, &table_name, Some(&set));
        }
        self.index_chains();
        Ok(())
    }

    /// After `flush`.
    pub(super) fn parse_flush(&mut self) -> ParseResult<()> {
        let (what, span) = self.expect_word("ruleset")?;
        match what.as_str() {
            "ruleset" => {
                let family = matches!(self.peek(), TokenKind::Ident(_)).then(|| self.parse_family()).transpose()?;
                let goes = |table: &crate::ast::Table| family.is_none_or(|family| table.family == family);
                self.script.changes.retain(|change| family.is_some_and(|family| change.family != family));
                self.ruleset.tables.retain(|table| !goes(table));
                self.ruleset.flushed |= family.is_none();
                self.index_chains();
            }
            "table" => {
                let family = self.parse_family()?;
                let (name, name_span) = self.expect_identifier("a table name")?;
                let emptied = self.ruleset.tables.iter_mut().find(|table| table.family == family && table.name == name);
                match emptied {
                    Some(table) => table.chains.iter_mut().for_each(|chain| chain.rules.clear()),
                    None if self.script.active => {
                        return Err(Diagnostic::new(name_span, format!("no table {family} {name}")));
                    }
                    None => (),
                }
            }
            "chain" => {
                let (table, name, span) = self.parse_table_and_name("a chain name")?;
                self.chain_at(table, &name, span)?.1.rules.clear();
            }
            "set" | "map" | "meter" => {
                let (table, name, span) = self.parse_table_and_name("a set name")?;
                self.change_elements(table, &name, span, SetChangeKind::Flush)?;
                return self.expect_end();
            }
            _ => {
                return Err(Diagnostic::new(span, format!("cannot flush `{what}`"))
                    .with_help("use ruleset, table, chain, set or map"));
            }
        }
        self.script.tree_changed = true;
        self.expect_end()
    }

    /// After `rename`: `chain [FAMILY] TABLE OLD NEW`.
    pub(super) fn parse_rename(&mut self) -> ParseResult<()> {
        self.expect_keyword("chain")?;
        let (table, name, span) = self.parse_table_and_name("a chain name")?;
        let (new, new_span) = self.expect_identifier("the new name")?;
        if table.is_some_and(|table| self.chain_mut(table, &new).is_some()) {
            return Err(Diagnostic::new(new_span, format!("chain {new} already exists")));
        }
        let (at, chain) = self.chain_at(table, &name, span)?;
        chain.name.clone_from(&new);
        if let Some(table) = self.ruleset.tables.get_mut(at) {
            for rule in table.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
                rename_in_rule(rule, &name, &new);
            }
            table.sets.iter_mut().for_each(|set| rename_elements(set, &name, &new));
        }
        self.index_chains();
        self.script.tree_changed = true;
        self.expect_end()
    }

    /// `[FAMILY] TABLE NAME`: the table, if there is one, and the name.
    pub(super) fn parse_table_and_name(&mut self, wanted: &str) -> ParseResult<(Option<usize>, String, Span)> {
        let family = self.parse_family()?;
        let (table, _) = self.expect_identifier("a table name")?;
        let (name, span) = self.expect_identifier(wanted)?;
        Ok((self.table_index(family, &table), name, span))
    }

    /// A name, or `handle N`.
    fn parse_name_or_handle(&mut self, wanted: &str) -> ParseResult<(NameOrHandle, Span)> {
        if matches!(self.peek(), TokenKind::Ident(word) if word == "handle")
            && matches!(self.peek_second(), TokenKind::Number(_))
        {
            self.next_token();
            let (handle, span) = self.expect_number("a handle")?;
            return Ok((NameOrHandle::Handle(handle), span));
        }
        self.expect_identifier(wanted).map(|(name, span)| (NameOrHandle::Name(name), span))
    }

    /// Skips a block in braces, if one is next.
    fn skip_block(&mut self) -> ParseResult<()> {
        if !self.eat_punct("{") {
            return Ok(());
        }
        let depth = self.brace_depth;
        while self.brace_depth >= depth {
            if matches!(self.peek(), TokenKind::Eof) {
                return Err(self.unexpected("`}`"));
            }
            self.next_token();
        }
        Ok(())
    }

    /// The chain, with the index of its table.
    fn chain_at(&mut self, table: Option<usize>, name: &str, span: Span) -> ParseResult<(usize, &mut Chain)> {
        let missing = || Diagnostic::new(span, format!("no chain named {name}"));
        let table = table.ok_or_else(missing)?;
        self.chain_mut(table, name).map(|chain| (table, chain)).ok_or_else(missing)
    }

    /// What the script did to sets that it has deleted since does not matter any more.
    fn forget_changes(&mut self, family: TableFamily, table: &str, set: Option<&str>) {
        self.script.changes.retain(|change| {
            change.family != family || change.table != table || set.is_some_and(|set| change.set != set)
        });
    }

    /// Rebuilds the chain index after chains or tables were removed.
    pub(super) fn index_chains(&mut self) {
        let tables = self.ruleset.tables.iter().enumerate();
        let chains = tables.flat_map(|(table, content)| {
            let names = content.chains.iter().enumerate();
            names.map(move |(at, chain)| ((table, chain.name.clone()), at))
        });
        self.chains = chains.collect();
    }
}

/// How a command names what it deletes.
enum NameOrHandle {
    Name(String),
    Handle(u64),
}

impl NameOrHandle {
    fn is(&self, name: &str, handle: u64) -> bool {
        match self {
            NameOrHandle::Name(wanted) => wanted == name,
            NameOrHandle::Handle(wanted) => *wanted == handle,
        }
    }
}

impl std::fmt::Display for NameOrHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NameOrHandle::Name(name) => f.write_str(name),
            NameOrHandle::Handle(handle) => write!(f, "with handle {handle}"),
        }
    }
}

fn rename_verdict(verdict: &mut NftVerdict, old: &str, new: &str) {
    if let NftVerdict::Jump(name, _) | NftVerdict::Goto(name, _) = verdict
        && name == old
    {
        *name = new.to_owned();
    }
}

fn rename_elements(set: &mut Set, old: &str, new: &str) {
    for element in &mut set.elements {
        if let Some(ElementData::Verdict(verdict)) = &mut element.data {
            rename_verdict(verdict, old, new);
        }
    }
}

fn rename_in_rule(rule: &mut Rule, old: &str, new: &str) {
    for statement in &mut rule.statements {
        match statement {
            Statement::AnonymousChain(chain) => {
                chain.rules.iter_mut().for_each(|rule| rename_in_rule(rule, old, new));
                let head = rule.text.get(..chain.text_offset).unwrap_or_default();
                chain.text_offset = renamed_text(head, old, new).len();
            }
            other => rename_jumps(other, old, new),
        }
    }
    rule.text = renamed_text(&rule.text, old, new);
}

fn rename_jumps(statement: &mut Statement, old: &str, new: &str) {
    match statement {
        Statement::Verdict(verdict) => rename_verdict(verdict, old, new),
        Statement::Vmap(_, SetRef::Anonymous(set)) => rename_elements(set, old, new),
        _ => (),
    }
}

/// The rule's text with the chain's new name behind `jump` and `goto`.
fn renamed_text(text: &str, old: &str, new: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut jumps = false;
    for (at, word) in text.split(' ').enumerate() {
        if at > 0 {
            out.push(' ');
        }
        match word.strip_prefix(old) {
            Some(rest) if jumps && matches!(rest, "" | "," | "}") => {
                out.push_str(new);
                out.push_str(rest);
            }
            _ => out.push_str(word),
        }
        jumps = matches!(word.rsplit(':').next(), Some("jump" | "goto"));
    }
    out
}
