//! From words to a checked tree: recursive descent, one file a level of the language.
//!
//! The parser owns the words that are left. `include` and variables put other words in their place, so that nothing behind needs to know of either. What
//! a rule has wrong is kept, and the next rule is read; what a block has wrong ends the reading.
mod chain;
mod ct_timeout;
mod dynset;
mod expression;
mod exthdr;
mod nat;
mod payload;
mod selector;
mod set;
mod statement;
mod synproxy;
mod table;
mod value;

use crate::ast::{Ruleset, TableFamily};
use crate::diagnostic::{Diagnostic, RulesetError};
use crate::lexer::{Token, TokenKind, tokenize};
use crate::source::{IncludeResolver, Sources, Span};
use std::collections::HashMap;

/// Includes within includes, blocks within blocks: no ruleset that people write comes near.
const MAX_INCLUDE_DEPTH: usize = 16;
/// Words of a ruleset with everything put in: variables of variables could else make any number.
const MAX_TOKENS: usize = 5_000_000;
/// Faults that are told at once.
const MAX_DIAGNOSTICS: usize = 20;

/// Reads a ruleset. `name` is what its text is called in messages.
///
/// ```
/// use keepstate_rules::{NoLibrary, parse};
/// let text = "table inet filter {
///     chain forward {
///         type filter hook forward priority filter; policy drop;
///         ct state established,related accept
///         iifname \"lan*\" tcp dport { 80, 443 } accept
///     }
/// }";
/// let ruleset = parse("rules.nft", text, &NoLibrary).unwrap();
/// assert_eq!(ruleset.tables[0].chains[0].rules.len(), 2);
/// ```
///
/// # Errors
/// What is wrong, with its place.
pub fn parse(name: &str, text: &str, library: &dyn IncludeResolver) -> Result<Ruleset, RulesetError> {
    parse_with(name, text, library, &[]).map(|(ruleset, _)| ruleset)
}

/// As [`parse`], with variables defined before the first line, each by its name and text; gives the texts too, for messages about the tree.
///
/// # Errors
/// What is wrong, with its place.
pub fn parse_with(
    name: &str,
    text: &str,
    library: &dyn IncludeResolver,
    variables: &[(String, String)],
) -> Result<(Ruleset, Sources), RulesetError> {
    let mut parser = Parser {
        sources: Sources::default(),
        includes: library,
        tokens: Vec::new(),
        consumed: 0,
        brace_depth: 0,
        variables: HashMap::new(),
        ruleset: Ruleset::default(),
        chains: HashMap::new(),
        diagnostics: Vec::new(),
    };
    if let Err(fault) = parser.load_source(name, text, variables).and_then(|()| parser.parse_ruleset()) {
        parser.diagnostics.push(fault);
    }
    if parser.diagnostics.is_empty() {
        Ok((parser.ruleset, parser.sources))
    } else {
        Err(RulesetError { diagnostics: parser.diagnostics, sources: parser.sources })
    }
}

pub(crate) struct Parser<'a> {
    sources: Sources,
    includes: &'a dyn IncludeResolver,
    /// What is left, the next word last.
    tokens: Vec<Token>,
    consumed: usize,
    /// Braces that are open.
    brace_depth: usize,
    variables: HashMap<String, Vec<Token>>,
    ruleset: Ruleset,
    /// Where each chain of each table stands.
    chains: HashMap<(usize, String), usize>,
    diagnostics: Vec<Diagnostic>,
}

type ParseResult<T> = Result<T, Diagnostic>;

