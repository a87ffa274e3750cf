//! A file in TOML, read whole and checked: a value, or all its faults, each with line and column, the text underlined, and what to write instead.
//!
//! Serde stops at the first fault. So what is faulty is taken out of the tree, and the rest is read again, until nothing is left to complain of.
use crate::nearest_name::nearest_name;
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// The faults of a TOML file.
#[derive(Clone, Debug)]
pub struct TomlFileError {
    name: String,
    text: String,
    /// All of them, in the order of the text.
    pub diagnostics: Vec<TomlDiagnostic>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TomlDiagnostic {
    /// The byte range of the text that it is about.
    pub span: Range<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Reads a text: the value, or all its faults.
///
/// # Errors
/// The faults, with the file's `name`.
pub fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, TomlFileError> {
    match parse_all(text) {
        (Some(value), faults) if faults.is_empty() => Ok(value),
        (_, faults) => Err(TomlFileError::new(name, text, faults)),
    }
}

/// Reads what it can of a text: the value without its faulty parts, and the faults. Without a value the text is not TOML, or a part that must be there is missing.
pub(crate) fn parse_all<T: DeserializeOwned>(text: &str) -> (Option<T>, Vec<TomlDiagnostic>) {
    let mut table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let diagnostic = TomlDiagnostic { span: error.span().unwrap_or(0..0), message: one_line(error.message()) };
            return (None, vec![diagnostic]);
        }
    };
    let mut faults = Vec::new();
    // Keys that were taken out: to say that they are missing would be noise.
    let mut removed: Vec<String> = Vec::new();
    for _ in 0..MAX_TURNS {
        let error = match T::deserialize(Deserializer::from(table.clone())) {
            Ok(value) => return (Some(value), faults),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        if !missing.is_some_and(|name| removed.iter().any(|gone| nearest_name(gone, [name]).is_some())) {
            faults.push(TomlDiagnostic { span: span.clone(), message: plain_message(error.message()) });
        }
        // Each turn makes the tree smaller.
        if !remove_from_table(table.get_mut(), &span, &mut removed) {
            break;
        }
    }
    (None, faults)
}

/// Nobody mends more at once.
const MAX_TURNS: usize = 100;

/// Takes the smallest part out that has the fault in it. False: there is none.
fn remove_from_table(table: &mut DeTable<'_>, span: &Range<usize>, removed: &mut Vec<String>) -> bool {
    let holds = |whole: Range<usize>| whole.start <= span.start && span.end <= whole.end && whole != (0..0);
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if holds(key.span()) {
            found = Some(key.clone());
            break;
        }
        // The parts of an implicit table ([a.b]) may stand outside its span.
        if remove_from_value(value, span, removed) {
            return true;
        }
        if holds(value.span()) {
            found = Some(key.clone());
            break;
        }
    }
    let Some(key) = found else { return false };
    removed.push(key.get_ref().to_string());
    table.remove(&key).is_some()
}

fn remove_from_value(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>, removed: &mut Vec<String>) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => remove_from_table(table, span, removed),
        DeValue::Array(array) => {
            let at = array.iter_mut().position(|entry| {
                let is_inside = remove_from_value(entry, span, removed);
                is_inside || (entry.span().start <= span.start && span.end <= entry.span().end)
            });
            let Some(at) = at else { return false };
            // Of a table only the faulty key is gone by now, if it has one.
            let is_whole = array.get(at).is_some_and(|entry| entry.span() == *span);
            if is_whole || !matches!(array.get(at).map(Spanned::get_ref), Some(DeValue::Table(_))) {
                let others = std::mem::replace(array, std::iter::empty().collect())
                    .into_iter()
                    .enumerate()
                    .filter(|(index, _)| *index != at);
                *array = others.map(|(_, entry)| entry).collect();
            }
            true
        }
        _ => false,
    }
}

/// Serde's message in our words, with the name that was probably meant.
fn plain_message(message: &str) -> String {
    let message = one_line(message);
    if let Some(rest) = message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant ")) {
        let kind = if message.starts_with("unknown field") { "key" } else { "value" };
        // Names stand in backquotes: the unknown one, then those that are known.
        let names: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        if let Some((wrong, known)) = names.split_first() {
            let meant = nearest_name(wrong, known.iter().copied()).map(|name| format!("; did you mean `{name}`?"));
            // One spelling of each: `on-exit` may be written `on_exit`, and one list as `interfaces`.
            let is_second = |name: &str| name.contains('_') && known.contains(&name.replace('_', "-").as_str());
            let shown: Vec<&str> = known.iter().copied().filter(|name| !is_second(name)).collect();
            return format!(
                "unknown {kind} `{wrong}`{} Known: {}",
                meant.unwrap_or_else(|| ".".into()),
                shown.join(", ")
            );
        }
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("the key {name} is missing");
    }
    for (prefix, kind) in [("invalid type: ", ""), ("invalid value: ", ""), ("invalid length ", "length ")] {
        if let Some((found, wanted)) = message.strip_prefix(prefix).and_then(|rest| rest.split_once(", expected ")) {
            return format!("{kind}{found} is not possible here; write {}", plain_type(wanted));
        }
    }
    message
}

/// What serde calls a type, as a person says it.
fn plain_type(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => match wanted {
            "u8" => "a whole number from 0 to 255",
            "u16" => "a whole number from 0 to 65535",
            _ => "a whole number from 0 on",
        },
        "a boolean" => "true or false",
        "path string" => "a path in quotes",
        "a string" | "string or table" => "a text in quotes",
        "a sequence" => "a list in brackets",
        "a map" => "a table",
        other => other.strip_prefix("struct ").map_or(other, |_| "a table"),
    }
}

/// A message of several lines as one.
fn one_line(message: &str) -> String {
    message.trim().replace('\n', ", ")
}

impl TomlFileError {
    /// The faults of the file `name`, whose content is `text`.
    pub fn new(name: &str, text: &str, mut diagnostics: Vec<TomlDiagnostic>) -> TomlFileError {
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        TomlFileError { name: name.to_owned(), text: text.to_owned(), diagnostics }
    }

    /// Line and column, from 1, of a fault.
    pub fn position(&self, diagnostic: &TomlDiagnostic) -> (usize, usize) {
        position(&self.text, diagnostic.span.start)
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Position and message, then the line with the text underlined.
    fn render(&self, diagnostic: &TomlDiagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position(diagnostic);
        writeln!(f, "{}:{line}:{column}: {}", self.name, diagnostic.message)?;
        let source_line = self.text.lines().nth(line - 1).unwrap_or_default();
        let gutter = line.to_string();
        // Tabs before the text are kept, so that the marks are below it.
        let blank = |letter: char| if letter == '\t' { '\t' } else { ' ' };
        let before: String = source_line.chars().take(column - 1).map(blank).collect();
        let marked = self.text.get(diagnostic.span.clone()).and_then(|text| text.lines().next()).unwrap_or_default();
        let marks = "^".repeat(marked.chars().count().max(1));
        writeln!(f, "{gutter} | {source_line}\n{} | {before}{marks}", " ".repeat(gutter.len()))
    }
}

/// Line and column, from 1, of a byte of a text.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

impl fmt::Display for TomlFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostics.iter().try_for_each(|diagnostic| self.render(diagnostic, f))
    }
}

impl std::error::Error for TomlFileError {}
