//! The parser's core: the tokens that are left, and the helpers that take them.
//!
//! `include` and variables put other tokens in front of those that are left, so no other module needs to know about either. An error in a rule is recorded
//! and the next rule is read; an error in a block ends parsing.
#![allow(clippy::disallowed_types, reason = "the keys are names in a ruleset, not a peer's")]
use super::left_out::LeftOut;
use crate::ast::{AddedItem, Query, Ruleset, SetChange};
use crate::check::ProtocolContext;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind, tokenize};
use crate::source::{IncludeResolver, Sources, Span};
use std::collections::HashMap;

/// Tokens of a ruleset with all variables expanded: variables made of variables could otherwise grow without bound.
const MAX_TOKENS: usize = 5_000_000;
/// Bytes of a comment, as in nft.
const MAX_COMMENT: usize = 128;
/// Errors reported at once.
const MAX_DIAGNOSTICS: usize = 20;

/// State of the parser.
pub(super) struct Parser<'a> {
    pub(super) sources: Sources,
    pub(super) includes: &'a dyn IncludeResolver,
    /// Tokens that are left, the next one last.
    pub(super) tokens: Vec<Token>,
    consumed: usize,
    /// Number of open braces.
    pub(super) brace_depth: usize,
    pub(super) variables: HashMap<String, Vec<Token>>,
    pub(super) ruleset: Ruleset,
    /// Index of each chain, by table and name.
    pub(super) chains: HashMap<(usize, String), usize>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Place of the token taken last.
    pub(super) last_span: Span,
    /// Places of the tokens taken while something is recorded, to quote it as written.
    recorded: Vec<(Span, bool)>,
    recordings: usize,
    pub(super) left_out: LeftOut,
    /// Number of open parentheses.
    pub(super) nesting: usize,
    /// What the statements of the rule so far say about its packets; `None` outside of a rule.
    pub(super) rule_context: Option<ProtocolContext>,
    /// Index of the table of the rule that is parsed.
    pub(super) rule_table: Option<usize>,
    /// Where the recording of its text began.
    pub(super) rule_recording: usize,
    /// The rule stands in a chain without a name.
    pub(super) in_anonymous_chain: bool,
    /// Sets without a name in the rule so far, as nft makes them.
    pub(super) anonymous_sets: u64,
    /// Place of an address without a family in the statement that is parsed.
    pub(super) unqualified: Option<Span>,
    /// What a script asks besides changing the tree.
    pub(super) script: ScriptState,
}

/// What is collected while a script is parsed; a ruleset file leaves all of it empty.
#[derive(Debug, Default)]
pub(super) struct ScriptState {
    /// The tree is that of a running ruleset.
    pub(super) active: bool,
    /// The command names elements that exist: the values of a map's may be left out.
    pub(super) names_elements: bool,
    /// What the command adds must not exist.
    pub(super) create: bool,
    pub(super) tree_changed: bool,
    pub(super) changes: Vec<SetChange>,
    pub(super) queries: Vec<Query>,
    pub(super) added: Vec<AddedItem>,
}

pub(super) type ParseResult<T> = Result<T, Diagnostic>;

