//! The feature `serde`: diagnostics as JSON.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use keepstate_rules::{NoIncludes, parse};

#[test]
fn diagnostic_as_json() {
    let error = parse("r.nft", "table ip t { chain c { acept; }; }", &NoIncludes).unwrap_err();
    let diagnostic = &error.diagnostics[0];
    assert_eq!(
        serde_json::to_value(diagnostic).unwrap(),
        serde_json::json!({
            "span": { "file": 0, "start": 23, "end": 28 },
            "message": "expected a match, a statement or a verdict, found `acept`",
            "help": "did you mean `accept`?",
            "unsupported": false,
            "not_governed": false,
        })
    );
    assert_eq!(
        serde_json::to_value(error.sources.position(diagnostic.span)).unwrap(),
        serde_json::json!({ "file": "r.nft", "line": 1, "column": 24 })
    );
}
