//! Statements that name something of the table: objects by name or by a map, flowtables; and `last`.
use super::parser::{ParseResult, Parser};
use super::selector::is_selector_keyword;
use crate::ast::{Expression, ObjectKind, Statement};
use crate::datatype::DataType;
use crate::lexer::TokenKind;

impl Parser<'_> {
    /// `name "x"`, if it is next.
    pub(super) fn parse_object_ref(&mut self, kind: ObjectKind) -> ParseResult<Option<Statement>> {
        if !self.eat_keyword("name") {
            return Ok(None);
        }
        if let Some(mapped) = self.parse_object_map(kind)? {
            return Ok(Some(mapped));
        }
        let (name, span) = self.expect_name("an object name")?;
        Ok(Some(Statement::ObjectRef(kind, name, span)))
    }

    /// `tcp dport map { 80 : "x" }`, if a key is next.
    fn parse_object_map(&mut self, kind: ObjectKind) -> ParseResult<Option<Statement>> {
        let is_key = matches!(self.peek(), TokenKind::Ident(word) if is_selector_keyword(word) || matches!(word.as_str(), "numgen" | "jhash" | "symhash"));
        if !is_key {
            return Ok(None);
        }
        let key = self.parse_key()?;
        self.expect_keyword("map")?;
        let kinds: Vec<DataType> = key.iter().map(Expression::data_type).collect();
        let map = self.parse_map_ref(&kinds, &[DataType::Object(kind)])?;
        Ok(Some(Statement::ObjectMap(kind, key, map)))
    }

    /// After `ct helper set`, `ct timeout set` or `ct expectation set`.
    pub(super) fn parse_ct_object_set(&mut self, kind: ObjectKind) -> ParseResult<Statement> {
        if let Some(mapped) = self.parse_object_map(kind)? {
            return Ok(mapped);
        }
        let (name, span) = self.expect_name("the name of an object")?;
        Ok(match kind {
            ObjectKind::CtHelper => Statement::CtHelper(name, span),
            ObjectKind::CtExpectation => Statement::CtExpectation(name, span),
            ObjectKind::SecMark => Statement::ObjectRef(kind, name, span),
            _ => Statement::CtTimeout(name, span),
        })
    }

    /// After `flow`: `add @NAME`, or `offload @NAME` as older nft writes it.
    pub(super) fn parse_flow_offload(&mut self) -> ParseResult<Statement> {
        // What is a meter now.
        if self.eat_keyword("table") {
            return self.parse_meter().map(Statement::Dynset);
        }
        if !self.eat_keyword("add") && !self.eat_keyword("offload") {
            return Err(self.unexpected("`add`"));
        }
        match self.peek() {
            TokenKind::SetName(name) => {
                let name = name.clone();
                Ok(Statement::FlowOffload(name, self.next_token().span))
            }
            _ => Err(self.unexpected("a flowtable name with @")),
        }
    }

    /// After `last`: `used never`, `used 5s`, or nothing.
    pub(super) fn parse_last(&mut self) -> ParseResult<Statement> {
        if self.eat_keyword("used") && !self.eat_keyword("never") {
            self.parse_time()?;
        }
        Ok(Statement::Last)
    }
}
