//! From text to tokens.
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A token with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name or keyword; also a duration like `1h30m`.
    Ident(String),
    /// In quotation marks.
    Quoted(String),
    Number(u64),
    Address4(Ipv4Addr),
    Address6(Ipv6Addr),
    /// `$name`.
    Variable(String),
    /// `@name`.
    SetName(String),
    /// `{ } ( ) [ ] , : = != < > <= >= & | ^ ! << >> - / . + *`
    Punct(&'static str),
    /// A newline or `;`.
    Separator,
    Eof,
}

impl TokenKind {
    /// For error messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            TokenKind::Ident(name) => format!("`{name}`"),
            TokenKind::Quoted(text) => format!("`\"{text}\"`"),
            TokenKind::Number(number) => format!("`{number}`"),
            TokenKind::Address4(address) => format!("`{address}`"),
            TokenKind::Address6(address) => format!("`{address}`"),
            TokenKind::Variable(name) => format!("`${name}`"),
            TokenKind::SetName(name) => format!("`@{name}`"),
            TokenKind::Punct(sign) => format!("`{sign}`"),
            TokenKind::Separator => "end of line".to_owned(),
            TokenKind::Eof => "end of file".to_owned(),
        }
    }
}

/// Longer ones first.
const PUNCTUATION: [&str; 27] = [
    "==", "!=", "<=", ">=", "<<", ">>", "{", "}", "(", ")", "[", "]", ",", ":", "=", "<", ">", "&", "|", "^", "!", "-",
    "/", ".", "+", "*", "%",
];

/// Splits a text into tokens.
///
/// # Errors
/// A character or number that is no token.
pub(crate) fn tokenize(file: u32, text: &str) -> Result<Vec<Token>, Diagnostic> {
    let mut lexer = Lexer { file, text, pos: 0, tokens: Vec::with_capacity(text.len() / 4) };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    file: u32,
    text: &'a str,
    pos: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), Diagnostic> {
        while let Some(next) = self.rest().chars().next() {
            let start = self.pos;
            match next {
                ' ' | '\t' | '\r' => self.pos += 1,
                '\\' if self.rest().starts_with("\\\n") || self.rest().starts_with("\\\r\n") => {
                    self.pos += if self.rest().starts_with("\\\n") { 2 } else { 3 };
                }
                '#' => self.pos += self.rest().find('\n').unwrap_or(self.rest().len()),
                '\n' | ';' => self.emit(1, TokenKind::Separator),
                '"' => self.lex_quoted()?,
                '$' | '@' => self.lex_reference(next)?,
                _ => self.lex_other(next)?,
            }
            debug_assert!(self.pos > start, "each turn consumes something");
        }
        self.emit(0, TokenKind::Eof);
        Ok(())
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let number = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Span { file: self.file, start: number(start), end: number(end) }
    }

    fn emit(&mut self, length: usize, kind: TokenKind) {
        let span = self.span(self.pos, self.pos + length);
        self.tokens.push(Token { kind, span });
        self.pos += length;
    }

    fn lex_quoted(&mut self) -> Result<(), Diagnostic> {
        let inside = self.rest().get(1..).unwrap_or_default();
        match inside.find(['"', '\n']) {
            Some(end) if inside.as_bytes().get(end) == Some(&b'"') => {
                let text = inside.get(..end).unwrap_or_default().to_owned();
                self.emit(end + 2, TokenKind::Quoted(text));
                Ok(())
            }
            _ => Err(Diagnostic::new(self.span(self.pos, self.pos + 1), "unterminated string")
                .with_help("close it with \" on the same line")),
        }
    }

    fn lex_reference(&mut self, sign: char) -> Result<(), Diagnostic> {
        let name = ident_prefix(self.rest().get(1..).unwrap_or_default());
        if name.is_empty() {
            return Err(Diagnostic::new(
                self.span(self.pos, self.pos + 1),
                format!("`{sign}` must be followed by a name"),
            ));
        }
        let owned = name.to_owned();
        let kind = if sign == '$' { TokenKind::Variable(owned) } else { TokenKind::SetName(owned) };
        self.emit(name.len() + 1, kind);
        Ok(())
    }

    fn lex_other(&mut self, next: char) -> Result<(), Diagnostic> {
        let rest = self.rest();
        if let Some((address, length)) = ipv6_prefix(rest) {
            self.emit(length, TokenKind::Address6(address));
        } else if let Some(length) =
            mac_address_len(rest).or_else(|| colon_pair_len(rest).filter(|_| !self.is_behind_slash()))
        {
            let written = rest.get(..length).unwrap_or_default().to_owned();
            self.emit(length, TokenKind::Ident(written));
        } else if next.is_ascii_digit() {
            self.lex_number()?;
        } else if next.is_ascii_alphabetic() || next == '_' {
            let name = ident_prefix(rest);
            self.emit(name.len(), TokenKind::Ident(name.to_owned()));
        } else if let Some(sign) = PUNCTUATION.iter().find(|sign| rest.starts_with(**sign)) {
            self.emit(sign.len(), TokenKind::Punct(if *sign == "==" { "=" } else { sign }));
            // `==` between an expression and a value is the same as `=`.
        } else {
            let end = self.pos + next.len_utf8();
            return Err(Diagnostic::new(self.span(self.pos, end), format!("unexpected character {next:?}")));
        }
        Ok(())
    }

    /// In `snat to 192.0.2.0/30:1024` the prefix length ends at the colon.
    fn is_behind_slash(&self) -> bool {
        self.text.get(..self.pos).is_some_and(|before| before.ends_with('/'))
    }

    fn lex_number(&mut self) -> Result<(), Diagnostic> {
        let rest = self.rest();
        let bytes = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let dotted = rest.get(..bytes).unwrap_or_default().trim_end_matches('.');
        if dotted.matches('.').count() == 3 {
            return match dotted.parse() {
                Ok(address) => {
                    self.emit(dotted.len(), TokenKind::Address4(address));
                    Ok(())
                }
                Err(_) => Err(Diagnostic::new(
                    self.span(self.pos, self.pos + dotted.len()),
                    format!("invalid IPv4 address {dotted}"),
                )
                .with_help("four numbers from 0 to 255, without leading zeros")),
            };
        }
        let word = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
        let written = rest.get(..word).unwrap_or_default();
        let number = match written.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            // As in nft, a leading zero means octal: 010 is eight.
            None if written.len() > 1 && written.starts_with('0') => u64::from_str_radix(written, 8).ok(),
            None => written.parse().ok(),
        };
        match number {
            Some(number) => self.emit(word, TokenKind::Number(number)),
            None if written.bytes().all(|byte| byte.is_ascii_digit()) => {
                let span = self.span(self.pos, self.pos + word);
                return Err(Diagnostic::new(
                    span,
                    format!("invalid number {written}: too large, or octal (leading zero) with a digit 8 or 9"),
                ));
            }
            None => self.emit(word, TokenKind::Ident(written.to_owned())),
        }
        Ok(())
    }
}

