//! Expressions: selectors and constants with bit operations, keys, maps, number generators and hashes.
use super::parser::{ParseResult, Parser};
use crate::ast::{BitOperator, Expression, FibExpr, Selector, SetRef};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;

/// Operators with their words, those that bind least first.
const BIT_OPERATORS: [(&str, &str); 4] = [("|", "or"), ("^", "xor"), ("&", "and"), ("<<", "lshift")];
/// Place of the shifts among them.
const SHIFT_LEVEL: usize = 3;
/// Depth of nested parentheses; no real ruleset comes near.
const MAX_NESTING: usize = 32;

/// What may stand at a place of an expression.
#[derive(Clone, Copy)]
enum Operand {
    /// What is read from the packet or computed.
    Selector,
    /// A constant of this type.
    Constant(DataType),
    /// Either.
    Any(DataType),
}

impl Operand {
    fn data_type(self) -> Option<DataType> {
        match self {
            Operand::Selector => None,
            Operand::Constant(kind) | Operand::Any(kind) => Some(kind),
        }
    }
}

/// An operation with a constant; of two constants, its result.
fn apply_bit_operator(operator: &str, left: Expression, right: u128) -> Expression {
    let kind = left.data_type();
    let all = kind.max_value();
    if let Expression::Constant(left, _) = left {
        let by = u32::try_from(right).unwrap_or(u32::MAX);
        let result = match operator {
            "|" => left | right,
            "^" => left ^ right,
            "&" => left & right,
            "<<" => left.checked_shl(by).unwrap_or(0),
            _ => left.checked_shr(by).unwrap_or(0),
        };
        return Expression::Constant(result & all, kind);
    }
    // The type of the number of bits has at most 127.
    let by = i8::try_from(right).unwrap_or(i8::MAX);
    match operator {
        "|" => Expression::Bitwise(Box::new(left), all & !right, right),
        "^" => Expression::Bitwise(Box::new(left), all, right),
        "&" => Expression::Bitwise(Box::new(left), right, 0),
        "<<" => Expression::Shift(Box::new(left), by),
        _ => Expression::Shift(Box::new(left), -by),
    }
}

