//! What packets put into sets and maps, and take away: `add`, `update`, `delete`, `meter`.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::Kind;
use crate::source::Span;
use crate::token::{Token, Word};
use crate::tree::{Dynamic, Expression, Operation, Statement};

/// Elements of a meter that says nothing of its size.
const MOST_METERED: u32 = 65_535;

impl Parser<'_> {
    /// Behind `add`, `update` or `delete`: `@set { key … }`.
    pub(super) fn dynamic(&mut self, word: &str) -> Parsed<Dynamic> {
        let operation = match word {
            "add" => Operation::Add,
            "update" => Operation::Update,
            _ => Operation::Delete,
        };
        let Token { kind: Word::Set(set), span } = self.next() else { return Err(self.unexpected("a set")) };
        self.dynamic_element(operation, set, span, None)
    }

    /// Behind `meter`: `NAME [size N] { key … }`, a set of its own that nobody has to name before.
    pub(super) fn meter(&mut self) -> Parsed<Dynamic> {
        let (name, span) = self.name("the meter's name")?;
        let size = if self.takes("size") { self.number32("a number of elements")? } else { MOST_METERED };
        let meter = self.dynamic_element(Operation::Add, name, span, Some(size))?;
        // An element that ends is kept as long as packets come.
        let operation = if meter.timeout.is_some() { Operation::Update } else { Operation::Add };
        Ok(Dynamic { operation, ..meter })
    }

    fn dynamic_element(
        &mut self,
        operation: Operation,
        set: String,
        span: Span,
        meter: Option<u32>,
    ) -> Parsed<Dynamic> {
        self.sign("{")?;
        let key = self.key()?;
        if key.is_empty() {
            return Err(self.unexpected("what of the packet becomes the element, like `ip saddr`"));
        }
        let mut timeout = None;
        let mut each = Vec::new();
        let mut data = Vec::new();
        loop {
            if self.takes("timeout") {
                timeout = Some(self.time()?);
            } else if self.takes_sign("}") {
                return Ok(Dynamic { operation, set, span, meter, key, timeout, each, data });
            } else if data.is_empty() && meter.is_none() && self.takes_sign(":") {
                data = self.mapped()?;
            } else if !matches!(self.peek(), Word::Name(word) if matches!(word.as_str(), "limit" | "quota" | "counter" | "ct"))
            {
                return Err(self.unexpected("limit, quota, counter, ct count, timeout or `}`"));
            } else {
                let start = self.span();
                let statement = self.statement()?;
                let fits = matches!(
                    statement,
                    Statement::Limit(_)
                        | Statement::Counter(..)
                        | Statement::Quota { .. }
                        | Statement::Connections { .. }
                );
                if !fits {
                    return Err(
                        Fault::new(start, "an element cannot have this").instead("limit, quota, counter or ct count")
                    );
                }
                each.push(statement);
            }
        }
    }

    /// What a packet maps its element to: values looked up in it, or a constant.
    fn mapped(&mut self) -> Parsed<Vec<Expression>> {
        let key = self.key()?;
        if !key.is_empty() {
            return Ok(key);
        }
        let kind = match self.peek() {
            Word::Address4(_) => Kind::Address4,
            Word::Address6(_) => Kind::Address6,
            Word::Number(_) => Kind::Number(32),
            _ => return Err(self.unexpected("what of the packet, or which value, the element maps to")),
        };
        Ok(vec![Expression::Constant(self.value(kind)?, kind)])
    }
}