impl Parser<'_> {
    fn load_source(&mut self, name: &str, text: &str, variables: &[(String, String)]) -> ParseResult<()> {
        for (variable, value) in variables {
            let file = self.sources.add(&format!("-D {variable}"), value.clone(), None);
            let mut value = tokenize(file, value)?;
            value.pop();
            self.variables.insert(variable.clone(), value);
        }
        let file = self.sources.add(name, text.to_owned(), None);
        self.tokens = tokenize(file, text)?;
        self.tokens.reverse();
        Ok(())
    }

    fn parse_ruleset(&mut self) -> ParseResult<()> {
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
    fn parse_definition(&mut self) -> ParseResult<bool> {
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

    fn parse_include(&mut self, span: Span) -> ParseResult<()> {
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

    /// Puts words in front of those that are left.
    fn push_tokens(&mut self, tokens: Vec<Token>, span: Span) -> ParseResult<()> {
        if self.tokens.len() + tokens.len() + self.consumed > MAX_TOKENS {
            return Err(Diagnostic::new(span, format!("with this, the ruleset has more than {MAX_TOKENS} words")));
        }
        self.tokens.extend(tokens.into_iter().rev());
        Ok(())
    }

    /// The next word; variables are exchanged for their values first. One that is not defined stays as it is, and fits nowhere.
    fn peek(&mut self) -> &TokenKind {
        while let Some(Token { kind: TokenKind::Variable(name), span }) = self.tokens.last() {
            let Some(value) = self.variables.get(name) else { break };
            let (value, span) = (value.clone(), *span);
            self.tokens.pop();
            if let Err(fault) = self.push_tokens(value, span) {
                self.diagnostics.push(fault);
                self.tokens.clear();
            }
        }
        self.tokens.last().map_or(&TokenKind::Eof, |token| &token.kind)
    }

    fn next_token(&mut self) -> Token {
        self.peek();
        self.consumed += 1;
        // The end is never taken away.
        match self.tokens.last() {
            Some(Token { kind: TokenKind::Eof, .. }) | None => {
                self.tokens.last().cloned().unwrap_or(Token { kind: TokenKind::Eof, span: Span::default() })
            }
            Some(Token { kind, .. }) => {
                match kind {
                    TokenKind::Punct("{") => self.brace_depth += 1,
                    TokenKind::Punct("}") => self.brace_depth = self.brace_depth.saturating_sub(1),
                    _ => (),
                }
                self.tokens.pop().unwrap_or(Token { kind: TokenKind::Eof, span: Span::default() })
            }
        }
    }

    fn span(&mut self) -> Span {
        self.peek();
        self.tokens.last().map_or(Span::default(), |token| token.span)
    }

    /// The word behind the next one, as it is written.
    fn peek_second(&mut self) -> &TokenKind {
        self.peek();
        let behind = self.tokens.len().checked_sub(2);
        behind.and_then(|at| self.tokens.get(at)).map_or(&TokenKind::Eof, |token| &token.kind)
    }

    fn unexpected(&mut self, wanted: &str) -> Diagnostic {
        let span = self.span();
        match self.peek() {
            TokenKind::Variable(name) => {
                let what = format!("${name} is not defined");
                Diagnostic::new(span, what).with_help("define it above this line, or give it with -D")
            }
            other => {
                let what = format!("{}: {wanted} is wanted here", other.describe());
                Diagnostic::new(span, what)
            }
        }
    }

    fn skip_separators(&mut self) {
        while matches!(self.peek(), TokenKind::Separator) {
            self.next_token();
        }
    }

    /// A name or a text.
    fn expect_name(&mut self, wanted: &str) -> ParseResult<(String, Span)> {
        match self.peek() {
            TokenKind::Ident(_) | TokenKind::Quoted(_) => match self.next_token() {
                Token { kind: TokenKind::Ident(name) | TokenKind::Quoted(name), span } => Ok((name, span)),
                Token { span, .. } => Err(Diagnostic::new(span, wanted)),
            },
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn expect_number(&mut self, wanted: &str) -> ParseResult<(u64, Span)> {
        match self.peek() {
            TokenKind::Number(number) => {
                let number = *number;
                Ok((number, self.next_token().span))
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn expect_u32(&mut self, wanted: &str) -> ParseResult<u32> {
        let (number, span) = self.expect_number(wanted)?;
        u32::try_from(number).map_err(|_| Diagnostic::new(span, format!("{number} is too large: at most {}", u32::MAX)))
    }

    /// Takes this name if it is next.
    fn eat_keyword(&mut self, name: &str) -> bool {
        let is = matches!(self.peek(), TokenKind::Ident(next) if next == name);
        if is {
            self.next_token();
        }
        is
    }

    /// Takes this sign if it is next.
    fn eat_punct(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), TokenKind::Punct(next) if *next == sign);
        if is {
            self.next_token();
        }
        is
    }

    fn expect_punct(&mut self, sign: &str) -> ParseResult<()> {
        if self.eat_punct(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn expect_keyword(&mut self, name: &str) -> ParseResult<()> {
        if self.eat_keyword(name) { Ok(()) } else { Err(self.unexpected(&format!("`{name}`"))) }
    }

    /// The end of a statement's line.
    fn expect_end(&mut self) -> ParseResult<()> {
        match self.peek() {
            TokenKind::Separator => {
                self.next_token();
                Ok(())
            }
            TokenKind::Eof | TokenKind::Punct("}") => Ok(()),
            _ => Err(self.unexpected("the end of the line")),
        }
    }

    /// Keeps a fault and goes on behind its line, in the block that is `depth` braces deep.
    fn recover(&mut self, fault: Diagnostic, depth: usize) -> ParseResult<()> {
        if self.diagnostics.len() + 1 >= MAX_DIAGNOSTICS {
            return Err(fault);
        }
        self.diagnostics.push(fault);
        loop {
            let here = self.brace_depth <= depth;
            match self.peek() {
                TokenKind::Eof => return Ok(()),
                TokenKind::Separator | TokenKind::Punct("}") if here => return Ok(()),
                _ => (),
            }
            self.next_token();
        }
    }

    /// A family, if one is next; `ip` otherwise.
    fn parse_family(&mut self) -> ParseResult<TableFamily> {
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
