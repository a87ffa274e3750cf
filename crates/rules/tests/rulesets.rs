//! The usual rulesets: real nft takes each, and so do we; what nft refuses in a line, so do we.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_rules::{NoIncludes, parse};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn ruleset_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rulesets");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What nft says of a file, in a namespace of its own; `None` where it cannot be asked.
fn nft_check(file: &Path) -> Option<(bool, String)> {
    let output = Command::new("unshare").args(["--net", "nft", "--check", "--file"]).arg(file).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("Operation not permitted") || said.contains("failed to execute") {
        let _ =
            writeln!(std::io::stderr(), "\n######## SKIPPED: what nft says of rulesets: it needs root and nftables");
        return None;
    }
    Some((output.status.success(), said))
}

#[test]
fn nft_and_parser_accept_every_ruleset() {
    let files = ruleset_files();
    assert!(files.len() >= 8);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if let Err(refused) = parse(&name, &text, &NoIncludes) {
            panic!("{refused}");
        }
        if let Some((taken, said)) = nft_check(&file) {
            assert!(taken, "{name}: {said}");
        }
    }
}
