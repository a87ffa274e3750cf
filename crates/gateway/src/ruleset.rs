//! A ruleset in files: read with what it includes, and made ready, or refused with everything that is wrong with it.
use anyhow::{Context, Result, bail};
use keepstate_rules::{IncludeResolver, Program, RulesetError, ast, compile, parse_with};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How a ruleset is read.
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "clap", command(next_help_heading = "Ruleset"))]
pub struct RulesetArgs {
    /// Define a variable before the first line, as `define NAME = VALUE` would
    #[cfg_attr(feature = "clap", arg(short = 'D', long = "define", value_name = "NAME=VALUE", value_parser = parse_definition))]
    pub definitions: Vec<(String, String)>,
    /// Also look here for what is included
    #[cfg_attr(feature = "clap", arg(short = 'I', long = "includepath", value_name = "DIR"))]
    pub include_dirs: Vec<PathBuf>,
}

/// A ruleset that may be put to work.
pub struct LoadedRuleset {
    /// As it was read.
    pub tree: ast::Ruleset,
    /// Ready.
    pub program: Program,
}

#[cfg(feature = "clap")]
fn parse_definition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

impl RulesetArgs {
    /// Reads `path` (`-` is standard input) and what it includes. The inner result is what is wrong with the ruleset.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self, path: &Path) -> Result<Result<LoadedRuleset, RulesetError>> {
        let mut text = String::new();
        if path == Path::new("-") {
            std::io::stdin().read_to_string(&mut text).context("standard input cannot be read as text")?;
        } else {
            text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        }
        let library = IncludePath(&self.include_dirs);
        let read = parse_with(&path.to_string_lossy(), &text, &library, &self.definitions);
        Ok(read.and_then(|(tree, sources)| compile(&tree, &sources).map(|program| LoadedRuleset { tree, program })))
    }

    /// As [`Reading::load`], for who can do nothing without it.
    ///
    /// # Errors
    /// The file cannot be read, or the ruleset is refused.
    pub fn load_program(&self, path: &Path) -> Result<Program> {
        match self.load(path)? {
            Ok(loaded) => Ok(loaded.program),
            Err(refused) => bail!("the ruleset is refused\n{refused}"),
        }
    }
}

/// Where `include` looks: beside the including file, then in the folders asked for, as nft does.
struct IncludePath<'a>(&'a [PathBuf]);

impl IncludeResolver for IncludePath<'_> {
    fn resolve(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
        let beside = Path::new(from).parent().map(Path::to_path_buf).unwrap_or_default();
        let folders = std::iter::once(beside).chain(self.0.iter().cloned());
        let wild = pattern.contains(['*', '?']);
        for folder in folders {
            let path = folder.join(pattern);
            let files = if wild { glob_files(&path) } else { vec![path] };
            let mut texts = Vec::new();
            for file in files {
                match fs::read_to_string(&file) {
                    Ok(text) => texts.push((file.to_string_lossy().into_owned(), text)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound && !wild => break,
                    Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
                }
            }
            if !texts.is_empty() {
                return Ok(texts);
            }
        }
        if wild { Ok(Vec::new()) } else { Err("there is no such file beside this one, nor where -I points".into()) }
    }
}

/// The files of a folder whose names fit a pattern, by name.
fn glob_files(pattern: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else { return Vec::new() };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let name = name.to_string_lossy();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| glob_matches(&name, &entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// `*` is any letters, `?` is one; a name that begins with a dot is passed over.
fn glob_matches(pattern: &str, name: &str) -> bool {
    fn rest(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', more @ ..], _) => (0..=name.len()).any(|at| rest(more, &name[at..])),
            ([b'?', more @ ..], [_, others @ ..]) => rest(more, others),
            ([one, more @ ..], [other, others @ ..]) => one == other && rest(more, others),
            _ => false,
        }
    }
    !name.starts_with('.') && rest(pattern.as_bytes(), name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_patterns_match() {
        assert!(glob_matches("*.nft", "a.nft") && glob_matches("a?.nft", "ab.nft") && glob_matches("*", "x"));
        assert!(!glob_matches("*.nft", "a.conf") && !glob_matches("*", ".hidden") && !glob_matches("a?", "a"));
    }
}
