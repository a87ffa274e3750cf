//! The texts of a ruleset (the file and what it includes), and places in them.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A range of bytes in one of the texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Span {
    pub(crate) file: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// From the start of this span to the end of another one in the same text.
    pub fn to(self, last: Span) -> Span {
        if self.file == last.file && last.end >= self.start { Span { end: last.end, ..self } } else { self }
    }

    /// Do they have text in common?
    pub(crate) fn overlaps(self, other: Span) -> bool {
        self.file == other.file && self.start < other.end && other.start < self.end
    }
}

/// Finds the texts that `include` names. The parser does no IO; a program that has files implements this.
pub trait IncludeResolver {
    /// Names and contents of the texts that `pattern` matches, sorted by name; `from` is the name of the including text. A pattern with `*`, `?` or `[`
    /// may match none; any other must match one.
    ///
    /// # Errors
    /// Why the text cannot be read, for the error message.
    fn resolve(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String>;

    /// Number of the user of that name, for `meta skuid`.
    fn user_id(&self, _name: &str) -> Option<u32> {
        None
    }

    /// Bit of the connection label of that name, for `ct label`.
    fn ct_label(&self, _name: &str) -> Option<u32> {
        None
    }

    /// Number of the group of that name, for `meta skgid`.
    fn group_id(&self, _name: &str) -> Option<u32> {
        None
    }
}

/// Refuses every `include`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIncludes;

impl IncludeResolver for NoIncludes {
    fn resolve(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("include is not available here".to_owned())
    }
}

/// All texts of a ruleset, in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    texts: BTreeMap<u32, Arc<Source>>,
    /// Number of the next text; numbers are not used again.
    next: u32,
}

#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    included_from: Option<Span>,
    /// Offset of the start of each line.
    line_starts: Vec<usize>,
}

/// Name of a text, line and column; both count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Position {
    /// Name of the text.
    pub file: String,
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Sources {
    pub(crate) fn add(&mut self, name: &str, text: String, included: Option<Span>) -> u32 {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let number = self.next;
        let source = Source { name: name.to_owned(), text, included_from: included, line_starts: lines };
        self.texts.insert(number, Arc::new(source));
        self.next = self.next.saturating_add(1);
        number
    }

    /// Forgets the texts that were added after `before` was taken: those of a script that has done its work.
    pub(crate) fn forget_since(&mut self, before: &Sources) {
        self.texts.split_off(&before.next);
    }

    /// Was this text added after `before` was taken?
    pub(crate) fn is_newer(before: &Sources, span: Span) -> bool {
        span.file >= before.next
    }

    /// Name of a text; `(script)` if it is not kept.
    pub fn name(&self, file: u32) -> &str {
        self.texts.get(&file).map_or("(script)", |source| &source.name)
    }

    /// Contents of a text; empty if there is no such text.
    pub fn text(&self, file: u32) -> &str {
        self.texts.get(&file).map_or("", |source| &source.text)
    }

    /// Names and contents of all texts.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.values().map(|source| (source.name.as_str(), source.text.as_str()))
    }

    pub(crate) fn included_from(&self, file: u32) -> Option<Span> {
        self.texts.get(&file)?.included_from
    }

    /// Start of a span as name, line and column.
    pub fn position(&self, span: Span) -> Position {
        let text = self.text(span.file);
        let lines = self.texts.get(&span.file).map(|source| source.line_starts.as_slice()).unwrap_or_default();
        let start = span.start as usize;
        let line = lines.partition_point(|begins| *begins <= start);
        let begins = line.checked_sub(1).and_then(|line| lines.get(line)).copied().unwrap_or(0);
        let column = text.get(begins..start).map_or(0, |before| before.chars().count()) + 1;
        Position { file: self.name(span.file).to_owned(), line, column }
    }
}
