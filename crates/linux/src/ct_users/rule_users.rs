//! From a listed table to the users of connection tracking in it.
use super::finding::{Confidence, CtUser, CtUserKind};
use super::known_service;
use super::listed_ruleset::{CtFeature, ListedRule, ListedTable, RuleMatch};

/// What the rules of a table need.
pub fn table_ct_users(table: &ListedTable) -> Vec<CtUser> {
    let dependent = |place: String, number, what: String, owner: Option<&'static str>, need| CtUser {
        kind: need,
        listed_by: table.format.name(),
        location: place,
        number,
        description: what,
        owner: owner.or_else(|| known_service::owner_of_chain(&table.name)),
        confidence: if need == CtUserKind::Rule(CtFeature::Unknown) {
            Confidence::Possible
        } else {
            Confidence::Certain
        },
    };
    let place = format!("{} {}", table.family, table.name);
    let objects = table.objects.iter();
    let objects = objects
        .map(|object| dependent(place.clone(), None, object.text.clone(), None, CtUserKind::Rule(object.ct_feature)));
    let mut found: Vec<CtUser> = objects.collect();
    for chain in &table.chains {
        for rule in &chain.rules {
            if let Some(need) = rule_ct_user_kind(rule) {
                let place = format!("{place} {}", chain.name);
                found.push(dependent(
                    place,
                    Some(rule.number),
                    rule.text.clone(),
                    known_service::owner_of_chain(&chain.name),
                    need,
                ));
            }
        }
    }
    let nat = table.chains.iter().any(|chain| chain.base.as_ref().is_some_and(|base| base.is_nat));
    if nat && !found.iter().any(|dependent| dependent.kind == CtUserKind::Rule(CtFeature::Nat)) {
        let what = "chains of type nat without a NAT rule".into();
        found.push(dependent(place, None, what, None, CtUserKind::IdleNat));
    }
    found
}

/// The weightiest need of a rule. One that only looks for untracked packets, or asks for no tracking, breaks nothing.
fn rule_ct_user_kind(rule: &ListedRule) -> Option<CtUserKind> {
    let untracked_only = rule.ct_features == [CtFeature::State]
        && rule.matches.iter().all(|test| match test {
            RuleMatch::CtState { states, not } => !not && states.iter().all(|state| state == "untracked"),
            _ => true,
        })
        && rule.branches.iter().all(|branch| branch.condition.is_none());
    if untracked_only {
        return Some(CtUserKind::UntrackedOnly);
    }
    rule.ct_features.iter().max().map(|need| CtUserKind::Rule(*need))
}
