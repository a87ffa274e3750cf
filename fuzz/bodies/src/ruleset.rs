//! Target `ruleset`: any text parses or is an error with a position; what parses compiles or is an error.
use keepstate_rules::{NoIncludes, compile, parse_with};

/// Reads `data` as a ruleset.
pub fn ruleset(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse_with("fuzz", &text, &NoIncludes, &[]) {
        Err(refused) => {
            assert!(!refused.diagnostics.is_empty(), "a refusal says why");
            assert!(refused.to_string().starts_with("fuzz:"), "and where");
        }
        Ok((tree, sources)) => match compile(&tree, &sources) {
            Ok(program) => {
                let rules: usize =
                    tree.tables.iter().flat_map(|table| &table.chains).map(|chain| chain.rules.len()).sum();
                assert_eq!(program.size().1, rules, "no rule is lost");
            }
            Err(refused) => assert!(!refused.to_string().is_empty(), "a refusal says why"),
        },
    }
}
