//! What the compiler does not check: the arrows between crates, import cycles between modules, the uniqueness of public type names, the purity of
//! wire and engine, and that no file names a machine.
//!
//! The life of a lint: read the workspace's metadata and the tracked files, hand each to the rules, print every offence with its
//! file and line. It must never change a file, and never pass because it found nothing to look at.

use anyhow::{Context, bail, ensure};
use error::LintError;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use type_names::TypeNames;

mod doc_paths;
mod error;
mod module_cycles;
mod text_rules;
mod type_names;

/// Checks the arrows between crates and modules, the uniqueness of public type names, that wire and engine touch no clock, no randomness and no IO,
/// and that no file names a machine.
#[derive(clap::Args)]
pub struct Lint {}

/// Which crates of the workspace a crate may depend on. A crate that is not here may not exist.
const ALLOWED_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("keepstate-types", &[]),
    ("keepstate-wire", &["keepstate-types"]),
    ("keepstate-engine", &["keepstate-types", "keepstate-wire"]),
    ("keepstate-rules", &["keepstate-types", "keepstate-wire", "keepstate-engine"]),
    ("keepstate-router", &["keepstate-types", "keepstate-wire", "keepstate-engine", "keepstate-rules"]),
    ("keepstate-hugealloc", &[]),
    ("keepstate-cluster", &[]),
    ("keepstate-nats", &["keepstate-cluster"]),
    (TEST_SUPPORT, &[]),
    ("keepstate-linux", &["keepstate-types"]),
    ("keepstate-advisor", &["keepstate-types", "keepstate-wire", "keepstate-engine"]),
    ("keepstate-bundle", &["keepstate-linux", "keepstate-advisor"]),
    ("keepstate-tune", &["keepstate-linux", "keepstate-advisor"]),
    ("keepstate-capture", &["keepstate-types", "keepstate-wire", "keepstate-engine"]),
    ("keepstate-flowlog", &[]),
    ("keepstate-parquet", &["keepstate-flowlog"]),
    ("keepstate-conntrack", &["keepstate-types", "keepstate-wire", "keepstate-engine", "keepstate-linux"]),
    (
        "keepstate-gateway",
        &[
            "keepstate-types",
            "keepstate-wire",
            "keepstate-engine",
            "keepstate-rules",
            "keepstate-router",
            "keepstate-cluster",
            "keepstate-linux",
            "keepstate-conntrack",
            "keepstate-flowlog",
        ],
    ),
    ("keepstate-sync", &["keepstate-linux", "keepstate-conntrack", "keepstate-cluster"]),
    ("keepstate-live", &["keepstate-types", "keepstate-linux", "keepstate-conntrack"]),
    ("keepstate-serve", &["keepstate-linux", "keepstate-conntrack", "keepstate-live"]),
    ("keepstate-top", &["keepstate-linux", "keepstate-conntrack", "keepstate-live"]),
    ("keepstate-lab", &["keepstate-linux", "keepstate-advisor", "keepstate-gateway"]),
    ("keepstate", HOUSE),
    // What stands outside the house may look at all of it.
    ("keepstate-bench", OUTSIDE),
    ("keepstate-fuzz-bodies", OUTSIDE),
    ("xtask", OUTSIDE),
];

/// What tests share; every crate may have it as a development dependency, and measures may start servers with it.
const TEST_SUPPORT: &str = "keepstate-test-support";

/// Every crate that ships.
const HOUSE: &[&str] = &[
    "keepstate-types",
    "keepstate-wire",
    "keepstate-engine",
    "keepstate-rules",
    "keepstate-router",
    "keepstate-hugealloc",
    "keepstate-linux",
    "keepstate-advisor",
    "keepstate-bundle",
    "keepstate-tune",
    "keepstate-capture",
    "keepstate-conntrack",
    "keepstate-cluster",
    "keepstate-flowlog",
    "keepstate-gateway",
    "keepstate-live",
    "keepstate-serve",
    "keepstate-sync",
    "keepstate-top",
    "keepstate-lab",
    "keepstate-nats",
    "keepstate-parquet",
];

const OUTSIDE: &[&str] = &[
    "keepstate-types",
    "keepstate-wire",
    "keepstate-engine",
    "keepstate-rules",
    "keepstate-router",
    "keepstate-hugealloc",
    "keepstate-linux",
    "keepstate-advisor",
    "keepstate-bundle",
    "keepstate-tune",
    "keepstate-capture",
    "keepstate-conntrack",
    "keepstate-cluster",
    "keepstate-flowlog",
    "keepstate-gateway",
    "keepstate-live",
    "keepstate-serve",
    "keepstate-sync",
    "keepstate-top",
    "keepstate-lab",
    "keepstate-nats",
    "keepstate-parquet",
    "keepstate",
    "keepstate-bench",
    "keepstate-fuzz-bodies",
    TEST_SUPPORT,
];

/// The crates that take bytes and `now` and give an outcome, and do nothing else.
const NO_STD_CRATES: &[&str] = &["crates/types", "crates/wire", "crates/engine"];

