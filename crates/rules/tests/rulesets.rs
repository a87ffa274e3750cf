//! Typical rulesets: nft accepts each of them, and so do we.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_rules::{NoIncludes, parse};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn ruleset_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rulesets");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Result and error text of `nft --check` in a network namespace of its own; `None` without nft or root.
fn nft_check(file: &Path) -> Option<(bool, String)> {
    let output = Command::new("unshare").args(["--net", "nft", "--check", "--file"]).arg(file).output().ok()?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    if message.contains("Operation not permitted") || message.contains("failed to execute") {
        keepstate_test_support::report_skipped("comparison with nft needs root and nftables");
        return None;
    }
    Some((output.status.success(), message))
}

#[test]
fn nft_and_parser_accept_every_ruleset() {
    let files = ruleset_files();
    assert!(files.len() >= 8);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if let Err(error) = parse(&name, &text, &NoIncludes) {
            panic!("{error}");
        }
        if let Some((accepted, message)) = nft_check(&file) {
            assert!(accepted, "{name}: {message}");
        }
    }
}
