//! The outermost level: commands, `define` and `include`.
use super::edit::AddMode;
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
            let depth = self.brace_depth;
            match self.parse_command() {
                Err(diagnostic) if diagnostic.not_governed => self.note_not_governed(diagnostic, depth)?,
                Err(diagnostic) => self.leave_out(diagnostic, depth)?,
                Ok(()) => (),
            }
        }
    }

    /// One command.
    fn parse_command(&mut self) -> ParseResult<()> {
        if self.parse_definition()? {
            return Ok(());
        }
        let (word, span) = self.expect_word("a command (table, include, define, add, flush, delete)")?;
        match word.as_str() {
            "include" => self.parse_include(span),
            "table" => self.echoed(|parser| parser.parse_table()),
            "flush" => self.parse_flush(),
            "add" => self.parse_add(AddMode::Add),
            "create" => self.parse_add(AddMode::Create),
            "insert" => self.parse_add(AddMode::Insert),
            // Without a command, something is added.
            "chain" | "rule" | "set" | "map" | "element" | "counter" | "quota" | "limit" | "ct" | "flowtable"
            | "synproxy" => {
                self.push_tokens(vec![Token { kind: TokenKind::Ident(word), span }], span)?;
                self.parse_add(AddMode::Add)
            }
            "replace" => self.parse_replace(),
            "delete" => self.parse_delete(true),
            "destroy" => self.parse_delete(false),
            "rename" => self.parse_rename(),
            "list" | "reset" if self.script.active => self.parse_query(word == "reset"),
            "get" if self.script.active => {
                self.expect_keyword("element")?;
                self.parse_element_query(false)
            }
            // What a file prints when nft loads it changes nothing.
            "list" => {
                let depth = self.brace_depth;
                self.skip_line(depth)
            }
            "reset" | "get" | "monitor" => {
                Err(Diagnostic::new(span, format!("`{word}` has no place in a ruleset file"))
                    .with_help("`keepstate control nft list ruleset` lists the rules of a running gateway"))
            }
            _ => Err(Diagnostic::new(span, format!("unknown command `{word}`")).with_help(
                "use table, include, define, add, create, insert, replace, delete, destroy, flush or rename",
            )),
        }
    }

    /// `define`, `redefine` or `undefine`, if one is next.
    pub(super) fn parse_definition(&mut self) -> ParseResult<bool> {
        let TokenKind::Ident(word) = self.peek() else { return Ok(false) };
        let again = match word.as_str() {
            "define" => false,
            "redefine" => true,
            "undefine" => {
                self.next_token();
                let (name, span) = self.expect_identifier("a variable name")?;
                if self.variables.remove(&name).is_none() {
                    return Err(Diagnostic::new(span, format!("undefined variable {name}")));
                }
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.next_token();
        let (name, span) = self.expect_identifier("a variable name")?;
        if !again && self.variables.contains_key(&name) {
            return Err(Diagnostic::new(span, format!("variable {name} is already defined"))
                .with_help("use `redefine` to change it"));
        }
        self.expect_punct("=")?;
        let mut value = Vec::new();
        let mut depth = 0_usize;
        loop {
            let semicolon = depth > 0 && self.is_semicolon_next();
            match self.peek() {
                TokenKind::Separator if depth == 0 => break,
                TokenKind::Eof if depth > 0 => return Err(self.unexpected("`}`")),
                TokenKind::Eof => break,
                TokenKind::Separator if semicolon => return Err(self.unexpected("`,` or `}`")),
                TokenKind::Punct("{") => depth += 1,
                TokenKind::Punct("}") if depth == 0 => break,
                TokenKind::Punct("}") => depth -= 1,
                TokenKind::Variable(_) => return Err(self.unexpected("a value")),
                _ => (),
            }
            value.push(self.next_token());
        }
        if value.is_empty() {
            return Err(Diagnostic::new(span, format!("variable {name} has no value")));
        }
        self.variables.insert(name, value);
        Ok(true)
    }

    /// Does a semicolon end the line here, not a line break?
    fn is_semicolon_next(&mut self) -> bool {
        let span = self.span();
        self.sources.text(span.file).get(span.start as usize..span.end as usize) == Some(";")
    }

    pub(super) fn parse_include(&mut self, span: Span) -> ParseResult<()> {
        let Token { kind: TokenKind::Quoted(pattern), span: place } = self.next_token() else {
            return Err(Diagnostic::new(span, "include needs a file name in quotation marks"));
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
                format!("includes are nested more than {MAX_INCLUDE_DEPTH} deep: does a file include itself?"),
            ));
        }
        let texts = self.includes.resolve(&pattern, self.sources.name(span.file));
        let texts = texts.map_err(|reason| Diagnostic::new(place, format!("cannot include {pattern}: {reason}")))?;
        for (name, text) in texts.into_iter().rev() {
            let file = self.sources.add(&name, text.clone(), Some(place));
            let mut tokens = tokenize(file, &text)?;
            // The end of an included text is not the end of the ruleset.
            if let Some(last) = tokens.last_mut() {
                last.kind = TokenKind::Separator;
            }
            self.push_tokens(tokens, place)?;
        }
        Ok(())
    }

    /// A table family, if one is next; `ip` otherwise.
    pub(super) fn parse_family(&mut self) -> ParseResult<TableFamily> {
        let span = self.span();
        let TokenKind::Ident(name) = self.peek() else { return Ok(TableFamily::Ip) };
        let family = match name.as_str() {
            "ip" => TableFamily::Ip,
            "ip6" => TableFamily::Ip6,
            "inet" => TableFamily::Inet,
            "arp" | "bridge" | "netdev" => {
                let family = name.clone();
                let table = match self.peek_second() {
                    TokenKind::Ident(name) | TokenKind::Quoted(name) => format!("table {family} {name}"),
                    _ => format!("family {family}"),
                };
                let what = format!("{table} is not governed here: the kernel applies it to what passes the kernel");
                return Err(Diagnostic::not_governed(span, what)
                    .with_help("what it drops is not dropped here: write rules for forwarded packets in a table of family ip, ip6 or inet"));
            }
            _ => return Ok(TableFamily::Ip),
        };
        self.next_token();
        Ok(family)
    }
}
