//! Security marks, the labels of SELinux: `secmark NAME { "CONTEXT"; }`, `meta secmark set "NAME"`, `ct secmark set meta secmark`.
//!
//! Packets have none here, so nothing is set and nothing is kept; who loads the ruleset is told.
use super::parser::{ParseResult, Parser};
use crate::ast::{Object, ObjectBody, ObjectKind, SecMarkCopy, Statement};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;

impl Parser<'_> {
    /// After the keyword `secmark`, in a table: `NAME { "CONTEXT"; }`.
    pub(super) fn parse_secmark_object(&mut self, table: usize) -> ParseResult<()> {
        let (name, span) = self.expect_object_name("secmark")?;
        let recording = self.start_recording();
        self.expect_punct("{")?;
        let mut context = None;
        self.parse_object_properties(|parser| {
            if !matches!(parser.peek(), TokenKind::Quoted(_)) || context.is_some() {
                return Err(parser.unexpected("a security context in quotation marks, comment or `}`"));
            }
            context = Some(parser.expect_name("a security context in quotation marks")?.0);
            Ok(())
        })?;
        let Some(context) = context else {
            return Err(Diagnostic::new(span, format!("secmark {name} has no security context"))
                .with_help("write `\"system_u:object_r:http_packet_t:s0\";` in its block"));
        };
        self.note_secmark(span);
        let text = self.recorded_text(recording, ";");
        self.add_object(table, Object { name, span, body: ObjectBody::SecMark(context), text, handle: 0 })
    }

    /// After `meta secmark set`.
    pub(super) fn parse_set_secmark(&mut self, start: Span) -> ParseResult<Statement> {
        self.note_secmark(start);
        if self.is_keyword_ahead(0, "ct") && self.is_keyword_ahead(1, "secmark") {
            (0..2).for_each(|_| drop(self.next_token()));
            return Ok(Statement::SecMark(SecMarkCopy::FromConnection));
        }
        self.parse_ct_object_set(ObjectKind::SecMark)
    }

    /// After `ct secmark`.
    pub(super) fn parse_ct_secmark(&mut self, start: Span) -> ParseResult<Statement> {
        self.note_secmark(start);
        if self.is_keyword_ahead(0, "set") && self.is_keyword_ahead(1, "meta") && self.is_keyword_ahead(2, "secmark") {
            (0..3).for_each(|_| drop(self.next_token()));
            return Ok(Statement::SecMark(SecMarkCopy::ToConnection));
        }
        Err(Diagnostic::new(start, "`ct secmark` takes the packet's mark and nothing else")
            .with_help("write `ct secmark set meta secmark`"))
    }

    fn note_secmark(&mut self, span: Span) {
        let what = "security marks are not set: packets have no SELinux labels here";
        let help = "policies of SELinux see these packets without a label";
        self.note(Diagnostic::new(span, what).with_help(help));
    }
}
