//! What is wrong with a ruleset: where, what, and what to write instead.
use crate::source::{Sources, Span};
use std::fmt::Write;

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The piece of text.
    pub span: Span,
    /// What is wrong with it.
    pub message: String,
    /// What to do instead, if there is something.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(span: Span, what: impl Into<String>) -> Diagnostic {
        Diagnostic { span, message: what.into(), help: None }
    }

    pub(crate) fn with_help(mut self, instead: impl Into<String>) -> Diagnostic {
        self.help = Some(instead.into());
        self
    }

    /// For people: place and words, the line with the piece underlined, what to do instead.
    ///
    /// ```
    /// use keepstate_rules::{NoIncludes, parse};
    /// let fault = parse("rules.nft", "table ip filter { chain c { tcp dport ssh acept; }; }", &NoIncludes).unwrap_err();
    /// assert!(fault.to_string().starts_with("rules.nft:1:43: acept: "));
    /// assert!(fault.to_string().contains("^^^^^"));
    /// ```
    pub fn render(&self, sources: &Sources) -> String {
        let position = sources.position(self.span);
        let mut out = format!("{position}: {}\n", self.message);
        let text = sources.text(self.span.file);
        let start = (self.span.start as usize).min(text.len());
        let line_start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let gutter = position.line.to_string();
        // What is before the piece keeps its tabs, so that the marks stand below the piece.
        let before = text.get(line_start..start).unwrap_or_default();
        let blank: String = before.chars().map(|letter| if letter == '\t' { '\t' } else { ' ' }).collect();
        let piece = text.get(start..self.span.end as usize).and_then(|piece| piece.lines().next()).unwrap_or_default();
        let marks = "^".repeat(piece.chars().count().max(1));
        let _ = writeln!(out, "{gutter} | {line}\n{} | {blank}{marks}", " ".repeat(gutter.len()));
        if let Some(instead) = &self.help {
            let _ = writeln!(out, "{} = {instead}", " ".repeat(gutter.len()));
        }
        let mut file = self.span.file;
        while let Some(included) = sources.included_from(file) {
            let _ = writeln!(out, "{} included from {}", " ".repeat(gutter.len()), sources.position(included));
            file = included.file;
        }
        out
    }
}

/// What is wrong, with the texts it is about.
#[derive(Clone, Debug)]
pub struct RulesetError {
    /// Every fault that was found, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts.
    pub sources: Sources,
}

impl std::fmt::Display for RulesetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.diagnostics.iter().try_for_each(|fault| f.write_str(&fault.render(&self.sources)))
    }
}

impl std::error::Error for RulesetError {}
