//! `queue num 0-3 bypass,fanout`, `queue flags bypass to numgen inc mod 4`.
//!
//! No program can listen on a queue of the gateway. So a packet meets what it meets in Linux where none listens: it passes the chain if the rule says `bypass`, and is dropped if it does not.
//! Who loads the ruleset is told.
use super::parser::{ParseResult, Parser};
use crate::ast::{Expression, QueueNumber, QueueSpec};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;

impl Parser<'_> {
    /// After the keyword `queue`.
    pub(super) fn parse_queue(&mut self, start: Span) -> ParseResult<QueueSpec> {
        let mut queue = QueueSpec { number: None, bypass: false, fanout: false };
        let flags_first = self.eat_keyword("flags");
        if flags_first {
            self.parse_queue_flags(&mut queue)?;
            if !self.is_keyword_ahead(0, "to") && !self.is_keyword_ahead(0, "num") {
                return Err(self.unexpected("`to` or `num`"));
            }
        }
        let is_old = !flags_first && !self.is_keyword_ahead(0, "to");
        let is_flag = |parser: &mut Self| parser.is_keyword_ahead(0, "bypass") || parser.is_keyword_ahead(0, "fanout");
        if is_old && is_flag(self) {
            self.parse_queue_flags(&mut queue)?;
        }
        if self.eat_keyword("num") {
            queue.number = Some(self.parse_queue_range()?);
        } else if !is_old && self.eat_keyword("to") {
            queue.number = Some(match self.peek() {
                TokenKind::Number(_) => self.parse_queue_range()?,
                _ => self.parse_queue_expression()?,
            });
        }
        if is_old && is_flag(self) {
            self.parse_queue_flags(&mut queue)?;
        }
        let span = start.to(self.last_span);
        let needs_range = match &queue.number {
            Some(QueueNumber::Range(first, last)) => first == last,
            Some(QueueNumber::Value(_)) => true,
            None => false,
        };
        if queue.fanout && needs_range {
            return Err(
                Diagnostic::new(span, "fanout needs a range of queues").with_help("write `queue num 0-3 fanout`")
            );
        }
        let (does, instead) = match queue.bypass {
            true => ("passes this chain", "write accept"),
            false => ("is dropped", "write accept or drop, or `bypass`"),
        };
        let what = format!(
            "no program can listen on a queue here: a packet that reaches this rule {does}, as in Linux without a listener"
        );
        self.note(Diagnostic::new(span, what).with_help(format!(
            "{instead}; a copy goes to a program by `log group N`, or to a machine by `dup to ADDRESS`"
        )));
        Ok(queue)
    }

    fn parse_queue_flags(&mut self, queue: &mut QueueSpec) -> ParseResult<()> {
        loop {
            if self.eat_keyword("bypass") {
                queue.bypass = true;
            } else if self.eat_keyword("fanout") {
                queue.fanout = true;
            } else {
                return Err(self.unexpected("bypass or fanout"));
            }
            if !self.eat_punct(",") {
                return Ok(());
            }
        }
    }

    fn parse_queue_range(&mut self) -> ParseResult<QueueNumber> {
        let start = self.span();
        let first = self.expect_queue_number()?;
        let last = if self.eat_punct("-") { self.expect_queue_number()? } else { first };
        if last < first {
            return Err(Diagnostic::new(start.to(self.last_span), "the end of the range is before its start")
                .with_help("write the smaller number first"));
        }
        Ok(QueueNumber::Range(first, last))
    }

    fn expect_queue_number(&mut self) -> ParseResult<u16> {
        let (number, span) = self.expect_number("the number of a queue")?;
        u16::try_from(number)
            .map_err(|_| Diagnostic::new(span, format!("the number of a queue is at most 65535, not {number}")))
    }

    /// A number that a generator, a hash or a map gives.
    fn parse_queue_expression(&mut self) -> ParseResult<QueueNumber> {
        let span = self.span();
        let value = self.parse_expression_of(DataType::Number(16))?;
        let largest = match &value {
            Expression::Numgen { modulus, offset, .. } | Expression::Hash { modulus, offset, .. } => {
                u64::from(*modulus) - 1 + u64::from(*offset)
            }
            Expression::Map(..) => 0,
            _ => {
                return Err(Diagnostic::new(span, "a queue is chosen by numgen, jhash, symhash or a map")
                    .with_help("write `queue to numgen inc mod 4`"));
            }
        };
        if largest > u64::from(u16::MAX) {
            return Err(
                Diagnostic::new(span, "the number of a queue is at most 65535").with_help("use a smaller modulus")
            );
        }
        Ok(QueueNumber::Value(value))
    }
}
