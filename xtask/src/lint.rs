//! What the compiler does not check: the arrows between crates, the purity of wire and engine, and that no file names a machine.
//!
//! The life of a lint: read the workspace's metadata and the tracked files, hand each to the rules, print every offence with its
//! file and line. It must never change a file, and never pass because it found nothing to look at.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod text_rules;

/// Checks the arrows between crates, that wire and engine touch no clock, no randomness and no IO, and that no file names a machine.
#[derive(clap::Args)]
pub struct Lint {}

/// Which crates of the workspace a crate may depend on. A crate that is not here may not exist.
const ALLOWED_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("keepstate-wire", &[]),
    ("keepstate-engine", &["keepstate-wire"]),
    ("keepstate-rules", &["keepstate-wire", "keepstate-engine"]),
    ("keepstate-router", &["keepstate-wire", "keepstate-engine", "keepstate-rules"]),
    ("keepstate-hugealloc", &[]),
    ("keepstate-linux", &[]),
    ("keepstate-advisor", &["keepstate-wire", "keepstate-engine"]),
    (
        "keepstate",
        &[
            "keepstate-wire",
            "keepstate-engine",
            "keepstate-rules",
            "keepstate-router",
            "keepstate-hugealloc",
            "keepstate-linux",
            "keepstate-advisor",
        ],
    ),
    // What stands outside the house may look at all of it.
    ("keepstate-bench", TOOL_DEPENDENCIES),
    ("keepstate-fuzz-bodies", TOOL_DEPENDENCIES),
    ("xtask", TOOL_DEPENDENCIES),
];

const TOOL_DEPENDENCIES: &[&str] = &[
    "keepstate-wire",
    "keepstate-engine",
    "keepstate-rules",
    "keepstate-router",
    "keepstate-hugealloc",
    "keepstate-linux",
    "keepstate-advisor",
    "keepstate",
    "keepstate-bench",
    "keepstate-fuzz-bodies",
];

/// The crates that take bytes and `now` and give an outcome, and do nothing else.
const NO_STD_CRATES: &[&str] = &["crates/wire", "crates/engine"];

/// The crate that judges: it has std, and reads nothing by it.
const ADVISOR_SRC: &str = "crates/advisor/src";

/// A file longer than this wants to be two.
const LONG_FILE_LINES: usize = 500;

/// One broken rule.
pub struct LintError {
    /// The file, from the root of the repository.
    pub file: PathBuf,
    /// The line, from 1; 0 for the whole file.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for LintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.message),
        }
    }
}

impl Lint {
    /// Runs every rule; an error when any is broken.
    pub fn run(self) -> anyhow::Result<()> {
        let metadata = metadata()?;
        let root = PathBuf::from(metadata["workspace_root"].as_str().context("cargo names no workspace root")?);
        let mut offences = check_dependencies(&metadata, &root)?;
        let mut pure = 0;
        let files = tracked_files(&root)?;
        for file in &files {
            // What is not UTF-8 is a capture or a corpus, not a text.
            let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
            offences.extend(text_rules::local_paths(file, &text));
            if file.extension().is_some_and(|extension| extension == "rs") {
                if file.starts_with(ADVISOR_SRC) {
                    offences.extend(text_rules::forbidden_in_advisor(file, &text));
                }
                if is_no_std_source(file) {
                    pure += 1;
                    offences.extend(text_rules::forbidden_in_no_std(file, &text));
                }
                let lines = text.lines().count();
                if lines > LONG_FILE_LINES {
                    eprintln!(
                        "note: {}: {lines} lines; a file of more than {LONG_FILE_LINES} wants to be two",
                        file.display()
                    );
                }
            }
        }
        offences.extend(check_no_std(&root)?);
        ensure!(pure > 0, "no source of {NO_STD_CRATES:?} was found: run this inside the repository");
        for offence in &offences {
            eprintln!("error: {offence}");
        }
        if !offences.is_empty() {
            bail!("{} offences", offences.len());
        }
        println!(
            "lint: {} files, {pure} of them pure: the arrows point one way and nothing is out of place",
            files.len()
        );
        Ok(())
    }
}

/// Sources whose words are judged: not tests, which may read files and print.
fn is_no_std_source(file: &Path) -> bool {
    let within = NO_STD_CRATES.iter().any(|root| file.starts_with(Path::new(root).join("src")));
    let of_tests = file.file_stem().is_some_and(|stem| stem == "tests")
        || file.parent().is_some_and(|parent| parent.iter().any(|part| part == "tests"));
    within && !of_tests
}

/// The arrows of [`ARROWS`] against what the manifests say, development dependencies included: a test may not turn one round either.
fn check_dependencies(metadata: &Value, root: &Path) -> anyhow::Result<Vec<LintError>> {
    let packages = metadata["packages"].as_array().context("cargo lists no packages")?;
    let mut offences = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let manifest = manifest.strip_prefix(root).unwrap_or(manifest).to_path_buf();
        let mut offend = |what: String| offences.push(LintError { file: manifest.clone(), line: 0, message: what });
        let Some((_, allowed)) = ALLOWED_DEPENDENCIES.iter().find(|(known, _)| *known == name) else {
            offend(format!(
                "crate {name} has no place among the arrows; give it one in xtask/src/lint.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let own = ALLOWED_DEPENDENCIES.iter().any(|(known, _)| *known == target);
            if own && !allowed.contains(&target) {
                offend(format!("{name} may not depend on {target}: arrows point one way"));
            }
        }
    }
    Ok(offences)
}

/// wire and engine say `no_std` themselves, so that no feature can bring it back.
fn check_no_std(root: &Path) -> anyhow::Result<Vec<LintError>> {
    let mut offences = Vec::new();
    for krate in NO_STD_CRATES {
        let file = Path::new(krate).join("src/lib.rs");
        let text = fs::read_to_string(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        if !text.lines().any(|line| line.trim() == "#![no_std]") {
            offences.push(LintError { file, line: 0, message: "must say #![no_std], without a condition".into() });
        }
    }
    Ok(offences)
}

/// What cargo knows of the workspace's own crates.
fn metadata() -> anyhow::Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .output()
        .context("running cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("reading what cargo metadata says")
}

/// Every file git tracks or would track, from the root.
fn tracked_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("running git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let names = String::from_utf8(output.stdout).context("a file name that is not UTF-8")?;
    Ok(names.split_terminator('\0').map(PathBuf::from).collect())
}
