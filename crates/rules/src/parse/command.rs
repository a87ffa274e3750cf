//! The outermost level: commands, `define` and `include`.
use super::parser::{ParseResult, Parser};
use crate::ast::TableFamily;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind, tokenize};
use crate::source::Span;

/// Depth of nested includes; no real ruleset comes near.
const MAX_INCLUDE_DEPTH: usize = 16;

impl Parser<'_> {
    pub(super) fn parse_ruleset(&mut self) -> ParseResult<()> {
        loop {
            self.skip_separators();
            if matches!(self.peek(), TokenKind::Eof) {
                return Ok(());
            }
            self.parse_command()?;
        }
    }

    /// One command of the outermost level.
    fn parse_command(&mut self) -> ParseResult<()> {
        if self.parse_definition()? {
            return Ok(());
        }
        let (word, span) = self.expect_name("a command: table, include, define, add, flush, delete")?;
        match word.as_str() {
            "include" => self.parse_include(span),
            "table" => self.parse_table(),
            "flush" => self.parse_flush(),
            "add" | "create" => self.parse_add(false),
            "insert" => self.parse_add(true),
            "delete" | "destroy" => self.parse_delete(),
            "replace" | "reset" | "list" | "rename" | "monitor" => Err(Diagnostic::new(
                span,
                format!("{word}: a ruleset is written from nothing here, and is loaded whole"),
            )
            .with_help("write the rules in their order, in `table … { chain … { … } }`")),
            _ => Err(Diagnostic::new(span, format!("{word}: no such command"))
                .with_help("table, include, define, add, flush or delete")),
        }
    }

    /// `define`, `redefine`, `undefine`: true if it was one.
    pub(super) fn parse_definition(&mut self) -> ParseResult<bool> {
        let TokenKind::Ident(word) = self.peek() else { return Ok(false) };
        let again = match word.as_str() {
            "define" => false,
            "redefine" => true,
            "undefine" => {
                self.next_token();
                let (name, span) = self.expect_name("a variable's name")?;
                if self.variables.remove(&name).is_none() {
                    return Err(Diagnostic::new(span, format!("{name}: there is no such variable")));
                }
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.next_token();
        let (name, span) = self.expect_name("a variable's name")?;
        if !again && self.variables.contains_key(&name) {
            return Err(
                Diagnostic::new(span, format!("{name} is defined already")).with_help("redefine changes a variable")
            );
        }
        self.expect_punct("=")?;
        let mut value = Vec::new();
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                TokenKind::Separator if depth == 0 => break,
                TokenKind::Eof => break,
                TokenKind::Punct("{") => depth += 1,
                TokenKind::Punct("}") if depth == 0 => break,
                TokenKind::Punct("}") => depth -= 1,
                TokenKind::Variable(_) => return Err(self.unexpected("a value")),
                _ => (),
            }
            value.push(self.next_token());
        }
        if value.is_empty() {
            return Err(Diagnostic::new(span, format!("{name} is given no value")));
        }
        self.variables.insert(name, value);
        Ok(true)
    }

    pub(super) fn parse_include(&mut self, span: Span) -> ParseResult<()> {
        let Token { kind: TokenKind::Quoted(pattern), span: place } = self.next_token() else {
            return Err(Diagnostic::new(span, "include wants a file's name in quotation marks"));
        };
        let mut depth = 0;
        let mut file = span.file;
        while let Some(from) = self.sources.included_from(file) {
            depth += 1;
            file = from.file;
        }
        if depth >= MAX_INCLUDE_DEPTH {
            return Err(Diagnostic::new(
                place,
                format!("{MAX_INCLUDE_DEPTH} files include one another: is it a circle?"),
            ));
        }
        let texts = self.includes.resolve(&pattern, self.sources.name(span.file));
        let texts = texts.map_err(|why| Diagnostic::new(place, format!("{pattern}: {why}")))?;
        for (name, text) in texts.into_iter().rev() {
            let file = self.sources.add(&name, text.clone(), Some(place));
            let mut tokens = tokenize(file, &text)?;
            // Its end is not the end of everything.
            if let Some(last) = tokens.last_mut() {
                last.kind = TokenKind::Separator;
            }
            self.push_tokens(tokens, place)?;
        }
        Ok(())
    }

    /// A family, if one is next; `ip` otherwise.
    pub(super) fn parse_family(&mut self) -> ParseResult<TableFamily> {
        let span = self.span();
        let TokenKind::Ident(name) = self.peek() else { return Ok(TableFamily::Ip) };
        let family = match name.as_str() {
            "ip" => TableFamily::Ip,
            "ip6" => TableFamily::Ip6,
            "inet" => TableFamily::Inet,
            "arp" | "bridge" | "netdev" => {
                let what = format!("{name}: tables of this family are not for a router");
                return Err(Diagnostic::new(span, what).with_help("ip, ip6 or inet; leave this one to the kernel"));
            }
            _ => return Ok(TableFamily::Ip),
        };
        self.next_token();
        Ok(family)
    }
}
