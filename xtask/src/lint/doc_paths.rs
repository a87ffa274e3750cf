//! The files that a document names exist.
use super::error::LintError;
use std::path::{Path, PathBuf};

/// The document whose paths are checked, from the root of the repository; its paths are below `crates/`.
pub const DOCUMENT: &str = "ARCHITECTURE.md";

/// An error for each path in backticks that does not exist below `crates`.
pub fn missing_files(root: &Path, text: &str) -> Vec<LintError> {
    let mut errors = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // Every second piece stands between backticks.
        for path in line.split('`').skip(1).step_by(2).filter(|code| is_source_path(code)) {
            if !root.join("crates").join(path).exists() {
                let message = format!("names crates/{path}, which does not exist");
                errors.push(LintError { file: PathBuf::from(DOCUMENT), line: at + 1, message });
            }
        }
    }
    errors
}

/// `engine/src/track.rs`, `linux/src/tc`: a crate, then a folder of sources.
fn is_source_path(code: &str) -> bool {
    let mut parts = code.split('/');
    let is_word = |part: &str| {
        !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
    };
    parts.clone().all(is_word)
        && parts.next().is_some()
        && parts.next().is_some_and(|folder| matches!(folder, "src" | "tests" | "examples"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_sources_are_checked() {
        assert!(is_source_path("engine/src/track.rs") && is_source_path("linux/src/tc"));
        assert!(!is_source_path("fuzz/") && !is_source_path("cargo xtask lint") && !is_source_path("src/lib.rs"));
    }

    #[test]
    fn a_path_that_does_not_exist_is_an_error() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let errors = missing_files(&root, "see `engine/src/lib.rs`\nand `engine/src/no_such_file.rs`");
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].line, 2);
    }
}
