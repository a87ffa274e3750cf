//! A ruleset with every use of tracking that nft 1.0.6 can write, recorded from it.
use super::super::table_ct_users;
use super::*;

const JSON: &str = include_str!("../recorded/ruleset.json");
const LISTING: &str = include_str!("../recorded/ruleset.list");

fn tables() -> Vec<ListedTable> {
    parse(JSON, LISTING).unwrap()
}

fn rule(number: u64) -> ListedRule {
    let tables = tables();
    let chains = tables[0].chains.iter();
    chains.flat_map(|chain| &chain.rules).find(|rule| rule.number == number).unwrap().clone()
}

#[test]
fn tables_chains_and_texts() {
    let tables = tables();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["filter", "nat"]);
    let input = tables[0].chains.iter().find(|chain| chain.name == "input").unwrap();
    let base = input.base.as_ref().unwrap();
    assert_eq!((base.hook.as_str(), base.is_nat, base.priority, base.policy_accept), ("input", false, 0, false));
    assert_eq!(input.rules[1].text, "ct state established,related accept");
    assert!(tables[1].chains.iter().all(|chain| chain.base.as_ref().unwrap().is_nat));
    // Without the listing a rule is shown as it is in JSON.
    let bare = parse(JSON, "").unwrap();
    assert!(bare[0].chains[1].rules[1].text.starts_with("[{\"match\":"), "{}", bare[0].chains[1].rules[1].text);
}

#[test]
fn ct_users_of_recorded_rules() {
    let mut found = String::new();
    for table in tables() {
        for dependent in table_ct_users(&table) {
            found.push_str(&format!(
                "{:<11} {:<17} {}\n",
                dependent.kind.name(),
                dependent.location,
                dependent.description
            ));
        }
    }
    assert_eq!(found, NEEDS);
}

/// Each line was looked at beside the rule it is about.
const NEEDS: &str = include_str!("../recorded/ruleset.needs");

#[test]
fn parses_matches_on_ports_protocols_and_states() {
    let to = |ports: Vec<RangeInclusive<u16>>| RuleMatch::Port { side: PortSide::Destination, ports, not: false };
    let tcp = RuleMatch::Protocol { names: vec!["tcp".into()], not: false };
    let state = |states: &[&str], not| RuleMatch::CtState {
        states: states.iter().map(|state| state.to_string()).collect(),
        not,
    };
    assert_eq!(rule(23).matches, [tcp.clone(), to(vec![1883..=1883]), state(&["new"], false)]);
    assert_eq!(rule(25).matches, [tcp.clone(), to(vec![1883..=1883, 8883..=8883, 9000..=9100])]);
    assert_eq!(rule(41).matches, rule(25).matches, "a named set is looked into");
    assert_eq!(rule(26).branches, [VerdictBranch { condition: None, verdict: ListedVerdict::Jump("other".into()) }]);
    assert_eq!(rule(20).matches, [state(&["established", "related"], true)]);
    assert_eq!(rule(21).matches, [state(&["established"], true)]);
    assert_eq!(rule(34).matches, [tcp.clone(), RuleMatch::CtField]);
    assert_eq!(rule(42).matches, [RuleMatch::Unknown]);
    assert_eq!(rule(43).matches, std::slice::from_ref(&tcp));
    let no_ssh = RuleMatch::Port { side: PortSide::Source, ports: vec![22..=22], not: true };
    assert_eq!(rule(29).matches, [RuleMatch::Unknown, tcp, no_ssh, RuleMatch::CtField]);
}

#[test]
fn verdict_maps_become_branches() {
    let branch = |test, verdict| VerdictBranch { condition: Some(test), verdict };
    let port = |port| RuleMatch::Port { side: PortSide::Destination, ports: vec![port..=port], not: false };
    assert_eq!(
        rule(39).branches,
        [branch(port(22), ListedVerdict::Accept), branch(port(1883), ListedVerdict::Jump("other".into()))]
    );
    assert_eq!(rule(40).branches, [branch(port(22), ListedVerdict::Accept)]);
    let states: Vec<String> = rule(17).branches.iter().map(|branch| format!("{:?}", branch.verdict)).collect();
    assert_eq!(states, ["Drop", "Accept", "Accept"]);
}