/// The crate that judges: it has std, and reads nothing by it.
const ADVISOR_SRC: &str = "crates/advisor/src";

/// A file longer than this wants to be two.
const LONG_FILE_LINES: usize = 500;

impl Lint {
    /// Runs every rule; an error when any is broken.
    pub fn run(self) -> anyhow::Result<()> {
        let metadata = metadata()?;
        let root = PathBuf::from(metadata["workspace_root"].as_str().context("cargo names no workspace root")?);
        let mut errors = check_dependencies(&metadata, &root)?;
        let crates = crate_roots(&metadata, &root);
        for library in &crates {
            errors.extend(module_cycles::find_cycles(&root, library)?);
        }
        let mut pure = 0;
        let mut type_names = TypeNames::default();
        let files = tracked_files(&root)?;
        for file in &files {
            // What is not UTF-8 is a capture or a corpus, not a text.
            let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
            errors.extend(text_rules::local_paths(file, &text));
            if file == Path::new(doc_paths::DOCUMENT) {
                errors.extend(doc_paths::missing_files(&root, &text));
            }
            if file.extension().is_some_and(|extension| extension == "rs") {
                if has_public_types(file) {
                    type_names.add(file, &text).with_context(|| format!("parsing {}", file.display()))?;
                }
                if file.starts_with(ADVISOR_SRC) {
                    errors.extend(text_rules::forbidden_in_advisor(file, &text));
                }
                if is_no_std_source(file) {
                    pure += 1;
                    errors.extend(text_rules::forbidden_in_no_std(file, &text));
                }
                let lines = text.lines().count();
                if lines > LONG_FILE_LINES {
                    eprintln!("note: {}: {lines} lines; split files of more than {LONG_FILE_LINES}", file.display());
                }
            }
        }
        errors.extend(type_names.errors());
        errors.extend(check_no_std(&root)?);
        ensure!(pure > 0, "no source of {NO_STD_CRATES:?} was found: run this inside the repository");
        for error in &errors {
            eprintln!("error: {error}");
        }
        if !errors.is_empty() {
            bail!("{} errors", errors.len());
        }
        println!(
            "lint: {} files ({pure} pure), {} crates without cycles, {} public type names: no errors",
            files.len(),
            crates.len(),
            type_names.len()
        );
        Ok(())
    }
}

/// The root file of each crate of the workspace, outside `fuzz/fuzz_targets`.
fn crate_roots(metadata: &Value, root: &Path) -> Vec<PathBuf> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut roots: Vec<PathBuf> = packages
        .filter_map(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .filter_map(|folder| {
            ["src/lib.rs", "src/main.rs"].map(|file| folder.join(file)).into_iter().find(|file| file.exists())
        })
        .filter(|file| file.starts_with(root))
        .collect();
    roots.sort();
    roots
}

/// Sources whose public types are part of the vocabulary: not tests and not examples.
fn has_public_types(file: &Path) -> bool {
    file.iter().any(|part| part == "src") && !file.iter().any(|part| part == "tests") && !file.ends_with("tests.rs")
}

/// Sources whose words are judged: not tests, which may read files and print.
fn is_no_std_source(file: &Path) -> bool {
    let within = NO_STD_CRATES.iter().any(|root| file.starts_with(Path::new(root).join("src")));
    let of_tests = file.file_stem().is_some_and(|stem| stem == "tests")
        || file.parent().is_some_and(|parent| parent.iter().any(|part| part == "tests"));
    within && !of_tests
}

/// The arrows of [`ALLOWED_DEPENDENCIES`] against what the manifests say, development dependencies included: a test may not turn one round either.
fn check_dependencies(metadata: &Value, root: &Path) -> anyhow::Result<Vec<LintError>> {
    let packages = metadata["packages"].as_array().context("cargo lists no packages")?;
    let mut errors = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let manifest = manifest.strip_prefix(root).unwrap_or(manifest).to_path_buf();
        let mut offend = |what: String| errors.push(LintError { file: manifest.clone(), line: 0, message: what });
        let Some((_, allowed)) = ALLOWED_DEPENDENCIES.iter().find(|(known, _)| *known == name) else {
            offend(format!(
                "crate {name} has no place among the arrows; give it one in xtask/src/lint.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let own = ALLOWED_DEPENDENCIES.iter().any(|(known, _)| *known == target);
            let is_test_support = target == TEST_SUPPORT && dependency["kind"] == "dev";
            if own && !is_test_support && !allowed.contains(&target) {
                offend(format!("{name} may not depend on {target}: arrows point one way"));
            }
        }
    }
    Ok(errors)
}

/// wire and engine say `no_std` themselves, so that no feature can bring it back.
fn check_no_std(root: &Path) -> anyhow::Result<Vec<LintError>> {
    let mut errors = Vec::new();
    for krate in NO_STD_CRATES {
        let file = Path::new(krate).join("src/lib.rs");
        let text = fs::read_to_string(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        if !text.lines().any(|line| line.trim() == "#![no_std]") {
            errors.push(LintError { file, line: 0, message: "must say #![no_std], without a condition".into() });
        }
    }
    Ok(errors)
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
