//! A ruleset in files: read with its includes and compiled, or refused with all its errors.
use super::control_protocol::IncludedText;
use super::sandbox;
use super::system_names;
use anyhow::{Context, Result, anyhow, bail};
use keepstate_rules::{
    Diagnostic, IncludeResolver, Program, RulesetError, Sources, ast, compile, find_includes, json_to_script,
    parse_skipping_unsupported, parse_with, refuse_masquerade, refuse_unassigned_sources,
};
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// How a ruleset is read.
#[derive(Clone, Debug, Default)]
pub struct RulesetOptions {
    /// Variables defined before the first line, as `define NAME = VALUE` does.
    pub definitions: Vec<(String, String)>,
    /// Directories that `include` searches, after that of the including file.
    pub include_dirs: Vec<PathBuf>,
    /// Leave out what is not supported, and say so, instead of refusing the ruleset.
    pub skip_unsupported: bool,
    /// It is that of a cluster: what takes an address of this machine alone is refused.
    pub is_clustered: bool,
    /// The addresses of a cluster's shards, if it has several: source NAT to others is refused.
    pub shard_addresses: Option<Vec<RangeInclusive<IpAddr>>>,
}

/// A ruleset that compiled.
pub struct LoadedRuleset {
    /// Its syntax tree.
    pub tree: ast::Ruleset,
    /// What was left out because it is not supported.
    pub left_out: Vec<Diagnostic>,
    /// Its texts.
    pub sources: Sources,
    /// The program that evaluates it.
    pub program: Program,
}

impl RulesetOptions {
    /// Reads `path` (`-` is standard input) and the files it includes, in nft's language or as JSON. The inner error is what is wrong with the ruleset.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self, path: &Path) -> Result<Result<LoadedRuleset, RulesetError>> {
        let mut text = String::new();
        if path == Path::new("-") {
            std::io::stdin().read_to_string(&mut text).context("standard input is not UTF-8 text")?;
        } else {
            text = fs::read_to_string(path).map_err(|error| {
                let hint = sandbox::denied_hint(&error);
                anyhow!("{} cannot be read: {error}{hint}", path.display())
            })?;
        }
        // What `nft -j list ruleset` has printed.
        if text.trim_start().starts_with('{') {
            text = json_to_script(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        }
        let includes = IncludePath(&self.include_dirs);
        let name = path.to_string_lossy();
        let parsed = if self.skip_unsupported {
            parse_skipping_unsupported(&name, &text, &includes, &self.definitions)
        } else {
            parse_with(&name, &text, &includes, &self.definitions).map(|(tree, sources)| (tree, sources, Vec::new()))
        };
        Ok(parsed.and_then(|(tree, sources, left_out)| {
            let sources = if self.is_clustered { refuse_masquerade(&tree, sources)? } else { sources };
            let sources = match &self.shard_addresses {
                Some(addresses) => refuse_unassigned_sources(&tree, sources, addresses)?,
                None => sources,
            };
            let program = compile(&tree, &sources)?;
            Ok(LoadedRuleset { tree, left_out, sources, program })
        }))
    }

    /// The texts that a script includes, and those that they include: read here, with the rights of who sends the script.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read_includes(&self, name: &str, text: &str) -> Result<Vec<IncludedText>> {
        let mut found: Vec<IncludedText> = Vec::new();
        let mut open = vec![(name.to_owned(), text.to_owned())];
        while let Some((from, text)) = open.pop() {
            for pattern in find_includes(&text) {
                if found.iter().any(|one| one.from == from && one.pattern == pattern) {
                    continue;
                }
                let resolved = IncludePath(&self.include_dirs).resolve(&pattern, &from);
                let files = resolved.map_err(|reason| anyhow!("{from}: cannot include {pattern}: {reason}"))?;
                open.extend(files.iter().cloned());
                found.push(IncludedText { from: from.clone(), pattern, files });
            }
        }
        Ok(found)
    }

    /// As [`RulesetOptions::load`], with what is wrong with the ruleset as an error.
    ///
    /// # Errors
    /// The file cannot be read, or the ruleset is refused.
    pub fn load_program(&self, path: &Path) -> Result<Program> {
        self.load_checked(path).map(|loaded| loaded.program)
    }

    /// As [`RulesetOptions::load_program`], with the tree.
    ///
    /// # Errors
    /// The file cannot be read, or the ruleset is refused.
    pub fn load_checked(&self, path: &Path) -> Result<LoadedRuleset> {
        match self.load(path)? {
            Ok(loaded) => {
                for diagnostic in &loaded.tree.notes {
                    tracing::warn!("{}", loaded.note(diagnostic));
                }
                for diagnostic in &loaded.left_out {
                    tracing::warn!("left out of the ruleset, not in force: {}", loaded.describe(diagnostic));
                }
                if !loaded.left_out.is_empty() {
                    tracing::warn!("{} parts of the ruleset are left out", loaded.left_out.len());
                }
                Ok(loaded)
            }
            Err(refused) => bail!("the ruleset has errors\n{refused}"),
        }
    }
}

impl LoadedRuleset {
    /// One line about a table that is the kernel's: place, and what that means.
    pub fn note(&self, diagnostic: &Diagnostic) -> String {
        let help = diagnostic.help.as_deref().unwrap_or_default();
        format!("{}: {}; {help}", self.sources.position(diagnostic.span), diagnostic.message)
    }

    /// A line for each part that was left out.
    pub fn describe_left_out(&self) -> Vec<String> {
        self.left_out.iter().map(|diagnostic| self.describe(diagnostic)).collect()
    }

    /// One line about what was left out: place, reason, and the line's text.
    pub fn describe(&self, diagnostic: &Diagnostic) -> String {
        let at = self.sources.position(diagnostic.span);
        let text = diagnostic.render(&self.sources);
        let line = text.lines().nth(1).and_then(|line| line.split_once('|')).map_or("", |(_, line)| line.trim());
        format!("{at}: {}: {line}", diagnostic.message)
    }
}

/// Where `include` looks: in the directory of the including file, then in the include directories, as nft does.
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
                    Err(error) => {
                        let hint = sandbox::denied_hint(&error);
                        return Err(format!("{} cannot be read: {error}{hint}", file.display()));
                    }
                }
            }
            if !texts.is_empty() {
                return Ok(texts);
            }
        }
        if wild { Ok(Vec::new()) } else { Err("no such file in the directory of this file or of -I".into()) }
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        system_names::user_id(name)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        system_names::group_id(name)
    }

    fn ct_label(&self, name: &str) -> Option<u32> {
        system_names::ct_label(name)
    }
}

/// The files of a directory whose names match a pattern, sorted by name.
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

/// `*` matches any characters, `?` matches one; a name that begins with a dot is skipped.
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
