//! Values that are looked up or computed, and what they are held against.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::Kind;
use crate::source::Span;
use crate::token::Word;
use crate::tree::{Expression, Fib, FibTell, Match, Right, Selector, SetRef};

impl Parser<'_> {
    /// A value that is looked up, if one is next: `ip saddr`, `tcp flags & syn`, `numgen inc mod 2`, with a map behind it or not. `data` is what a map in
    /// place gives.
    pub(super) fn expression(&mut self, data: &[Kind]) -> Parsed<Option<Expression>> {
        let Some(first) = self.operand()? else { return Ok(None) };
        let mut key = vec![first];
        while matches!(self.peek(), Word::Sign(".")) {
            self.next();
            match self.operand()? {
                Some(next) => key.push(next),
                None => return Err(self.unexpected("the next part of the key")),
            }
        }
        if self.takes("map") {
            let kinds: Vec<Kind> = key.iter().map(Expression::kind).collect();
            let map = self.map_ref(&kinds, data)?;
            return Ok(Some(Expression::Map(key, map)));
        }
        match (key.len(), key.pop()) {
            (1, Some(only)) => Ok(Some(only)),
            _ => Err(self.unexpected("`map`, with a map from these together")),
        }
    }

    /// The parts of a key, with `.` between them; empty if none is next.
    pub(super) fn key(&mut self) -> Parsed<Vec<Expression>> {
        let mut key: Vec<Expression> = self.operand()?.into_iter().collect();
        while !key.is_empty() && self.takes_sign(".") {
            match self.operand()? {
                Some(next) => key.push(next),
                None => return Err(self.unexpected("the next part of the key")),
            }
        }
        Ok(key)
    }

    /// One value with its bit operations.
    fn operand(&mut self) -> Parsed<Option<Expression>> {
        let Some(mut value) = self.primary()? else { return Ok(None) };
        loop {
            let kind = value.kind();
            let all = kind.greatest();
            if self.takes_sign("&") || self.takes("and") {
                let mask = self.bits(kind)?;
                value = Expression::Bits(Box::new(value), mask, 0);
            } else if self.takes_sign("|") || self.takes("or") {
                let bits = self.bits(kind)?;
                value = Expression::Bits(Box::new(value), all & !bits, bits);
            } else if self.takes_sign("^") || self.takes("xor") {
                let bits = self.bits(kind)?;
                value = Expression::Bits(Box::new(value), all, bits);
            } else if self.takes_sign("<<") || self.takes("lshift") {
                value = Expression::Shift(Box::new(value), self.shift()?);
            } else if self.takes_sign(">>") || self.takes("rshift") {
                value = Expression::Shift(Box::new(value), -self.shift()?);
            } else {
                return Ok(Some(value));
            }
        }
    }

    fn shift(&mut self) -> Parsed<i8> {
        let (by, span) = self.number("by how many bits")?;
        i8::try_from(by).map_err(|_| Fault::new(span, "no value has so many bits"))
    }

    /// A mask: one value, or several with `|` in parentheses or not.
    pub(super) fn bits(&mut self, kind: Kind) -> Parsed<u128> {
        let inside = self.takes_sign("(");
        let mut bits = self.value(kind)?;
        while self.takes_sign("|") || (inside && self.takes_sign(",")) {
            bits |= self.value(kind)?;
        }
        if inside {
            self.sign(")")?;
        }
        Ok(bits)
    }

    fn primary(&mut self) -> Parsed<Option<Expression>> {
        let span = self.span();
        if matches!(self.peek(), Word::Set(_)) && matches!(self.second(), Word::Sign(",")) {
            return Ok(self.selector()?.map(Expression::Select));
        }
        let Word::Name(word) = self.peek() else { return Ok(None) };
        match word.as_str() {
            "numgen" => {
                self.next();
                self.numgen().map(Some)
            }
            "jhash" => {
                self.next();
                if matches!(self.peek(), Word::Name(word) if matches!(word.as_str(), "jhash" | "symhash" | "numgen")) {
                    return Err(self.unexpected("a field of the packet to hash"));
                }
                let of = self.key()?;
                if of.is_empty() {
                    return Err(self.unexpected("what to hash"));
                }
                self.hash(of).map(Some)
            }
            "symhash" => {
                self.next();
                self.hash(Vec::new()).map(Some)
            }
            _ => match self.selector()? {
                Some(Selector::Fib(Fib { iif: true, oif: true, .. })) => {
                    Err(Fault::new(span, "a route has one device: iif and oif exclude one another"))
                }
                Some(selector) => Ok(Some(Expression::Select(selector))),
                None => Ok(None),
            },
        }
    }

    fn numgen(&mut self) -> Parsed<Expression> {
        let (how, span) = self.name("inc or random")?;
        let random = match how.as_str() {
            "inc" => false,
            "random" => true,
            _ => return Err(Fault::new(span, format!("numgen {how}: no such way to count")).instead("inc or random")),
        };
        let modulus = self.modulus()?;
        let offset = if self.takes("offset") { self.number32("an offset")? } else { 0 };
        Ok(Expression::Number { random, modulus, offset })
    }

    fn hash(&mut self, of: Vec<Expression>) -> Parsed<Expression> {
        let modulus = self.modulus()?;
        let seed = if self.takes("seed") { self.number32("a seed")? } else { 0 };
        let offset = if self.takes("offset") { self.number32("an offset")? } else { 0 };
        Ok(Expression::Hash { of, modulus, seed, offset })
    }

    fn modulus(&mut self) -> Parsed<u32> {
        self.keyword("mod")?;
        let span = self.span();
        let modulus = self.number32("a modulus")?;
        if modulus == 0 { Err(Fault::new(span, "nothing is below 0")) } else { Ok(modulus) }
    }

    /// What `left` is held against.
    pub(super) fn against(&mut self, left: Vec<Expression>, start: Span) -> Parsed<Match> {
        let kinds: Vec<Kind> = left.iter().map(Expression::kind).collect();
        let mut not = false;
        let mut relation = "";
        for sign in ["!=", "=", "<=", ">=", "<", ">", "!"] {
            if self.takes_sign(sign) {
                relation = sign;
                break;
            }
        }
        for (word, sign) in [("eq", "="), ("ne", "!="), ("lt", "<"), ("gt", ">"), ("le", "<="), ("ge", ">=")] {
            if relation.is_empty() && self.takes(word) {
                relation = sign;
            }
        }
        if relation == "!=" {
            not = true;
        }
        if matches!(self.peek(), Word::Sign("{") | Word::Set(_)) {
            if !matches!(relation, "" | "=" | "!=") {
                return Err(self.unexpected("one value"));
            }
            let set = self.set_ref(&kinds)?;
            return Ok(Match { left, not, right: Right::Set(set) });
        }
        if let [Expression::Select(Selector::Fib(Fib { tell: FibTell::Oif | FibTell::OifName, .. }))] = left.as_slice()
        {
            let missing = self.takes("missing");
            if missing || self.takes("exists") {
                // No device has the name of nothing.
                return Ok(Match { left, not: not == missing, right: Right::Ranges(vec![(0, 0)]) });
            }
        }
        if let [kind] = kinds.as_slice() {
            let kind = *kind;
            if kind.is_bits() {
                return self.against_bits(left, kind, relation);
            }
            if !matches!(relation, "" | "=" | "!=" | "!") {
                let value = self.value(kind)?;
                let range = match relation {
                    "<" => value.checked_sub(1).map(|last| (0, last)),
                    "<=" => Some((0, value)),
                    ">" => (value < kind.greatest()).then(|| (value + 1, kind.greatest())),
                    _ => Some((value, kind.greatest())),
                };
                let range = range.ok_or_else(|| Fault::new(start, format!("no value is {relation} {value}")))?;
                return Ok(Match { left, not: false, right: Right::Ranges(vec![range]) });
            }
        }
        if !matches!(relation, "" | "=" | "!=") {
            return Err(Fault::new(start, format!("{relation} does not compare these")));
        }
        if let [kind @ (Kind::Hour | Kind::Day)] = kinds.as_slice() {
            return self.against_clock(left, *kind, not);
        }
        let mut ranges = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            if at > 0 {
                self.sign(".")?;
            }
            ranges.push(self.range(*kind)?);
        }
        if let Word::Sign(",") = self.peek() {
            return Err(self.unexpected("the end of the value").instead("several values stand in braces: { 80, 443 }"));
        }
        Ok(Match { left, not, right: Right::Ranges(ranges) })
    }

    /// Sets of bits: a list means any of them, `=` and `!=` all of them exactly, `!` none of them, and `/` compares those that are named behind it.
    fn against_bits(&mut self, left: Vec<Expression>, kind: Kind, relation: &str) -> Parsed<Match> {
        let mut bits = self.bits(kind)?;
        while self.takes_sign(",") {
            bits |= self.bits(kind)?;
        }
        if self.takes_sign("/") {
            let mut mask = self.bits(kind)?;
            while self.takes_sign(",") {
                mask |= self.bits(kind)?;
            }
            let left = left.into_iter().map(|value| Expression::Bits(Box::new(value), mask, 0)).collect();
            return Ok(Match { left, not: relation == "!=", right: Right::Ranges(vec![(bits, bits)]) });
        }
        let masked = matches!(left.first(), Some(Expression::Bits(..)));
        let right = match relation {
            "" if !masked => Right::AnyBit(bits),
            "!" => Right::AnyBit(bits),
            "" | "=" | "!=" => Right::Ranges(vec![(bits, bits)]),
            _ => return Err(self.unexpected("`==` or `!=`")),
        };
        Ok(Match { left, not: matches!(relation, "!" | "!="), right })
    }

    /// Hours and days go round: from Friday to Monday, from 22:00 to 06:00.
    fn against_clock(&mut self, left: Vec<Expression>, kind: Kind, not: bool) -> Parsed<Match> {
        let first = self.value(kind)?;
        let last = if self.takes_sign("-") { self.value(kind)? } else { first };
        if first <= last {
            return Ok(Match { left, not, right: Right::Ranges(vec![(first, last)]) });
        }
        // What lies between its end and its beginning is not in it.
        let between = (last + 1, first - 1);
        if between.0 > between.1 {
            return Ok(Match { left, not, right: Right::Ranges(vec![(0, kind.greatest())]) });
        }
        Ok(Match { left, not: !not, right: Right::Ranges(vec![between]) })
    }

    /// A named set, or one in place.
    pub(super) fn set_ref(&mut self, kinds: &[Kind]) -> Parsed<SetRef> {
        if let Word::Set(name) = self.peek() {
            let name = name.clone();
            return Ok(SetRef::Named(name, self.next().span));
        }
        self.set_here(kinds, None).map(|set| SetRef::Here(Box::new(set)))
    }

    /// A named map, or one in place that gives `data`.
    pub(super) fn map_ref(&mut self, kinds: &[Kind], data: &[Kind]) -> Parsed<SetRef> {
        if let Word::Set(name) = self.peek() {
            let name = name.clone();
            return Ok(SetRef::Named(name, self.next().span));
        }
        self.set_here(kinds, Some(data)).map(|set| SetRef::Here(Box::new(set)))
    }
}
