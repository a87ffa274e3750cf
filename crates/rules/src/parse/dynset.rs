//! What packets put into sets and maps, and take away: `add`, `update`, `delete`, `meter`.
use super::parser::{ParseResult, Parser};
use crate::ast::{Dynset, DynsetOp, Expression, StatefulSpec, Statement};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind};
use crate::source::Span;

/// Elements of a meter that says nothing of its size.
const DEFAULT_METER_SIZE: u32 = 65_535;

impl Parser<'_> {
    /// Behind `add`, `update` or `delete`: `@set { key … }`.
    pub(super) fn parse_dynset(&mut self, word: &str) -> ParseResult<Dynset> {
        let operation = match word {
            "add" => DynsetOp::Add,
            "update" => DynsetOp::Update,
            _ => DynsetOp::Delete,
        };
        let Token { kind: TokenKind::SetName(set), span } = self.next_token() else {
            return Err(self.unexpected("a set"));
        };
        self.parse_dynset_element(operation, set, span, None)
    }

    /// Behind `meter`: `NAME [size N] { key … }`, a set of its own that nobody has to name before.
    pub(super) fn parse_meter(&mut self) -> ParseResult<Dynset> {
        let (name, span) = self.expect_name("the meter's name")?;
        let size = if self.eat_keyword("size") { self.expect_u32("a number of elements")? } else { DEFAULT_METER_SIZE };
        let meter = self.parse_dynset_element(DynsetOp::Add, name, span, Some(size))?;
        // An element that ends is kept as long as packets come.
        let operation = if meter.timeout.is_some() { DynsetOp::Update } else { DynsetOp::Add };
        Ok(Dynset { op: operation, ..meter })
    }

    fn parse_dynset_element(
        &mut self,
        operation: DynsetOp,
        set: String,
        span: Span,
        meter: Option<u32>,
    ) -> ParseResult<Dynset> {
        self.expect_punct("{")?;
        let key = self.parse_key()?;
        if key.is_empty() {
            return Err(self.unexpected("what of the packet becomes the element, like `ip saddr`"));
        }
        let mut timeout = None;
        let mut each = Vec::new();
        let mut data = Vec::new();
        loop {
            if self.eat_keyword("timeout") {
                timeout = Some(self.parse_time()?);
            } else if self.eat_punct("}") {
                return Ok(Dynset { op: operation, set, span, meter_size: meter, key, timeout, stateful: each, data });
            } else if data.is_empty() && meter.is_none() && self.eat_punct(":") {
                data = self.parse_dynset_data()?;
            } else if !matches!(self.peek(), TokenKind::Ident(word) if matches!(word.as_str(), "limit" | "quota" | "counter" | "ct"))
            {
                return Err(self.unexpected("limit, quota, counter, ct count, timeout or `}`"));
            } else {
                each.push(self.parse_stateful_spec()?);
            }
        }
    }

    /// A limit, quota, counter or number of connections that an element has of its own.
    pub(super) fn parse_stateful_spec(&mut self) -> ParseResult<StatefulSpec> {
        let start = self.span();
        Ok(match self.parse_statement()? {
            Statement::Limit(limit) => StatefulSpec::Limit(limit),
            Statement::Counter(..) => StatefulSpec::Counter,
            Statement::Quota { over, bytes } => StatefulSpec::Quota { over, bytes },
            Statement::ConnLimit { over, count } => StatefulSpec::ConnLimit { over, count },
            _ => {
                return Err(Diagnostic::new(start, "an element cannot have this")
                    .with_help("limit, quota, counter or ct count"));
            }
        })
    }

    /// What a packet maps its element to: values looked up in it, or a constant.
    fn parse_dynset_data(&mut self) -> ParseResult<Vec<Expression>> {
        let key = self.parse_key()?;
        if !key.is_empty() {
            return Ok(key);
        }
        let kind = match self.peek() {
            TokenKind::Address4(_) => DataType::Address4,
            TokenKind::Address6(_) => DataType::Address6,
            TokenKind::Number(_) => DataType::Number(32),
            _ => return Err(self.unexpected("what of the packet, or which value, the element maps to")),
        };
        Ok(vec![Expression::Constant(self.parse_value(kind)?, kind)])
    }
}
