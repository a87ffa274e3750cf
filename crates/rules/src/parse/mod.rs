//! From tokens to a checked tree: recursive descent, one file for each level of the language.
mod chain;
mod command;
mod ct_timeout;
mod dynset;
mod expression;
mod exthdr;
mod nat;
mod parser;
mod payload;
mod selector;
mod set;
mod statement;
mod synproxy;
mod table;
mod value;

use crate::ast::Ruleset;
use crate::diagnostic::RulesetError;
use crate::source::{IncludeResolver, Sources};
use parser::Parser;

/// Parses a ruleset. `name` is the name of the text in error messages.
///
/// ```
/// use keepstate_rules::{NoIncludes, parse};
/// let text = "table inet filter {
///     chain forward {
///         type filter hook forward priority filter; policy drop;
///         ct state established,related accept
///         iifname \"lan*\" tcp dport { 80, 443 } accept
///     }
/// }";
/// let ruleset = parse("rules.nft", text, &NoIncludes).unwrap();
/// assert_eq!(ruleset.tables[0].chains[0].rules.len(), 2);
/// ```
///
/// # Errors
/// All errors of the text, with their places.
pub fn parse(name: &str, text: &str, includes: &dyn IncludeResolver) -> Result<Ruleset, RulesetError> {
    parse_with(name, text, includes, &[]).map(|(ruleset, _)| ruleset)
}

/// Like [`parse`], with variables (name and text) defined before the first line; also returns the texts, which [`compile()`](crate::compile()) needs.
///
/// # Errors
/// All errors of the text, with their places.
pub fn parse_with(
    name: &str,
    text: &str,
    includes: &dyn IncludeResolver,
    variables: &[(String, String)],
) -> Result<(Ruleset, Sources), RulesetError> {
    let mut parser = Parser::new(includes);
    if let Err(diagnostic) = parser.load_source(name, text, variables).and_then(|()| parser.parse_ruleset()) {
        parser.diagnostics.push(diagnostic);
    }
    if parser.diagnostics.is_empty() {
        Ok((parser.ruleset, parser.sources))
    } else {
        Err(RulesetError { diagnostics: parser.diagnostics, sources: parser.sources })
    }
}
