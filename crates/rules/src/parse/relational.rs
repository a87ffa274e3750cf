//! Matches: the operator and the right-hand side.
use super::parser::{ParseResult, Parser};
use crate::ast::{Expression, FibExpr, FibResult, Match, MatchRhs, Order, Selector};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;

/// What an order compares with.
const ONE_VALUE: &str = "a single value: a set cannot be compared with <, >, <= or >=";

impl Parser<'_> {
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
        // As in nft, a set of one value is that value.
        let ordered = matches!(relation, "<" | ">" | "<=" | ">=");
        let braces = ordered && self.eat_punct("{");
        if braces {
            self.skip_separators();
        }
        if !braces && matches!(self.peek(), TokenKind::Punct("{") | TokenKind::SetName(_)) {
            if ordered {
                return Err(self.unexpected(ONE_VALUE));
            }
            let set = self.parse_set_ref(&kinds)?;
            return Ok(Match { left, not, right: MatchRhs::Set(set), order: None });
        }
        if let [Expression::Select(Selector::Fib(FibExpr { result: FibResult::Oif | FibResult::OifName, .. }))] =
            left.as_slice()
        {
            let missing = self.eat_keyword("missing");
            if missing || self.eat_keyword("exists") {
                // 0 stands for no interface.
                return Ok(Match { left, not: not == missing, right: MatchRhs::Ranges(vec![(0, 0)]), order: None });
            }
        }
        if let [kind] = kinds.as_slice() {
            let kind = *kind;
            if kind.is_bitmask() && !ordered {
                return self.parse_bitmask_match(left, kind, relation);
            }
            if !matches!(relation, "" | "=" | "!=" | "!") {
                let value = self.parse_constant(kind)?;
                if braces {
                    self.skip_separators();
                    if !self.eat_punct("}") {
                        return Err(self.unexpected(ONE_VALUE));
                    }
                }
                let range = match relation {
                    "<" => value.checked_sub(1).map(|last| (0, last)),
                    "<=" => Some((0, value)),
                    ">" => (value < kind.max_value()).then(|| (value + 1, kind.max_value())),
                    _ => Some((value, kind.max_value())),
                };
                let range = range.ok_or_else(|| {
                    Diagnostic::new(start, format!("no value is {relation} {value}: the match can never hold"))
                })?;
                let order = match relation {
                    "<" => Order::Less,
                    "<=" => Order::LessOrEqual,
                    ">" => Order::Greater,
                    _ => Order::GreaterOrEqual,
                };
                return Ok(Match { left, not: false, right: MatchRhs::Ranges(vec![range]), order: Some(order) });
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
        Ok(Match { left, not, right: MatchRhs::Ranges(ranges), order: None })
    }

    /// Bitmasks: a list matches any of the bits, `==` and `!=` compare all bits, `!` matches none of the bits, `/` gives a mask.
    fn parse_bitmask_match(&mut self, left: Vec<Expression>, kind: DataType, relation: &str) -> ParseResult<Match> {
        let mut bits = self.parse_constant(kind)?;
        while self.eat_punct(",") {
            bits |= self.parse_constant(kind)?;
        }
        if self.eat_punct("/") {
            let mut mask = self.parse_constant(kind)?;
            while self.eat_punct(",") {
                mask |= self.parse_constant(kind)?;
            }
            let left = left.into_iter().map(|value| Expression::Bitwise(Box::new(value), mask, 0)).collect();
            return Ok(Match { left, not: relation == "!=", right: MatchRhs::Ranges(vec![(bits, bits)]), order: None });
        }
        if let ("!=", 0, [Expression::Bitwise(of, mask, 0)]) = (relation, bits, left.as_slice()) {
            return Ok(Match {
                right: MatchRhs::AnyBit(*mask),
                left: vec![of.as_ref().clone()],
                not: false,
                order: None,
            });
        }
        if let ("" | "=", 0, [Expression::Bitwise(of, mask, 0)]) = (relation, bits, left.as_slice()) {
            return Ok(Match {
                right: MatchRhs::AnyBit(*mask),
                left: vec![of.as_ref().clone()],
                not: true,
                order: None,
            });
        }
        let masked = matches!(left.first(), Some(Expression::Bitwise(..)));
        let right = match relation {
            "" if !masked => MatchRhs::AnyBit(bits),
            "!" => MatchRhs::AnyBit(bits),
            "" | "=" | "!=" => MatchRhs::Ranges(vec![(bits, bits)]),
            _ => return Err(self.unexpected("`==` or `!=`")),
        };
        Ok(Match { left, not: matches!(relation, "!" | "!="), right, order: None })
    }

    /// Ranges of hours and days may wrap: Friday to Monday, 22:00 to 06:00.
    fn parse_clock_match(&mut self, left: Vec<Expression>, kind: DataType, not: bool) -> ParseResult<Match> {
        let first = self.parse_value(kind)?;
        let last = if self.eat_punct("-") { self.parse_value(kind)? } else { first };
        if first <= last {
            return Ok(Match { left, not, right: MatchRhs::Ranges(vec![(first, last)]), order: None });
        }
        // A wrapped range is everything but the gap between its end and its start.
        let between = (last + 1, first - 1);
        if between.0 > between.1 {
            return Ok(Match { left, not, right: MatchRhs::Ranges(vec![(0, kind.max_value())]), order: None });
        }
        Ok(Match { left, not: !not, right: MatchRhs::Ranges(vec![between]), order: None })
    }
}
