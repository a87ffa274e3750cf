//! `synproxy mss 1460 wscale 7 timestamp sack-perm`, in a rule or as a named object.
use super::parser::{ParseResult, Parser};
use crate::ast::{Object, ObjectBody, ObjectKind, Statement, SynproxyInfo};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;

/// Largest window scale (RFC 7323, 2.3).
const MAX_WSCALE: u32 = 14;

impl Parser<'_> {
    /// After the keyword `synproxy`, in a rule.
    pub(super) fn parse_synproxy(&mut self) -> ParseResult<Statement> {
        if let Some(named) = self.parse_object_ref(ObjectKind::Synproxy)? {
            return Ok(named);
        }
        let mut proxy = SynproxyInfo::default();
        while self.parse_synproxy_option(&mut proxy)? {}
        Ok(Statement::Synproxy(proxy))
    }

    /// After the keyword `synproxy`, in a table: `NAME { mss 1460; wscale 7; timestamp sack-perm; }`.
    pub(super) fn parse_synproxy_object(&mut self, table: usize) -> ParseResult<()> {
        let (name, span) = self.expect_identifier("a name for the synproxy")?;
        let recording = self.start_recording();
        self.expect_punct("{")?;
        let mut proxy = SynproxyInfo::default();
        self.parse_object_properties(|parser| {
            if parser.is_keyword_ahead(0, "mss") && proxy.mss.is_none() {
                return parser.parse_object_options(&mut proxy);
            }
            Err(parser.unexpected("mss, wscale, then timestamp sack-perm in one line; or `}`"))
        })?;
        let text = self.recorded_text(recording, ";");
        self.add_object(table, Object { name, span, body: ObjectBody::Synproxy(proxy), text, handle: 0 })
    }

    /// The options of an object, in the one order that nft reads: all in one line, or separators after the MSS and the scale.
    fn parse_object_options(&mut self, proxy: &mut SynproxyInfo) -> ParseResult<()> {
        self.parse_synproxy_option(proxy)?;
        let is_one_line = self.is_keyword_ahead(0, "wscale");
        self.skip_separators();
        if !self.is_keyword_ahead(0, "wscale") {
            return Err(self.unexpected("wscale, after mss"));
        }
        self.parse_synproxy_option(proxy)?;
        let is_separator = matches!(self.peek(), TokenKind::Separator);
        if is_one_line == is_separator {
            return Ok(());
        }
        self.skip_separators();
        for flag in ["timestamp", "sack-perm"] {
            if self.is_keyword_ahead(0, flag) {
                self.parse_synproxy_option(proxy)?;
            }
        }
        Ok(())
    }

    /// One option, if it is next.
    fn parse_synproxy_option(&mut self, proxy: &mut SynproxyInfo) -> ParseResult<bool> {
        let TokenKind::Ident(word) = self.peek() else { return Ok(false) };
        match word.as_str() {
            "mss" => {
                self.next_token();
                let span = self.span();
                let size = self.expect_u32("an MSS in bytes")?;
                let size = u16::try_from(size)
                    .map_err(|_| Diagnostic::new(span, format!("an MSS is at most 65535, not {size}")));
                proxy.mss = Some(size?);
            }
            "wscale" => {
                self.next_token();
                let span = self.span();
                let scale = self.expect_u32("a window scale")?;
                if scale > MAX_WSCALE {
                    let what = format!("a window scale is at most {MAX_WSCALE}");
                    return Err(
                        Diagnostic::new(span, what).with_help("use the servers' window scale: 7 on most Linux systems")
                    );
                }
                proxy.wscale = u8::try_from(scale).ok();
            }
            "timestamp" => {
                self.next_token();
                proxy.timestamp = true;
            }
            "sack-perm" => {
                self.next_token();
                proxy.sack = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
