//! Chains without a name: rules that stand in another rule, behind `jump` or `goto`.
use super::parser::{ParseResult, Parser};
use crate::ast::{AnonymousChain, Statement};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;

impl Parser<'_> {
    /// Is `jump {` or `goto {` next?
    pub(super) fn is_anonymous_chain(&mut self) -> bool {
        matches!(self.peek(), TokenKind::Ident(word) if word == "jump" || word == "goto")
            && matches!(self.peek_second(), TokenKind::Punct("{"))
    }

    /// `jump { RULE; … }` or `goto { RULE; … }`.
    pub(super) fn parse_anonymous_chain(&mut self) -> ParseResult<Statement> {
        let span = self.span();
        let comes_back = self.eat_keyword("jump") || !self.eat_keyword("goto");
        self.expect_punct("{")?;
        if self.in_anonymous_chain {
            return Err(Diagnostic::new(span, "a chain without a name cannot stand in another one")
                .with_help("give it a name: `chain NAME { … }` beside this chain, and `jump NAME`"));
        }
        let recording = self.rule_recording;
        let (text_offset, mark) = (self.text_since(recording).len(), self.start_recording());
        let outer = (self.rule_context.take(), std::mem::take(&mut self.anonymous_sets), self.rule_table);
        self.in_anonymous_chain = true;
        let depth = self.brace_depth;
        let mut rules = Vec::new();
        loop {
            self.skip_separators();
            match self.peek() {
                TokenKind::Punct("}") => break,
                // A comment of its own, which a rule cannot be.
                TokenKind::Ident(word) if word == "comment" => return Err(self.unexpected("a rule")),
                _ => (),
            }
            let parsed = self.parse_rule_of(outer.2).and_then(|rule| self.expect_end().map(|()| rule));
            match parsed {
                Ok(rule) if outer.2.is_some_and(|table| self.names_left_out(table, &rule)) => (),
                Ok(rule) => rules.push(rule),
                Err(diagnostic) => self.leave_out(diagnostic, depth)?,
            }
        }
        self.drop_recorded(mark);
        self.in_anonymous_chain = false;
        (self.rule_context, self.anonymous_sets, self.rule_table) = outer;
        self.rule_recording = recording;
        self.expect_punct("}")?;
        Ok(Statement::AnonymousChain(AnonymousChain { comes_back, rules, text_offset }))
    }
}
