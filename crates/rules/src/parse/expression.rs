//! Expressions, and the right-hand side of matches.
use super::parser::{ParseResult, Parser};
use crate::ast::{Expression, FibExpr, FibResult, Match, MatchRhs, Selector, SetRef};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;

impl Parser<'_> {
    /// An expression, if one is next: `ip saddr`, `tcp flags & syn`, `numgen inc mod 2`, possibly looked up in a map. `data` is the type of an anonymous
    /// map's values.
    pub(super) fn parse_expression(&mut self, data: &[DataType]) -> ParseResult<Option<Expression>> {
        let Some(first) = self.parse_operand()? else { return Ok(None) };
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
        while !key.is_empty() && self.eat_punct(".") {
            match self.parse_operand()? {
                Some(next) => key.push(next),
                None => return Err(self.unexpected("the next part of the concatenation")),
            }
        }
        Ok(key)
    }

    /// One value with bit operations.
    fn parse_operand(&mut self) -> ParseResult<Option<Expression>> {
        let Some(mut value) = self.parse_primary()? else { return Ok(None) };
        loop {
            let kind = value.data_type();
            let all = kind.max_value();
            if self.eat_punct("&") || self.eat_keyword("and") {
                let mask = self.parse_bitmask(kind)?;
                value = Expression::Bitwise(Box::new(value), mask, 0);
            } else if self.eat_punct("|") || self.eat_keyword("or") {
                let bits = self.parse_bitmask(kind)?;
                value = Expression::Bitwise(Box::new(value), all & !bits, bits);
            } else if self.eat_punct("^") || self.eat_keyword("xor") {
                let bits = self.parse_bitmask(kind)?;
                value = Expression::Bitwise(Box::new(value), all, bits);
            } else if self.eat_punct("<<") || self.eat_keyword("lshift") {
                value = Expression::Shift(Box::new(value), self.parse_shift()?);
            } else if self.eat_punct(">>") || self.eat_keyword("rshift") {
                value = Expression::Shift(Box::new(value), -self.parse_shift()?);
            } else {
                return Ok(Some(value));
            }
        }
    }

    fn parse_shift(&mut self) -> ParseResult<i8> {
        let (by, span) = self.expect_number("a number of bits")?;
        i8::try_from(by).map_err(|_| Diagnostic::new(span, "this shift is too large"))
    }

    /// A mask: one value, or several with `|`, with or without parentheses.
    pub(super) fn parse_bitmask(&mut self, kind: DataType) -> ParseResult<u128> {
        let inside = self.eat_punct("(");
        let mut bits = self.parse_value(kind)?;
        while self.eat_punct("|") || (inside && self.eat_punct(",")) {
            bits |= self.parse_value(kind)?;
        }
        if inside {
            self.expect_punct(")")?;
        }
        Ok(bits)
    }

    fn parse_primary(&mut self) -> ParseResult<Option<Expression>> {
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
        let (how, span) = self.expect_name("inc or random")?;
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
        let offset = if self.eat_keyword("offset") { self.expect_u32("an offset")? } else { 0 };
        Ok(Expression::Numgen { random, modulus, offset })
    }

    fn parse_hash(&mut self, of: Vec<Expression>) -> ParseResult<Expression> {
        let modulus = self.parse_modulus()?;
        let seed = if self.eat_keyword("seed") { self.expect_u32("a seed")? } else { 0 };
        let offset = if self.eat_keyword("offset") { self.expect_u32("an offset")? } else { 0 };
        Ok(Expression::Hash { of, modulus, seed, offset })
    }

    fn parse_modulus(&mut self) -> ParseResult<u32> {
        self.expect_keyword("mod")?;
        let span = self.span();
        let modulus = self.expect_u32("a modulus")?;
        if modulus == 0 { Err(Diagnostic::new(span, "the modulus must be at least 1")) } else { Ok(modulus) }
    }

    /// Operator and right-hand side of a match.
    pub(super) fn parse_relational(&mut self, left: Vec<Expression>, start: Span) -> ParseResult<Match> {
        let kinds: Vec<DataType> = left.iter().map(Expression::data_type).collect();
        let mut not = false;
        let mut relation = "";
        for sign in ["!=", "=", "<=", ">=", "<", ">", "!"] {
            if self.eat_punct(sign) {
                relation = sign;
                break;
            }
        }
        for (word, sign) in [("eq", "="), ("ne", "!="), ("lt", "<"), ("gt", ">"), ("le", "<="), ("ge", ">=")] {
            if relation.is_empty() && self.eat_keyword(word) {
                relation = sign;
            }
        }
        if relation == "!=" {
            not = true;
        }
        if matches!(self.peek(), TokenKind::Punct("{") | TokenKind::SetName(_)) {
            if !matches!(relation, "" | "=" | "!=") {
                return Err(self.unexpected("a single value: a set cannot be compared with <, >, <= or >="));
            }
            let set = self.parse_set_ref(&kinds)?;
            return Ok(Match { left, not, right: MatchRhs::Set(set) });
        }
        if let [Expression::Select(Selector::Fib(FibExpr { result: FibResult::Oif | FibResult::OifName, .. }))] =
            left.as_slice()
        {
            let missing = self.eat_keyword("missing");
            if missing || self.eat_keyword("exists") {
                // 0 stands for no interface.
                return Ok(Match { left, not: not == missing, right: MatchRhs::Ranges(vec![(0, 0)]) });
            }
        }
        if let [kind] = kinds.as_slice() {
            let kind = *kind;
            if kind.is_bitmask() {
                return self.parse_bitmask_match(left, kind, relation);
            }
            if !matches!(relation, "" | "=" | "!=" | "!") {
                let value = self.parse_value(kind)?;
                let range = match relation {
                    "<" => value.checked_sub(1).map(|last| (0, last)),
                    "<=" => Some((0, value)),
                    ">" => (value < kind.max_value()).then(|| (value + 1, kind.max_value())),
                    _ => Some((value, kind.max_value())),
                };
                let range = range.ok_or_else(|| {
                    Diagnostic::new(start, format!("no value is {relation} {value}: the match can never hold"))
                })?;
                return Ok(Match { left, not: false, right: MatchRhs::Ranges(vec![range]) });
            }
        }
        if !matches!(relation, "" | "=" | "!=") {
            return Err(Diagnostic::new(start, format!("operator `{relation}` is not possible here")));
        }
        if let [kind @ (DataType::HourOfDay | DataType::DayOfWeek)] = kinds.as_slice() {
            return self.parse_clock_match(left, *kind, not);
        }
        let mut ranges = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            if at > 0 {
                self.expect_punct(".")?;
            }
            ranges.push(self.parse_range(*kind)?);
        }
        if let TokenKind::Punct(",") = self.peek() {
            return Err(self
                .unexpected("the end of the value")
                .with_help("write several values in braces: { 80, 443 }"));
        }
        Ok(Match { left, not, right: MatchRhs::Ranges(ranges) })
    }

    /// Bitmasks: a list matches any of the bits, `==` and `!=` compare all bits, `!` matches none of the bits, `/` gives a mask.
    fn parse_bitmask_match(&mut self, left: Vec<Expression>, kind: DataType, relation: &str) -> ParseResult<Match> {
        let mut bits = self.parse_bitmask(kind)?;
        while self.eat_punct(",") {
            bits |= self.parse_bitmask(kind)?;
        }
        if self.eat_punct("/") {
            let mut mask = self.parse_bitmask(kind)?;
            while self.eat_punct(",") {
                mask |= self.parse_bitmask(kind)?;
            }
            let left = left.into_iter().map(|value| Expression::Bitwise(Box::new(value), mask, 0)).collect();
            return Ok(Match { left, not: relation == "!=", right: MatchRhs::Ranges(vec![(bits, bits)]) });
        }
        let masked = matches!(left.first(), Some(Expression::Bitwise(..)));
        let right = match relation {
            "" if !masked => MatchRhs::AnyBit(bits),
            "!" => MatchRhs::AnyBit(bits),
            "" | "=" | "!=" => MatchRhs::Ranges(vec![(bits, bits)]),
            _ => return Err(self.unexpected("`==` or `!=`")),
        };
        Ok(Match { left, not: matches!(relation, "!" | "!="), right })
    }

    /// Ranges of hours and days may wrap: Friday to Monday, 22:00 to 06:00.
    fn parse_clock_match(&mut self, left: Vec<Expression>, kind: DataType, not: bool) -> ParseResult<Match> {
        let first = self.parse_value(kind)?;
        let last = if self.eat_punct("-") { self.parse_value(kind)? } else { first };
        if first <= last {
            return Ok(Match { left, not, right: MatchRhs::Ranges(vec![(first, last)]) });
        }
        // A wrapped range is everything but the gap between its end and its start.
        let between = (last + 1, first - 1);
        if between.0 > between.1 {
            return Ok(Match { left, not, right: MatchRhs::Ranges(vec![(0, kind.max_value())]) });
        }
        Ok(Match { left, not: !not, right: MatchRhs::Ranges(vec![between]) })
    }

    /// A named or anonymous set.
    pub(super) fn parse_set_ref(&mut self, kinds: &[DataType]) -> ParseResult<SetRef> {
        if let TokenKind::SetName(name) = self.peek() {
            let name = name.clone();
            return Ok(SetRef::Named(name, self.next_token().span));
        }
        self.parse_anonymous_set(kinds, None).map(|set| SetRef::Anonymous(Box::new(set)))
    }

    /// A named map, or an anonymous one with values of type `data`.
    pub(super) fn parse_map_ref(&mut self, kinds: &[DataType], data: &[DataType]) -> ParseResult<SetRef> {
        if let TokenKind::SetName(name) = self.peek() {
            let name = name.clone();
            return Ok(SetRef::Named(name, self.next_token().span));
        }
        self.parse_anonymous_set(kinds, Some(data)).map(|set| SetRef::Anonymous(Box::new(set)))
    }
}
