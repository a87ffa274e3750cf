//! Leaving out what is not supported, on request: each thing is remembered, none is silent.
use super::parser::{ParseResult, Parser};
use crate::ast::Rule;
use crate::diagnostic::Diagnostic;
use crate::lexer::{TokenKind, tokenize};

impl Parser<'_> {
    /// Leaves out what an error is about, up to the end of its line in the block at brace depth `depth`. Other errors are returned.
    pub(super) fn leave_out(&mut self, diagnostic: Diagnostic, depth: usize) -> ParseResult<()> {
        if !(self.left_out.active && diagnostic.unsupported) {
            return Err(diagnostic);
        }
        self.left_out.diagnostics.push(diagnostic);
        self.skip_line(depth)
    }

    /// Remembers a table that is the kernel's, once, and leaves out what is said about it.
    pub(super) fn note_not_governed(&mut self, diagnostic: Diagnostic, depth: usize) -> ParseResult<()> {
        self.note(diagnostic);
        self.skip_line(depth)
    }

    /// Remembers what is not in force here as it is in the kernel, once, at its first place.
    pub(super) fn note(&mut self, diagnostic: Diagnostic) {
        let known = &mut self.ruleset.notes;
        if !known.iter().any(|one| one.message == diagnostic.message) {
            known.push(diagnostic);
        }
    }

    /// As [`Parser::leave_out`], for an item of a table's block, which rules may name.
    pub(super) fn leave_out_item(
        &mut self,
        table: usize,
        name: Option<String>,
        diagnostic: Diagnostic,
        depth: usize,
    ) -> ParseResult<()> {
        self.leave_out(diagnostic, depth)?;
        self.left_out.names.extend(name.map(|name| (table, name)));
        Ok(())
    }

    /// Name of the table's item that is next.
    pub(super) fn peek_item_name(&mut self) -> Option<String> {
        self.peek();
        let mut words = self.tokens.iter().rev().map(|token| &token.kind);
        let is_ct = matches!(words.next()?, TokenKind::Ident(word) if word == "ct");
        match words.nth(usize::from(is_ct))? {
            TokenKind::Ident(name) | TokenKind::Quoted(name) => Some(name.clone()),
            _ => None,
        }
    }

    /// Does a rule name something that was left out? Then it is left out too.
    pub(super) fn names_left_out(&mut self, table: usize, rule: &Rule) -> bool {
        if self.left_out.names.iter().all(|(of, _)| *of != table) {
            return false;
        }
        let words = tokenize(0, &rule.text).unwrap_or_default();
        let named = words.into_iter().find_map(|token| match token.kind {
            TokenKind::SetName(name) | TokenKind::Ident(name) | TokenKind::Quoted(name) => {
                self.left_out.names.contains(&(table, name.clone())).then_some(name)
            }
            _ => None,
        });
        if let Some(name) = &named {
            let what = format!("the rule names {name}, which is left out");
            self.left_out.diagnostics.push(Diagnostic::unsupported(rule.span, what));
        }
        named.is_some()
    }
}
