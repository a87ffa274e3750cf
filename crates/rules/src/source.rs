//! Texts and places in them.
use std::fmt;

/// A piece of a text: which one, and from which octet to which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub(crate) file: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// From the beginning of this one to the end of another of the same text.
    pub fn to(self, last: Span) -> Span {
        if self.file == last.file && last.end >= self.start { Span { end: last.end, ..self } } else { self }
    }
}

/// Where `include` finds texts. The parser does no IO: who has files implements this.
pub trait IncludeResolver {
    /// The texts that `pattern` names, in the order of their names, when it stands in the text called `from`. A pattern with `*`, `?` or `[`
    /// may name none; any other must name one.
    ///
    /// # Errors
    /// Why there is none, in words for a person.
    fn resolve(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String>;
}

/// No text can be included.
pub struct NoIncludes;

impl IncludeResolver for NoIncludes {
    fn resolve(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("nothing can be included here".to_owned())
    }
}

/// Every text of a ruleset, the first one first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    texts: Vec<Source>,
}

#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    included_from: Option<Span>,
    /// Where each line begins.
    line_starts: Vec<usize>,
}

/// A text's name, and line and column in it, from 1 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The text's name.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column, in characters.
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
        self.texts.push(Source { name: name.to_owned(), text, included_from: included, line_starts: lines });
        // A ruleset of four thousand million files does not fit any memory.
        u32::try_from(self.texts.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn name(&self, file: u32) -> &str {
        self.texts.get(file as usize).map_or("", |source| &source.name)
    }

    pub(crate) fn text(&self, file: u32) -> &str {
        self.texts.get(file as usize).map_or("", |source| &source.text)
    }

    pub(crate) fn included_from(&self, file: u32) -> Option<Span> {
        self.texts.get(file as usize)?.included_from
    }

    /// Where a piece begins.
    pub fn position(&self, span: Span) -> Position {
        let text = self.text(span.file);
        let lines = self.texts.get(span.file as usize).map(|source| source.line_starts.as_slice()).unwrap_or_default();
        let start = span.start as usize;
        let line = lines.partition_point(|begins| *begins <= start);
        let begins = line.checked_sub(1).and_then(|line| lines.get(line)).copied().unwrap_or(0);
        let column = text.get(begins..start).map_or(0, |before| before.chars().count()) + 1;
        Position { file: self.name(span.file).to_owned(), line, column }
    }
}
