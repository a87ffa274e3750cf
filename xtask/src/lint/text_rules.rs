//! The rules that read text: words that may not stand in a file.
//!
//! They read lines, not syntax: a word in a comment or behind `#[cfg(test)]` is let be, anything else counts.

use super::error::LintError;
use std::path::Path;

/// What may not be written in wire and engine, and why.
const FORBIDDEN_IN_NO_STD: &[(&str, &str)] = &[
    ("std::", "wire and engine have no std: use core or alloc"),
    ("extern crate std", "wire and engine have no std: use core or alloc"),
    ("Instant::now", "no clock here: `now` is an argument"),
    ("SystemTime", "no clock here: `now` is an argument"),
    ("getrandom", "no randomness here: secrets are arguments"),
    ("rand::", "no randomness here: secrets are arguments"),
    ("RandomState", "no randomness here: secrets are arguments"),
    ("println!", "no printing here: report it in the outcome, an event or a log line"),
    ("print!", "no printing here: report it in the outcome, an event or a log line"),
    ("eprintln!", "no printing here: report it in the outcome, an event or a log line"),
    ("eprint!", "no printing here: report it in the outcome, an event or a log line"),
    ("dbg!", "no printing here: report it in the outcome, an event or a log line"),
];

/// What may not be written in advisor, and why.
const FORBIDDEN_IN_ADVISOR: &[(&str, &str)] = &[
    ("std::fs", "advisor reads no files: observations are arguments"),
    ("std::io", "advisor reads and writes nothing: observations are arguments"),
    ("std::env", "advisor asks no environment: observations are arguments"),
    ("std::net::Tcp", "advisor has no sockets: observations are arguments"),
    ("std::net::Udp", "advisor has no sockets: observations are arguments"),
    ("std::process", "advisor runs no programs: observations are arguments"),
    ("std::time", "no clock here: `now` is an argument"),
];

/// Directories directly under the root of a file system that belong to one machine or one person.
const LOCAL_DIRECTORIES: &[&str] = &["home", "root", "Users", "work", "mnt"];

/// Words in `text` that a pure crate may not use.
pub fn forbidden_in_no_std(file: &Path, text: &str) -> Vec<LintError> {
    forbidden(FORBIDDEN_IN_NO_STD.iter(), file, text)
}

/// Words in `text` that a crate may not use which judges what others have read.
pub fn forbidden_in_advisor(file: &Path, text: &str) -> Vec<LintError> {
    let without_std = FORBIDDEN_IN_NO_STD.iter().filter(|(word, _)| !word.contains("std"));
    forbidden(FORBIDDEN_IN_ADVISOR.iter().chain(without_std), file, text)
}

fn forbidden<'a>(
    words: impl Iterator<Item = &'a (&'a str, &'a str)> + Clone,
    file: &Path,
    text: &str,
) -> Vec<LintError> {
    let mut offences = Vec::new();
    for (at, line) in code_lines(text) {
        for (word, what) in words.clone() {
            if contains_word(line, word) {
                offences.push(LintError { file: file.into(), line: at, message: format!("`{word}`: {what}") });
            }
        }
    }
    offences
}

/// Absolute paths in `text` that exist on one machine only.
pub fn local_paths(file: &Path, text: &str) -> Vec<LintError> {
    let mut offences = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for directory in LOCAL_DIRECTORIES {
            if contains_path_under(line, directory) {
                let what = format!("names a directory under /{directory}: such a path exists on one machine only");
                offences.push(LintError { file: file.into(), line: at + 1, message: what });
            }
        }
    }
    offences
}

/// The lines of code before the module of tests, each with its number and without its comment.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut after_cfg_test = false;
    text.lines()
        .enumerate()
        .take_while(move |(_, line)| {
            let line = line.trim_start();
            // A module of tests in this file ends it; `mod tests;` and single test-only items do not.
            let opens_tests = after_cfg_test && line.starts_with("mod ") && line.ends_with('{');
            after_cfg_test = line.starts_with("#[cfg(test)]");
            !opens_tests
        })
        .map(|(at, line)| (at + 1, line.split_once("//").map_or(line, |(code, _)| code)))
}

/// Whether `word` stands in `line` and is not the end of a longer word.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Whether `line` holds an absolute path that begins with `directory` and goes on below it.
fn contains_path_under(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(at, _)| {
        let (before, from) = line.split_at(at);
        let below = from.get(directory.len()..).unwrap_or_default();
        let mut before = before.chars().rev();
        before.next() == Some('/')
            && !before.next().is_some_and(|c| c.is_alphanumeric() || "._-~/})".contains(c))
            && below.strip_prefix('/').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_lines(text: &str) -> Vec<usize> {
        forbidden_in_no_std(Path::new("x.rs"), text).iter().map(|offence| offence.line).collect()
    }

    #[test]
    fn finds_clocks_randomness_and_printing() {
        assert_eq!(error_lines("use std::time::Duration;\n"), [1]);
        assert_eq!(error_lines("fn f() {\n    let t = Instant::now();\n}\n"), [2]);
        assert_eq!(error_lines("    println!(\"{x}\");\n    rand::random()\n"), [1, 2]);
    }

    #[test]
    fn ignores_comments_tests_and_longer_words() {
        assert_eq!(error_lines("/// As `std::vec::Vec`.\nuse core::fmt; // not std::fmt\n"), [0; 0]);
        assert_eq!(error_lines("fn strand::x\nmy_dbg!()\n"), [0; 0]);
        assert_eq!(error_lines("#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"), [0; 0]);
        assert_eq!(error_lines("#[cfg(test)]\nmod tests;\nuse std::fs;\n"), [3]);
    }

    #[test]
    fn finds_local_paths() {
        let slash = '/';
        let found = |text: &str| local_paths(Path::new("x"), &text.replace('|', &slash.to_string())).len();
        assert_eq!(found("see |home|anna|notes"), 1);
        assert_eq!(found("cd \"|work|main\""), 1);
        assert_eq!(found("the |root of all"), 0);
        assert_eq!(found("docs|work|plan.md and https:||example.org|home|page"), 0);
        assert_eq!(found("$HOME|.cargo and |proc|sys|net"), 0);
    }
}