impl Parser<'_> {
    /// A parser without text; [`Parser::load_source`] gives it one.
    pub(super) fn new(includes: &dyn IncludeResolver) -> Parser<'_> {
        Parser {
            sources: Sources::default(),
            includes,
            tokens: Vec::new(),
            consumed: 0,
            brace_depth: 0,
            variables: HashMap::new(),
            ruleset: Ruleset::default(),
            chains: HashMap::new(),
            diagnostics: Vec::new(),
            last_span: Span::default(),
            recorded: Vec::new(),
            recordings: 0,
            left_out: LeftOut::default(),
            nesting: 0,
            rule_context: None,
            rule_table: None,
            rule_recording: 0,
            in_anonymous_chain: false,
            anonymous_sets: 0,
            unqualified: None,
            script: ScriptState::default(),
        }
    }

    pub(super) fn load_source(&mut self, name: &str, text: &str, variables: &[(String, String)]) -> ParseResult<()> {
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

    /// Puts tokens in front of those that are left.
    pub(super) fn push_tokens(&mut self, tokens: Vec<Token>, span: Span) -> ParseResult<()> {
        if self.tokens.len() + tokens.len() + self.consumed > MAX_TOKENS {
            return Err(Diagnostic::new(span, format!("the ruleset has more than {MAX_TOKENS} tokens")));
        }
        self.tokens.extend(tokens.into_iter().rev());
        Ok(())
    }

    /// The next token, with variables expanded. An undefined variable stays as it is, and is an error everywhere.
    pub(super) fn peek(&mut self) -> &TokenKind {
        while let Some(Token { kind: TokenKind::Variable(name), span }) = self.tokens.last() {
            let Some(value) = self.variables.get(name) else { break };
            let (value, span) = (value.clone(), *span);
            self.tokens.pop();
            if let Err(diagnostic) = self.push_tokens(value, span) {
                self.diagnostics.push(diagnostic);
                self.tokens.clear();
            }
        }
        self.tokens.last().map_or(&TokenKind::Eof, |token| &token.kind)
    }

    pub(super) fn next_token(&mut self) -> Token {
        self.peek();
        self.consumed += 1;
        // Eof is never removed.
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
                if self.recordings > 0
                    && let Some(token) = self.tokens.last()
                {
                    self.recorded.push((token.span, matches!(token.kind, TokenKind::Separator)));
                }
                let token = self.tokens.pop().unwrap_or(Token { kind: TokenKind::Eof, span: Span::default() });
                self.last_span = token.span;
                token
            }
        }
    }

    /// From here on tokens are recorded, until [`Parser::recorded_text`]; recordings may be nested.
    pub(super) fn start_recording(&mut self) -> usize {
        self.recordings += 1;
        self.recorded.len()
    }

    /// The tokens since `start` as they were written, on one line, variables replaced by their values. `separator` is written for the ends of lines.
    pub(super) fn recorded_text(&mut self, start: usize, separator: &str) -> String {
        let text = self.joined_text(start, separator);
        self.recordings = self.recordings.saturating_sub(1);
        if self.recordings == 0 {
            self.recorded.clear();
        }
        text
    }

    /// The same, with the recording going on.
    pub(super) fn text_since(&self, start: usize) -> String {
        self.joined_text(start, "")
    }

    /// Ends a recording and forgets what was recorded since.
    pub(super) fn drop_recorded(&mut self, start: usize) {
        self.recorded.truncate(start);
        self.recordings = self.recordings.saturating_sub(1);
    }

    fn joined_text(&self, start: usize, separator: &str) -> String {
        let mut text = String::new();
        let mut last = Span::default();
        for (span, is_separator) in self.recorded.get(start..).unwrap_or_default() {
            let adjacent = last.file == span.file && last.end == span.start;
            if *is_separator {
                let redundant =
                    separator.is_empty() || text.ends_with(separator) || text.ends_with('{') || text.is_empty();
                text.push_str(if redundant { "" } else { separator });
                continue;
            }
            let word = self.sources.text(span.file).get(span.start as usize..span.end as usize).unwrap_or_default();
            if !text.is_empty() && !adjacent {
                text.push(' ');
            }
            text.push_str(word);
            last = *span;
        }
        text
    }

    pub(super) fn span(&mut self) -> Span {
        self.peek();
        self.tokens.last().map_or(Span::default(), |token| token.span)
    }

    /// The token after the next one, without expanding variables.
    pub(super) fn peek_second(&mut self) -> &TokenKind {
        self.peek();
        let behind = self.tokens.len().checked_sub(2);
        behind.and_then(|at| self.tokens.get(at)).map_or(&TokenKind::Eof, |token| &token.kind)
    }

    /// Is the token after `by` others this keyword? Variables are not expanded.
    pub(super) fn is_keyword_ahead(&mut self, by: usize, word: &str) -> bool {
        self.peek();
        let ahead = self.tokens.len().checked_sub(by + 1).and_then(|at| self.tokens.get(at));
        matches!(ahead, Some(Token { kind: TokenKind::Ident(name), .. }) if name == word)
    }

    pub(super) fn unexpected(&mut self, wanted: &str) -> Diagnostic {
        let span = self.span();
        match self.peek() {
            TokenKind::Variable(name) => {
                let what = format!("undefined variable ${name}");
                Diagnostic::new(span, what).with_help("define it above this line, or on the command line with -D")
            }
            other => {
                let what = format!("expected {wanted}, found {}", other.describe());
                Diagnostic::new(span, what)
            }
        }
    }

    pub(super) fn skip_separators(&mut self) {
        while matches!(self.peek(), TokenKind::Separator) {
            self.next_token();
        }
    }

    /// Is the next token a variable as it is written, not yet replaced by its value?
    pub(super) fn is_variable_next(&self) -> bool {
        matches!(self.tokens.last(), Some(Token { kind: TokenKind::Variable(_), .. }))
    }

    pub(super) fn expect_comment(&mut self) -> ParseResult<String> {
        let (comment, span) = self.expect_name("a comment")?;
        if comment.len() > MAX_COMMENT {
            let what = format!("a comment has at most {MAX_COMMENT} bytes, not {}", comment.len());
            return Err(Diagnostic::new(span, what).with_help("shorten it, or write a line that begins with `#`"));
        }
        Ok(comment)
    }

    /// A comment where another one may have been written before.
    pub(super) fn expect_only_comment(&mut self, again: bool) -> ParseResult<String> {
        if again {
            let span = self.span();
            return Err(
                Diagnostic::new(span, "this is the second comment of the same thing").with_help("remove one of them")
            );
        }
        self.expect_comment()
    }

    pub(super) fn expect_number(&mut self, wanted: &str) -> ParseResult<(u64, Span)> {
        match self.peek() {
            TokenKind::Number(number) => {
                let number = *number;
                Ok((number, self.next_token().span))
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    pub(super) fn expect_u32(&mut self, wanted: &str) -> ParseResult<u32> {
        let (number, span) = self.expect_number(wanted)?;
        u32::try_from(number)
            .map_err(|_| Diagnostic::new(span, format!("{number} is too large (maximum {})", u32::MAX)))
    }

    /// Takes this keyword if it is next.
    pub(super) fn eat_keyword(&mut self, name: &str) -> bool {
        let is = matches!(self.peek(), TokenKind::Ident(next) if next == name);
        if is {
            self.next_token();
        }
        is
    }

    /// Takes this punctuation if it is next.
    pub(super) fn eat_punct(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), TokenKind::Punct(next) if *next == sign);
        if is {
            self.next_token();
        }
        is
    }

    pub(super) fn expect_punct(&mut self, sign: &str) -> ParseResult<()> {
        if self.eat_punct(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    pub(super) fn expect_keyword(&mut self, name: &str) -> ParseResult<()> {
        if self.eat_keyword(name) { Ok(()) } else { Err(self.unexpected(&format!("`{name}`"))) }
    }

    /// The end of a line or block.
    pub(super) fn expect_end(&mut self) -> ParseResult<()> {
        match self.peek() {
            TokenKind::Separator => {
                self.next_token();
                Ok(())
            }
            TokenKind::Eof | TokenKind::Punct("}") => Ok(()),
            _ => Err(self.unexpected("end of line")),
        }
    }

    /// Records an error and skips the rest of its line, in the block at brace depth `depth`.
    pub(super) fn recover(&mut self, diagnostic: Diagnostic, depth: usize) -> ParseResult<()> {
        let Err(diagnostic) = self.leave_out(diagnostic, depth) else { return Ok(()) };
        if self.diagnostics.len() + 1 >= MAX_DIAGNOSTICS {
            return Err(diagnostic);
        }
        self.diagnostics.push(diagnostic);
        self.skip_line(depth)
    }

    /// Skips the rest of a line, in the block at brace depth `depth`.
    pub(super) fn skip_line(&mut self, depth: usize) -> ParseResult<()> {
        self.nesting = 0;
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
}
