//! Errors in a ruleset: where, what, and what to write instead.
use crate::source::{Sources, Span};
use std::fmt::Write;

/// One error in a ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Diagnostic {
    /// Place in the text.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What to write instead, if known.
    pub help: Option<String>,
    /// Correct nftables that is not supported here, so it may be left out on request; any other error is a mistake in the text.
    pub unsupported: bool,
    /// Not an error: a table of another family, which the kernel goes on to apply and no packet meets here.
    pub not_governed: bool,
}

impl Diagnostic {
    pub(crate) fn new(span: Span, what: impl Into<String>) -> Diagnostic {
        Diagnostic { span, message: what.into(), help: None, unsupported: false, not_governed: false }
    }

    /// For correct nftables that is not supported here.
    pub(crate) fn unsupported(span: Span, what: impl Into<String>) -> Diagnostic {
        Diagnostic { unsupported: true, ..Diagnostic::new(span, what) }
    }

    /// For a command about a table that is the kernel's.
    pub(crate) fn not_governed(span: Span, what: impl Into<String>) -> Diagnostic {
        Diagnostic { not_governed: true, ..Diagnostic::new(span, what) }
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Renders the error for people: place and message, the line with the place underlined, the hint.
    ///
    /// ```
    /// use keepstate_rules::{NoIncludes, parse};
    /// let fault = parse("rules.nft", "table ip filter { chain c { tcp dport ssh acept; }; }", &NoIncludes).unwrap_err();
    /// assert!(fault.to_string().starts_with("rules.nft:1:43: expected "));
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
        // Tabs before the marked text are kept, so that the marks stand below it.
        let before = text.get(line_start..start).unwrap_or_default();
        let blank: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let piece = text.get(start..self.span.end as usize).and_then(|piece| piece.lines().next()).unwrap_or_default();
        let (line, blank, marked) = visible_part(line, blank, piece.chars().count().max(1));
        let marks = "^".repeat(marked);
        let _ = writeln!(out, "{gutter} | {line}\n{} | {blank}{marks}", " ".repeat(gutter.len()));
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{} = help: {help}", " ".repeat(gutter.len()));
        }
        let mut file = self.span.file;
        while let Some(included) = sources.included_from(file) {
            let _ = writeln!(out, "{} included from {}", " ".repeat(gutter.len()), sources.position(included));
            file = included.file;
        }
        out
    }
}

/// The part of a long line that is shown, what stands below it before the marks, and how many marks: of a ruleset in one line nobody wants to see all.
fn visible_part(line: &str, blank: String, marked: usize) -> (String, String, usize) {
    let before = blank.chars().count();
    let length = line.chars().count();
    if length <= MAX_LINE {
        return (line.to_owned(), blank, marked);
    }
    let from = before.saturating_sub(MAX_LINE / 4);
    let shown: String = line.chars().skip(from).take(MAX_LINE).collect();
    let ends = (if from > 0 { "… " } else { "" }, if from + MAX_LINE < length { " …" } else { "" });
    let blank: String = " ".repeat(ends.0.chars().count()) + &blank.chars().skip(from).collect::<String>();
    (format!("{}{shown}{}", ends.0, ends.1), blank, marked.min(MAX_LINE - (before - from)))
}

/// Characters of a line that are shown.
const MAX_LINE: usize = 240;

/// All errors of a ruleset, with the texts they refer to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RulesetError {
    /// The errors, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts of the ruleset.
    pub sources: Sources,
}

impl std::fmt::Display for RulesetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.diagnostics.iter().try_for_each(|diagnostic| f.write_str(&diagnostic.render(&self.sources)))
    }
}

impl std::error::Error for RulesetError {}