#[test]
fn parses_nat_target_ports() {
    let tables = tables();
    let ports: Vec<_> =
        tables[1].chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.nat_ports.clone()).collect();
    let whole = vec![0..=u16::MAX];
    assert_eq!(ports, [vec![], vec![], vec![1024..=2000], vec![8080..=8080], vec![1883..=1883], whole]);
}

#[test]
fn xt_expressions_are_classified_by_name() {
    let json = r#"{"nftables":[{"table":{"family":"ip","name":"filter"}},{"chain":{"family":"ip","table":"filter","name":"INPUT"}},
        {"rule":{"family":"ip","table":"filter","chain":"INPUT","handle":1,"expr":[{"xt":{"type":"match","name":"connlimit"}},{"drop":null}]}},
        {"rule":{"family":"ip","table":"filter","chain":"INPUT","handle":2,"expr":[{"xt":{"type":"match","name":"comment"}},{"drop":null}]}},
        {"rule":{"family":"ip","table":"filter","chain":"INPUT","handle":3,"expr":[{"xt":{"type":"target","name":"CT"}}]}},
        {"rule":{"family":"ip","table":"filter","chain":"INPUT","handle":4,"expr":[{"xt":null}]}}]}"#;
    let tables = parse(json, "").unwrap();
    let needs: Vec<&[CtFeature]> = tables[0].chains[0].rules.iter().map(|rule| rule.ct_features.as_slice()).collect();
    assert_eq!(needs, [&[CtFeature::Limit][..], &[], &[CtFeature::Unknown], &[CtFeature::Unknown]]);
    assert_eq!(tables[0].chains[0].rules[0].matches, [RuleMatch::Unknown]);
}

/// As libnftables-json(5) writes them; this kernel has no flowtables, and this nft no statements of sets.
#[test]
fn flowtables_and_set_statements_are_ct_users() {
    let json = r#"{"nftables":[{"table":{"family":"inet","name":"t"}},
        {"flowtable":{"family":"inet","name":"fast","table":"t","hook":"ingress","prio":0,"dev":"eth0"}},
        {"set":{"family":"inet","name":"many","table":"t","type":"ipv4_addr","stmt":[{"ct count":{"val":20,"inv":true}}]}},
        {"set":{"family":"inet","name":"plain","table":"t","type":"ipv4_addr","elem":["10.0.0.1"]}},
        {"chain":{"family":"inet","table":"t","name":"c","type":"filter","hook":"forward","prio":0,"policy":"accept"}},
        {"rule":{"family":"inet","table":"t","chain":"c","handle":1,"expr":[{"flow":{"op":"add","flowtable":"@fast"}}]}}]}"#;
    let tables = parse(json, "").unwrap();
    let found: Vec<(&str, String)> = table_ct_users(&tables[0])
        .iter()
        .map(|dependent| (dependent.kind.name(), dependent.location.clone()))
        .collect();
    let place = |place: &str| place.to_owned();
    assert_eq!(found, [("flowtable", place("inet t")), ("limit", place("inet t")), ("flowtable", place("inet t c"))]);
}

#[test]
fn malformed_json_is_rejected() {
    assert!(parse("", "").is_err() && parse("{}", "").is_err() && parse("[1]", "").is_err());
    let odd = r#"{"nftables":[{},1,{"rule":{}},{"table":{"family":"ip","name":"t"}},{"chain":{"table":"t","family":"ip"}},
        {"rule":{"family":"ip","table":"t","chain":"","expr":[1,{"match":{}},{"vmap":{}},{"vmap":{"key":{"ct":{}},"data":"@x"}}]}}]}"#;
    let tables = parse(odd, "table ip t {\n chain").unwrap();
    assert_eq!(tables[0].chains[0].rules[0].matches, [RuleMatch::Unknown, RuleMatch::Unknown, RuleMatch::Unknown]);
}