impl Parser<'_> {
    /// An expression, if one is next: `ip saddr`, `tcp flags & syn`, `numgen inc mod 2`, possibly looked up in a map. `data` is the type of an anonymous
    /// map's values.
    pub(super) fn parse_expression(&mut self, data: &[DataType]) -> ParseResult<Option<Expression>> {
        let Some(first) = self.parse_operand()? else { return Ok(None) };
        self.parse_lookup(first, data)
    }

    /// An expression of a type, or a constant.
    pub(super) fn parse_expression_of(&mut self, kind: DataType) -> ParseResult<Expression> {
        match self.parse_bitwise(Operand::Any(kind), 0)? {
            Some(constant @ Expression::Constant(..)) => Ok(constant),
            Some(first) => match self.parse_lookup(first, &[kind])? {
                Some(value) => Ok(value),
                None => Err(self.unexpected(kind.description())),
            },
            None => Err(self.unexpected(kind.description())),
        }
    }

    /// The rest of a concatenation, and the map that it is looked up in.
    fn parse_lookup(&mut self, first: Expression, data: &[DataType]) -> ParseResult<Option<Expression>> {
        let mut key = vec![first];
        while matches!(self.peek(), TokenKind::Punct(".")) {
            self.next_token();
            match self.parse_operand()? {
                Some(next) => key.push(next),
                None => return Err(self.unexpected("the next part of the concatenation")),
            }
        }
        if self.eat_keyword("map") {
            let kinds: Vec<DataType> = key.iter().map(Expression::data_type).collect();
            let map = self.parse_map_ref(&kinds, data)?;
            return Ok(Some(Expression::Map(key, map)));
        }
        match (key.len(), key.pop()) {
            (1, Some(only)) => Ok(Some(only)),
            _ => Err(self.unexpected("`map` and a map for this concatenation")),
        }
    }

    /// The parts of a concatenation, separated by `.`; empty if none is next.
    pub(super) fn parse_key(&mut self) -> ParseResult<Vec<Expression>> {
        let mut key: Vec<Expression> = self.parse_operand()?.into_iter().collect();
        let start = self.last_span;
        while !key.is_empty() && self.eat_punct(".") {
            match self.parse_operand()? {
                Some(next) => key.push(next),
                None => return Err(self.unexpected("the next part of the concatenation")),
            }
        }
        if key.len() > 1 && key.iter().any(|part| part.data_type() == DataType::OsName) {
            return Err(Diagnostic::new(
                start.to(self.last_span),
                "the name of a system is no part of a concatenation",
            )
            .with_help("match it by itself"));
        }
        Ok(key)
    }

    /// One part of a key: a value with bit operations. Constants may only be operands.
    pub(super) fn parse_operand(&mut self) -> ParseResult<Option<Expression>> {
        self.parse_bitwise(Operand::Selector, 0)
    }

    /// A constant of a type, possibly computed: `0x10 | 0x1`, `(fin | syn)`.
    pub(super) fn parse_constant(&mut self, kind: DataType) -> ParseResult<u128> {
        match self.parse_bitwise(Operand::Constant(kind), 0)? {
            Some(Expression::Constant(value, _)) => Ok(value),
            _ => Err(self.unexpected(kind.description())),
        }
    }

    /// Binary operations of [`BIT_OPERATORS`] from a level on, of which the later ones bind more tightly.
    fn parse_bitwise(&mut self, operand: Operand, level: usize) -> ParseResult<Option<Expression>> {
        let Some((sign, word)) = BIT_OPERATORS.get(level).copied() else { return self.parse_primary(operand) };
        let Some(mut value) = self.parse_bitwise(operand, level + 1)? else { return Ok(None) };
        loop {
            let span = self.span();
            let to_right = level == SHIFT_LEVEL && (self.eat_punct(">>") || self.eat_keyword("rshift"));
            if !to_right && !self.eat_punct(sign) && !self.eat_keyword(word) {
                return Ok(Some(value));
            }
            let wanted = operand.data_type().filter(|kind| kind.bit_width() > value.data_type().bit_width());
            if let Some(kind) = wanted {
                // The result may have as many bits as what it is assigned to.
                value = Expression::Cast(Box::new(value), kind);
            }
            let kind = if level == SHIFT_LEVEL { DataType::Number(7) } else { value.data_type() };
            // What is assigned may combine two fields, as nft since 1.1.1 writes it.
            let right = if let (Operand::Any(_), false) = (operand, level == SHIFT_LEVEL) {
                Operand::Any(kind)
            } else {
                Operand::Constant(kind)
            };
            let Some(right) = self.parse_bitwise(right, level + 1)? else {
                return Err(self.unexpected(kind.description()));
            };
            if matches!(value, Expression::Map(..)) {
                return Err(Diagnostic::new(span, "a value looked up in a map cannot be an operand"));
            }
            // As in nft, the result of an operation is a number like others.
            self.unqualified = None;
            value = match (right, sign) {
                (Expression::Constant(right, _), _) => {
                    apply_bit_operator(if to_right { ">>" } else { sign }, value, right)
                }
                (right, "|") => Expression::Combine(BitOperator::Or, Box::new(value), Box::new(right)),
                (right, "^") => Expression::Combine(BitOperator::Xor, Box::new(value), Box::new(right)),
                (right, "&") => Expression::Combine(BitOperator::And, Box::new(value), Box::new(right)),
                _ => return Err(Diagnostic::new(span, "a shift is by a constant number of bits")),
            };
        }
    }

    fn parse_primary(&mut self, operand: Operand) -> ParseResult<Option<Expression>> {
        let span = self.span();
        if self.eat_punct("(") {
            self.nesting += 1;
            if self.nesting > MAX_NESTING {
                return Err(Diagnostic::new(span, format!("parentheses are nested more than {MAX_NESTING} deep")));
            }
            let inside = self.parse_bitwise(operand, 0)?;
            if inside.is_none() {
                return Err(self.unexpected("a value"));
            }
            self.expect_punct(")")?;
            self.nesting -= 1;
            return Ok(inside);
        }
        match operand {
            Operand::Constant(kind) => self.parse_value(kind).map(|value| Some(Expression::Constant(value, kind))),
            Operand::Selector => self.parse_selector_expression(),
            Operand::Any(kind) => match self.parse_selector_expression()? {
                Some(value) => Ok(Some(value)),
                None if self.is_constant_next() => {
                    self.parse_value(kind).map(|value| Some(Expression::Constant(value, kind)))
                }
                None => Ok(None),
            },
        }
    }

    fn is_constant_next(&mut self) -> bool {
        matches!(
            self.peek(),
            TokenKind::Number(_)
                | TokenKind::Ident(_)
                | TokenKind::Quoted(_)
                | TokenKind::Address4(_)
                | TokenKind::Address6(_)
                | TokenKind::Punct("[")
        )
    }

    /// A selector, a number generator or a hash.
    fn parse_selector_expression(&mut self) -> ParseResult<Option<Expression>> {
        let span = self.span();
        if matches!(self.peek(), TokenKind::SetName(_)) && matches!(self.peek_second(), TokenKind::Punct(",")) {
            return Ok(self.parse_selector()?.map(Expression::Select));
        }
        let TokenKind::Ident(word) = self.peek() else { return Ok(None) };
        match word.as_str() {
            "numgen" => {
                self.next_token();
                self.parse_numgen().map(Some)
            }
            "jhash" => {
                self.next_token();
                if matches!(self.peek(), TokenKind::Ident(word) if matches!(word.as_str(), "jhash" | "symhash" | "numgen"))
                {
                    return Err(self.unexpected("a selector to hash"));
                }
                let of = self.parse_key()?;
                if of.is_empty() {
                    return Err(self.unexpected("a selector to hash"));
                }
                self.parse_hash(of).map(Some)
            }
            "symhash" => {
                self.next_token();
                self.parse_hash(Vec::new()).map(Some)
            }
            _ => match self.parse_selector()? {
                Some(Selector::Fib(FibExpr { iif: true, oif: true, .. })) => {
                    Err(Diagnostic::new(span, "fib cannot use both iif and oif"))
                }
                Some(selector) => Ok(Some(Expression::Select(selector))),
                None => Ok(None),
            },
        }
    }

    fn parse_numgen(&mut self) -> ParseResult<Expression> {
        let (how, span) = self.expect_word("inc or random")?;
        let random = match how.as_str() {
            "inc" => false,
            "random" => true,
            _ => {
                return Err(
                    Diagnostic::new(span, format!("unknown mode `numgen {how}`")).with_help("use inc or random")
                );
            }
        };
        let modulus = self.parse_modulus()?;
        let offset = self.parse_offset(modulus)?;
        Ok(Expression::Numgen { random, modulus, offset })
    }

    fn parse_hash(&mut self, of: Vec<Expression>) -> ParseResult<Expression> {
        let modulus = self.parse_modulus()?;
        let seed = if self.eat_keyword("seed") { self.expect_u32("a seed")? } else { 0 };
        let offset = self.parse_offset(modulus)?;
        Ok(Expression::Hash { of, modulus, seed, offset })
    }

    /// `offset N`, if it is next; results are below the modulus plus the offset.
    fn parse_offset(&mut self, modulus: u32) -> ParseResult<u32> {
        if !self.eat_keyword("offset") {
            return Ok(0);
        }
        let span = self.span();
        let offset = self.expect_u32("an offset")?;
        match offset.checked_add(modulus - 1) {
            Some(_) => Ok(offset),
            None => Err(Diagnostic::new(span, "with this offset the results do not fit into 32 bits")
                .with_help("use a smaller offset or modulus")),
        }
    }

    fn parse_modulus(&mut self) -> ParseResult<u32> {
        self.expect_keyword("mod")?;
        let span = self.span();
        let modulus = self.expect_u32("a modulus")?;
        if modulus == 0 { Err(Diagnostic::new(span, "the modulus must be at least 1")) } else { Ok(modulus) }
    }

    /// A named or anonymous set.
    pub(super) fn parse_set_ref(&mut self, kinds: &[DataType]) -> ParseResult<SetRef> {
        if let TokenKind::SetName(name) = self.peek() {
            let name = name.clone();
            self.require_qualified()?;
            return Ok(SetRef::Named(name, self.next_token().span));
        }
        let set = self.parse_anonymous_set(kinds, None)?;
        // As in nft, a set of one value is that value.
        if kinds.len() > 1 || set.elements.len() > 1 {
            self.require_qualified()?;
        }
        Ok(SetRef::Anonymous(Box::new(set)))
    }

    /// A named map, or an anonymous one with values of type `data`.
    pub(super) fn parse_map_ref(&mut self, kinds: &[DataType], data: &[DataType]) -> ParseResult<SetRef> {
        self.require_qualified()?;
        if let TokenKind::SetName(name) = self.peek() {
            let name = name.clone();
            return Ok(SetRef::Named(name, self.next_token().span));
        }
        self.parse_anonymous_set(kinds, Some(data)).map(|set| SetRef::Anonymous(Box::new(set)))
    }
}
