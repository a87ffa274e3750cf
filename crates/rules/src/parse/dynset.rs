//! Changes of sets and maps by packets: `add`, `update`, `delete`, `meter`.
use super::parser::{ParseResult, Parser};
use crate::ast::{DEFAULT_DYNSET_SIZE, Dynset, DynsetOp, Expression, StatefulSpec, Statement};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind};
use crate::source::Span;

impl Parser<'_> {
    /// After `add`, `update` or `delete`: `@set { key … }`.
    pub(super) fn parse_dynset(&mut self, word: &str) -> ParseResult<Dynset> {
        let op = match word {
            "add" => DynsetOp::Add,
            "update" => DynsetOp::Update,
            _ => DynsetOp::Delete,
        };
        let Token { kind: TokenKind::SetName(set), span } = self.next_token() else {
            return Err(self.unexpected("a set name with @"));
        };
        self.parse_dynset_element(op, set, span, None)
    }

    /// After `set`, as older nft writes it: `add KEY @set`.
    pub(super) fn parse_set_statement(&mut self) -> ParseResult<Dynset> {
        let (word, span) = self.expect_word("add or update")?;
        let op = match word.as_str() {
            "add" => DynsetOp::Add,
            "update" => DynsetOp::Update,
            "delete" => DynsetOp::Delete,
            _ => {
                return Err(Diagnostic::new(span, format!("unknown operation `{word}`")).with_help("use add or update"));
            }
        };
        let key = self.parse_dynset_key()?;
        let timeout = if self.eat_keyword("timeout") { Some(self.parse_time()?) } else { None };
        self.skip_expires()?;
        let Token { kind: TokenKind::SetName(set), span } = self.next_token() else {
            return Err(self.unexpected("a set name with @"));
        };
        Ok(Dynset { op, set, span, meter_size: None, key, timeout, stateful: Vec::new(), data: Vec::new() })
    }

    /// After `meter`: `NAME [size N] { key … }`, a dynamic set that needs no declaration.
    pub(super) fn parse_meter(&mut self) -> ParseResult<Dynset> {
        let (name, span) = self.expect_identifier("a name for the meter")?;
        let size =
            if self.eat_keyword("size") { self.expect_u32("a number of elements")? } else { DEFAULT_DYNSET_SIZE };
        let meter = self.parse_dynset_element(DynsetOp::Add, name, span, Some(size))?;
        self.anonymous_sets += 1;
        // As in nft, packets refresh the timeout of a meter's element.
        let op = if meter.timeout.is_some() { DynsetOp::Update } else { DynsetOp::Add };
        Ok(Dynset { op, ..meter })
    }

    fn parse_dynset_element(
        &mut self,
        op: DynsetOp,
        set: String,
        span: Span,
        meter: Option<u32>,
    ) -> ParseResult<Dynset> {
        self.expect_punct("{")?;
        let key = self.parse_dynset_key()?;
        self.skip_expires()?;
        let mut timeout = None;
        let mut stateful = Vec::new();
        let mut data = Vec::new();
        loop {
            if self.eat_keyword("timeout") {
                timeout = Some(self.parse_time()?);
                self.skip_expires()?;
            } else if self.eat_punct("}") {
                return Ok(Dynset { op, set, span, meter_size: meter, key, timeout, stateful, data });
            } else if data.is_empty() && meter.is_none() && self.eat_punct(":") {
                data = self.parse_dynset_data()?;
            } else if !matches!(self.peek(), TokenKind::Ident(word) if matches!(word.as_str(), "limit" | "quota" | "counter" | "ct"))
            {
                return Err(self.unexpected("limit, quota, counter, ct count, timeout or `}`"));
            } else {
                stateful.push(self.parse_stateful_spec()?);
            }
        }
    }

    /// `expires 5s`: nft takes it from a listing and tells the kernel nothing of it.
    fn skip_expires(&mut self) -> ParseResult<()> {
        if self.eat_keyword("expires") {
            self.parse_time()?;
        }
        Ok(())
    }

    /// The key of an element: what the packet has, and constants behind it (`ip saddr . 22`).
    fn parse_dynset_key(&mut self) -> ParseResult<Vec<Expression>> {
        let mut key = Vec::new();
        loop {
            match self.parse_operand()? {
                Some(next) => key.push(next),
                None => key.push(self.parse_element_constant("a key, like `ip saddr`")?),
            }
            if !self.eat_punct(".") {
                return Ok(key);
            }
        }
    }

    /// A limit, quota, counter or connection limit of an element.
    pub(super) fn parse_stateful_spec(&mut self) -> ParseResult<StatefulSpec> {
        let start = self.span();
        Ok(match self.parse_statement()? {
            Statement::Limit(limit) => StatefulSpec::Limit(limit),
            Statement::Counter(packets, bytes) => StatefulSpec::Counter(packets, bytes),
            Statement::Quota { over, bytes, used } => StatefulSpec::Quota { over, bytes, used },
            Statement::ConnLimit { over, count } => StatefulSpec::ConnLimit { over, count },
            _ => {
                return Err(Diagnostic::new(start, "this statement cannot belong to an element")
                    .with_help("use limit, quota, counter or ct count"));
            }
        })
    }

    /// After `counter`, `limit`, `quota`, `ct` or `last` in the block of a set.
    pub(super) fn parse_stateful_after(&mut self, word: &str) -> ParseResult<Option<StatefulSpec>> {
        Ok(Some(match word {
            "counter" => {
                let (packets, bytes) = self.parse_counter_values()?;
                StatefulSpec::Counter(packets, bytes)
            }
            "limit" => StatefulSpec::Limit(self.parse_limit()?),
            "quota" => {
                let (over, bytes, used) = self.parse_quota()?;
                StatefulSpec::Quota { over, bytes, used }
            }
            "ct" => {
                self.expect_keyword("count")?;
                let over = self.eat_keyword("over");
                StatefulSpec::ConnLimit { over, count: self.expect_u32("a number of connections")? }
            }
            _ => {
                self.parse_last()?;
                return Ok(None);
            }
        }))
    }

    /// The value of the element of a map: read from the packet, or a constant.
    fn parse_dynset_data(&mut self) -> ParseResult<Vec<Expression>> {
        let key = self.parse_key()?;
        if !key.is_empty() {
            return Ok(key);
        }
        self.parse_element_constant("a value for the element: a selector or a constant").map(|value| vec![value])
    }

    /// A constant whose type is the set's, which may be declared further below: it has to be plain from the constant itself.
    fn parse_element_constant(&mut self, wanted: &str) -> ParseResult<Expression> {
        let kind = match self.peek() {
            TokenKind::Address4(_) => DataType::Address4,
            TokenKind::Address6(_) => DataType::Address6,
            TokenKind::Number(_) => DataType::Number(32),
            _ => return Err(self.unexpected(wanted)),
        };
        Ok(Expression::Constant(self.parse_value(kind)?, kind))
    }
}
