//! From tokens to a checked tree: recursive descent, one file for each level of the language.
mod anonymous_chain;
mod auto_merge;
mod chain;
mod command;
mod ct_expectation;
mod ct_timeout;
mod dynset;
mod edit;
mod elements;
mod expression;
mod exthdr;
mod left_out;
mod log;
mod names;
mod nat;
mod object_ref;
mod parser;
mod payload;
mod query;
mod queue;
mod relational;
mod secmark;
mod selector;
mod set;
mod skip;
mod statement;
mod synproxy;
mod table;
mod tproxy;
mod tunnel;
mod unsupported;
mod updated_sets;
mod value;

#[cfg(feature = "json")]
pub(crate) use ct_timeout::timeout_state_name;
#[cfg(feature = "json")]
pub(crate) use exthdr::{exthdr_names, srh_names};
#[cfg(feature = "json")]
pub(crate) use payload::payload_field_names;
pub(crate) use set::type_name;
pub(crate) use statement::DEFAULT_BURST;
#[cfg(feature = "json")]
pub(crate) use value::parse_duration as duration_seconds;

use crate::ast::{AddedItem, Query, Ruleset, SetChange};
use crate::diagnostic::{Diagnostic, RulesetError};
use crate::lexer::{Token, TokenKind, tokenize};
use crate::source::{IncludeResolver, Sources};
use parser::Parser;
use updated_sets::known_handles;

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
        parser.mark_updated_sets(&Vec::new());
        parser.ruleset.assign_handles();
        Ok((parser.ruleset, parser.sources))
    } else {
        Err(RulesetError { diagnostics: parser.diagnostics, sources: parser.sources })
    }
}

/// Like [`parse_with`], but leaves out what is correct nftables and not supported here: rules, sets, objects, chains' hooks and whole tables, and the rules that
/// name something left out. Each is returned: whoever calls this must show them, since a rule that is left out drops nothing.
///
/// ```
/// use keepstate_rules::{NoIncludes, parse_skipping_unsupported};
/// let text = "table ip t { chain c { tunnel id 3; tcp dport 22 accept; }; }";
/// let (ruleset, _, left_out) = parse_skipping_unsupported("rules.nft", text, &NoIncludes, &[]).unwrap();
/// assert_eq!(ruleset.tables[0].chains[0].rules.len(), 1);
/// assert!(left_out[0].message.starts_with("`tunnel` is not supported"));
/// ```
///
/// # Errors
/// All other errors of the text, with their places.
pub fn parse_skipping_unsupported(
    name: &str,
    text: &str,
    includes: &dyn IncludeResolver,
    variables: &[(String, String)],
) -> Result<(Ruleset, Sources, Vec<Diagnostic>), RulesetError> {
    let mut parser = Parser::new(includes);
    parser.left_out.active = true;
    if let Err(diagnostic) = parser.load_source(name, text, variables).and_then(|()| parser.parse_ruleset()) {
        parser.diagnostics.push(diagnostic);
    }
    if parser.diagnostics.is_empty() {
        parser.mark_updated_sets(&Vec::new());
        parser.ruleset.assign_handles();
        Ok((parser.ruleset, parser.sources, parser.left_out.diagnostics))
    } else {
        Err(RulesetError { diagnostics: parser.diagnostics, sources: parser.sources })
    }
}

/// What a text includes, without reading it: the patterns behind `include`. A text that is no ruleset has none.
pub fn find_includes(text: &str) -> Vec<String> {
    let tokens = tokenize(0, text).unwrap_or_default();
    let pairs = tokens.iter().zip(tokens.iter().skip(1));
    let pattern = |(word, next): (&Token, &Token)| match (&word.kind, &next.kind) {
        (TokenKind::Ident(word), TokenKind::Quoted(pattern)) if word == "include" => Some(pattern.clone()),
        _ => None,
    };
    pairs.filter_map(pattern).collect()
}

/// Is the text one statement `jump { … }` or `goto { … }`, with nothing behind it?
#[cfg(feature = "json")]
pub(crate) fn is_anonymous_chain(text: &str) -> bool {
    let tokens = tokenize(0, text).unwrap_or_default();
    let begins = matches!(tokens.as_slice(), [Token { kind: TokenKind::Ident(word), .. }, Token { kind: TokenKind::Punct("{"), .. }, ..] if word == "jump" || word == "goto");
    begins && ends_with_its_brace(&tokens)
}

/// Is the text one statement `add @map { … }`, `update @map { … }` or `delete @map { … }`? nft 1.0.6 has no other form for it.
#[cfg(feature = "json")]
pub(crate) fn is_map_change(text: &str) -> bool {
    let tokens = tokenize(0, text).unwrap_or_default();
    let begins = matches!(tokens.as_slice(), [Token { kind: TokenKind::Ident(word), .. }, Token { kind: TokenKind::SetName(_), .. }, Token { kind: TokenKind::Punct("{"), .. }, ..] if matches!(word.as_str(), "add" | "update" | "delete"));
    begins && ends_with_its_brace(&tokens)
}

/// Does the first brace close with the last token before the end?
#[cfg(feature = "json")]
fn ends_with_its_brace(tokens: &[Token]) -> bool {
    let mut depth = 0_usize;
    let closes = tokens.iter().position(|token| {
        match token.kind {
            TokenKind::Punct("{") => depth += 1,
            TokenKind::Punct("}") => depth = depth.saturating_sub(1),
            _ => return false,
        }
        depth == 0
    });
    closes.is_some_and(|at| at + 2 == tokens.len())
}

/// A script that was parsed: the tree as it makes it, and what else it asks.
pub(crate) struct ParsedScript {
    pub(crate) tree: Ruleset,
    pub(crate) sources: Sources,
    /// Does `tree` differ from the tree that the script was parsed with?
    pub(crate) tree_changed: bool,
    pub(crate) changes: Vec<SetChange>,
    pub(crate) queries: Vec<Query>,
    pub(crate) added: Vec<AddedItem>,
    /// What is not in force here as it is in the kernel.
    pub(crate) notes: Vec<Diagnostic>,
}

/// Parses a script of commands on a running ruleset, whose tree and texts are `tree` and `sources`.
pub(crate) fn parse_script(
    tree: Ruleset,
    sources: Sources,
    (name, text): (&str, &str),
    includes: &dyn IncludeResolver,
) -> Result<ParsedScript, RulesetError> {
    let mut parser = Parser::new(includes);
    parser.ruleset = tree;
    parser.ruleset.notes.clear();
    parser.sources = sources;
    parser.script.active = true;
    parser.index_chains();
    let before = known_handles(&parser.ruleset);
    if let Err(diagnostic) = parser.load_source(name, text, &[]).and_then(|()| parser.parse_ruleset()) {
        parser.diagnostics.push(diagnostic);
    }
    if !parser.diagnostics.is_empty() {
        return Err(RulesetError { diagnostics: parser.diagnostics, sources: parser.sources });
    }
    if parser.script.tree_changed {
        parser.mark_updated_sets(&before);
    }
    let parser::ScriptState { tree_changed, changes, queries, added, .. } = parser.script;
    let notes = std::mem::take(&mut parser.ruleset.notes);
    let (tree, sources) = (parser.ruleset, parser.sources);
    Ok(ParsedScript { tree, sources, tree_changed, changes, queries, added, notes })
}
