//! Target `ruleset`: any text is parsed or gives an error with a position; a parsed ruleset is compiled or gives an error.
use keepstate_rules::{NoIncludes, compile, parse_with};

/// Parses `data` as a ruleset, and compiles it.
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
