//! Every `cargo xtask …` that the documents name is one that there is. (Because of this test, `cargo test` builds the program itself, which `./test` and `.ci/run` then use.)
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The first word behind each `cargo xtask `.
fn named_in(text: &str) -> BTreeSet<String> {
    let behind = text.split("cargo xtask ").skip(1);
    let words = behind
        .map(|rest| rest.split(|letter: char| !letter.is_ascii_lowercase()).next().unwrap_or_default().to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_documented_command_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut named = BTreeSet::new();
    for file in ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "docs/benchmarks.md", "packaging/README.md"] {
        named.append(&mut named_in(&fs::read_to_string(root.join(file)).unwrap()));
    }
    assert!(named.len() >= 4, "{named:?}");
    for command in named {
        let asked = Command::new(env!("CARGO_BIN_EXE_xtask")).args([&command, "--help"]).output().unwrap();
        assert!(asked.status.success(), "cargo xtask {command}: {}", String::from_utf8_lossy(&asked.stderr));
    }
}
