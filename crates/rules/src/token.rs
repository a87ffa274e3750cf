//! From text to words.
use crate::fault::Fault;
use crate::source::Span;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A word of the language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Word,
    pub(crate) span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// A name or a keyword; also a time or size like `1h30m`.
    Name(String),
    /// In quotation marks.
    Text(String),
    Number(u64),
    Address4(Ipv4Addr),
    Address6(Ipv6Addr),
    /// `$name`.
    Variable(String),
    /// `@name`.
    Set(String),
    /// `{ } ( ) [ ] , : = != < > <= >= & | ^ ! << >> - / . + *`
    Sign(&'static str),
    /// A new line or `;`.
    Separator,
    End,
}

impl Word {
    /// As it is written, for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Word::Name(name) => name.clone(),
            Word::Text(text) => format!("\"{text}\""),
            Word::Number(number) => number.to_string(),
            Word::Address4(address) => address.to_string(),
            Word::Address6(address) => address.to_string(),
            Word::Variable(name) => format!("${name}"),
            Word::Set(name) => format!("@{name}"),
            Word::Sign(sign) => (*sign).to_owned(),
            Word::Separator => "the end of the line".to_owned(),
            Word::End => "the end of the text".to_owned(),
        }
    }
}

/// Longer ones first.
const SIGNS: [&str; 27] = [
    "==", "!=", "<=", ">=", "<<", ">>", "{", "}", "(", ")", "[", "]", ",", ":", "=", "<", ">", "&", "|", "^", "!", "-",
    "/", ".", "+", "*", "%",
];

/// The words of a text.
///
/// # Errors
/// What is no word.
pub(crate) fn words(file: u32, text: &str) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { file, text, at: 0, tokens: Vec::with_capacity(text.len() / 4) };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    file: u32,
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), Fault> {
        while let Some(next) = self.rest().chars().next() {
            let start = self.at;
            match next {
                ' ' | '\t' | '\r' => self.at += 1,
                '\\' if self.rest().starts_with("\\\n") || self.rest().starts_with("\\\r\n") => {
                    self.at += if self.rest().starts_with("\\\n") { 2 } else { 3 };
                }
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                '\n' | ';' => self.take(1, Word::Separator),
                '"' => self.quoted()?,
                '$' | '@' => self.reference(next)?,
                _ => self.other(next)?,
            }
            debug_assert!(self.at > start, "each step reads something");
        }
        self.take(0, Word::End);
        Ok(())
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let number = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Span { file: self.file, start: number(start), end: number(end) }
    }

    fn take(&mut self, length: usize, kind: Word) {
        let span = self.span(self.at, self.at + length);
        self.tokens.push(Token { kind, span });
        self.at += length;
    }

    fn quoted(&mut self) -> Result<(), Fault> {
        let inside = self.rest().get(1..).unwrap_or_default();
        match inside.find(['"', '\n']) {
            Some(end) if inside.as_bytes().get(end) == Some(&b'"') => {
                let text = inside.get(..end).unwrap_or_default().to_owned();
                self.take(end + 2, Word::Text(text));
                Ok(())
            }
            _ => Err(Fault::new(self.span(self.at, self.at + 1), "this quotation mark is never closed")
                .instead("a text ends with \" on the same line")),
        }
    }

    fn reference(&mut self, sign: char) -> Result<(), Fault> {
        let name = name_of(self.rest().get(1..).unwrap_or_default());
        if name.is_empty() {
            return Err(Fault::new(self.span(self.at, self.at + 1), format!("{sign} without a name behind it")));
        }
        let owned = name.to_owned();
        let kind = if sign == '$' { Word::Variable(owned) } else { Word::Set(owned) };
        self.take(name.len() + 1, kind);
        Ok(())
    }

    fn other(&mut self, next: char) -> Result<(), Fault> {
        let rest = self.rest();
        if let Some((address, length)) = address6(rest) {
            self.take(length, Word::Address6(address));
        } else if next.is_ascii_digit() {
            self.number()?;
        } else if next.is_ascii_alphabetic() || next == '_' {
            let name = name_of(rest);
            self.take(name.len(), Word::Name(name.to_owned()));
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            self.take(sign.len(), Word::Sign(if *sign == "==" { "=" } else { sign }));
            // `==` is `=` between an expression and a value; a definition has one only.
        } else {
            let end = self.at + next.len_utf8();
            return Err(Fault::new(self.span(self.at, end), format!("{next:?} has no meaning here")));
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let octets =
            rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.').len();
        let dotted = rest.get(..octets).unwrap_or_default().trim_end_matches('.');
        if dotted.matches('.').count() == 3 {
            return match dotted.parse() {
                Ok(address) => {
                    self.take(dotted.len(), Word::Address4(address));
                    Ok(())
                }
                Err(_) => {
                    Err(Fault::new(self.span(self.at, self.at + dotted.len()), format!("{dotted} is no IPv4 address"))
                        .instead("four numbers from 0 to 255, without zeros in front"))
                }
            };
        }
        if let Some(length) = pair(rest) {
            let written = rest.get(..length).unwrap_or_default().to_owned();
            self.take(length, Word::Name(written));
            return Ok(());
        }
        let word =
            rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || letter == '_').len();
        let written = rest.get(..word).unwrap_or_default();
        let number = match written.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            // As nft reads it: 010 is eight.
            None if written.len() > 1 && written.starts_with('0') => u64::from_str_radix(written, 8).ok(),
            None => written.parse().ok(),
        };
        match number {
            Some(number) => self.take(word, Word::Number(number)),
            None if written.bytes().all(|octet| octet.is_ascii_digit()) => {
                let span = self.span(self.at, self.at + word);
                return Err(Fault::new(
                    span,
                    format!("{written} is no number here: too large, or octal (a zero in front) with an 8 or 9"),
                ));
            }
            None => self.take(word, Word::Name(written.to_owned())),
        }
        Ok(())
    }
}

