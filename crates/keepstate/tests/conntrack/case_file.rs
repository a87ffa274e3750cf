//! A story: a text file of cases that belong together.
//!
//! ```text
//! # A comment.
//! set-up two udp entries:
//!     conntrack -I -p udp …
//! stir:
//!     conntrack -D -p udp
//! run:
//!     conntrack -E -e DESTROY
//! ```
//! The lines of a set-up are commands of the shell, run by Debian's tool wherever they say `conntrack`; each must succeed. Each line below `run` is a case of its own, on a
//! table that was emptied and set up for it. Where there is a `stir`, the case's command goes on while those lines are run, and is then ended by a signal: TERM, or
//! the one that the line names (`ended by INT: conntrack -E`). A set-up applies until the next. A backslash at a line's end takes the next line to it.
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// One command line under test and what goes before it.
#[derive(Clone, Debug)]
pub struct Case {
    pub story: String,
    pub title: String,
    pub set_up: Vec<String>,
    pub stir: Option<Vec<String>>,
    pub line: String,
    /// The signal that ends the command of a case with a `stir`.
    pub signal: String,
}

impl Case {
    /// What tells it from all others: `story/set-up: command`.
    pub fn name(&self) -> String {
        let ended = if self.signal == TERM { String::new() } else { format!("ended by {}: ", self.signal) };
        format!("{}/{}: {ended}{}", self.story, self.title, self.line)
    }
}

/// The signal that ends a command that listens.
pub const TERM: &str = "TERM";

/// The cases of every story of a folder, in the order of their names.
pub fn read_all(folder: &Path) -> Result<Vec<Case>, String> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cases"));
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let story = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        cases.extend(parse_cases(story, &text).map_err(|why| format!("{}: {why}", path.display()))?);
    }
    let mut names = HashSet::new();
    match cases.iter().find(|case| !names.insert(case.name())) {
        Some(twice) => Err(format!("{} is there twice", twice.name())),
        None => Ok(cases),
    }
}

enum Section {
    SetUp,
    Stir,
    Run,
}

fn parse_cases(story: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    let (mut title, mut set_up, mut stir, mut section) = ("nothing".to_owned(), Vec::new(), None, None);
    for line in text.replace("\\\n", "").lines() {
        let command = line.trim();
        if command.is_empty() || command.starts_with('#') {
            continue;
        }
        if !line.starts_with(' ') {
            section = match command.strip_suffix(':') {
                Some("run") => Some(Section::Run),
                Some("stir") => {
                    stir = Some(Vec::new());
                    Some(Section::Stir)
                }
                Some(head) if head.starts_with("set-up ") => {
                    (title, set_up, stir) = (head.trim_start_matches("set-up ").to_owned(), Vec::new(), None);
                    Some(Section::SetUp)
                }
                _ => return Err(format!("{command:?} is no section")),
            };
            continue;
        }
        match (&section, &mut stir) {
            (Some(Section::SetUp), _) => set_up.push(command.to_owned()),
            (Some(Section::Stir), Some(stir)) => stir.push(command.to_owned()),
            (Some(Section::Run), _) => {
                let ended = command.strip_prefix("ended by ").and_then(|rest| rest.split_once(": "));
                let (signal, line) = ended.unwrap_or((TERM, command));
                cases.push(Case {
                    story: story.to_owned(),
                    title: title.clone(),
                    set_up: set_up.clone(),
                    stir: stir.clone(),
                    line: line.to_owned(),
                    signal: signal.to_owned(),
                });
            }
            _ => return Err(format!("{command:?} is in no section")),
        }
    }
    Ok(cases)
}