/// The name at the start of a text: letters, digits, `_ - . /`; a trailing `*` belongs to it. As in nft, a name may end with any of them.
fn ident_prefix(text: &str) -> &str {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let length = text.len() - text.trim_start_matches(inside).len();
    let name = text.get(..length).unwrap_or_default();
    match text.get(length..) {
        Some(rest) if rest.starts_with('*') && length > 0 => text.get(..=length).unwrap_or(name),
        _ => name,
    }
}

/// Length of a link layer address, `00:11:22:aa:bb:cc`.
fn mac_address_len(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !c.is_ascii_hexdigit() && c != ':').unwrap_or(text.len());
    let address = text.get(..end)?;
    let parts = address.split(':');
    (parts.clone().count() == 6 && parts.clone().all(|part| matches!(part.len(), 1 | 2))).then_some(end)
}

/// Length of `1:10` or `08:00` where it is a token of its own; as in nft, with at most four hexadecimal digits on each side.
fn colon_pair_len(text: &str) -> Option<usize> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    let first = digits(text);
    let second = digits(text.get(first..)?.strip_prefix(':')?);
    let length = first + 1 + second;
    let ends = text.get(length..)?.starts_with([' ', '\t', '\n', ':', '-', '}', ',', ';']);
    ((1..=4).contains(&first) && (1..=4).contains(&second) && ends).then_some(length)
}

/// Longest textual form of an IPv6 address.
const MAX_IPV6_TEXT_LEN: usize = 45;

/// An IPv6 address at the start of a text, and its length.
fn ipv6_prefix(text: &str) -> Option<(Ipv6Addr, usize)> {
    let inside = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    let length = text.bytes().take(MAX_IPV6_TEXT_LEN).take_while(|byte| inside(char::from(*byte))).count();
    let run = text.get(..length)?;
    if run.matches(':').count() < 2 {
        return None;
    }
    // In `{ ::1:accept }` the run has a letter or a colon too many.
    (2..=run.len()).rev().find_map(|length| Some((run.get(..length)?.parse().ok()?, length)))
}