/// The name at the beginning of a text: letters, digits, and `_ - . /` inside; a `*` ends it.
fn name_of(text: &str) -> &str {
    let inside = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.' | '/');
    let length = text.len() - text.trim_start_matches(inside).len();
    let name = text.get(..length).unwrap_or_default();
    let trimmed = name.trim_end_matches(['.', '/', '-']);
    match text.get(trimmed.len()..) {
        Some(rest) if rest.starts_with('*') && !trimmed.is_empty() => text.get(..trimmed.len() + 1).unwrap_or(trimmed),
        _ => trimmed,
    }
}

/// How long `1:10` or `08:00` is, where it stands for itself: as nft has it, at most four hexadecimal digits on each side.
fn pair(text: &str) -> Option<usize> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    let first = digits(text);
    let second = digits(text.get(first..)?.strip_prefix(':')?);
    let length = first + 1 + second;
    let ends = text.get(length..)?.starts_with([' ', '\t', '\n', ':', '-', '}', ',', ';']);
    ((1..=4).contains(&first) && (1..=4).contains(&second) && ends).then_some(length)
}

/// The longest way to write an IPv6 address.
const MOST: usize = 45;

/// An IPv6 address at the beginning of a text, and its length.
fn address6(text: &str) -> Option<(Ipv6Addr, usize)> {
    let inside = |letter: char| letter.is_ascii_hexdigit() || matches!(letter, ':' | '.');
    let length = text.bytes().take(MOST).take_while(|octet| inside(char::from(*octet))).count();
    let run = text.get(..length)?;
    if run.matches(':').count() < 2 {
        return None;
    }
    // `{ ::1:accept }` may have taken a letter or a colon too many.
    (2..=run.len()).rev().find_map(|length| Some((run.get(..length)?.parse().ok()?, length)))
}
