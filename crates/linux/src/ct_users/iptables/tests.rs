//! What iptables-save 1.8.9 printed of rules with every use of tracking.
use super::super::table_ct_users;
use super::*;

const SAVED: &str = include_str!("../recorded/iptables.save");

fn tables() -> Vec<ListedTable> {
    parse(SAVED, RulesetFormat::IptablesLegacy, "ip").unwrap()
}

#[test]
fn ct_users_of_recorded_rules() {
    let mut found = String::new();
    for table in tables() {
        for dependent in table_ct_users(&table) {
            found.push_str(&format!(
                "{:<9} {:<18} {}\n",
                dependent.kind.name(),
                dependent.location,
                dependent.description
            ));
        }
    }
    assert_eq!(found, NEEDS);
}

/// Each line was looked at beside the rule it is about.
const NEEDS: &str = include_str!("../recorded/iptables.needs");

#[test]
fn parses_rule_matches() {
    let read = |text: &str| parse_rule_options(&split_shell_words(text));
    let tcp = || RuleMatch::Protocol { names: vec!["tcp".into()], not: false };
    let state = |states: &[&str], not| RuleMatch::CtState {
        states: states.iter().map(|state| state.to_string()).collect(),
        not,
    };
    let rule = read("-p tcp -m tcp --dport 1883 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT");
    let port = RuleMatch::Port { side: PortSide::Destination, ports: vec![1883..=1883], not: false };
    assert_eq!(rule.matches, [tcp(), port, state(&["new", "established"], false)]);
    assert_eq!(rule.branches, [VerdictBranch { condition: None, verdict: ListedVerdict::Accept }]);
    let rule = read("! -i lo -p 6 -m multiport ! --sports 80,81:90,1000: -j REJECT --reject-with tcp-reset");
    let ports = RuleMatch::Port { side: PortSide::Source, ports: vec![80..=80, 81..=90, 1000..=65535], not: true };
    assert_eq!(rule.matches, [RuleMatch::Unknown, tcp(), ports]);
    assert_eq!(read("-m conntrack ! --ctstate INVALID -g x").matches, [state(&["invalid"], true)]);
    assert_eq!(read("-m conntrack --ctstatus ASSURED").matches, [RuleMatch::CtField]);
    assert_eq!(
        read("-m comment --comment \"-p udp -j DROP\" -j FOO").branches[0].verdict,
        ListedVerdict::Jump("FOO".into())
    );
    assert_eq!(read("-m comment --comment \"-p udp -j DROP\" -j FOO").matches, []);
}

#[test]
fn parses_nat_target_ports() {
    assert_eq!(parse_nat_ports("10.0.0.1:1883"), Some(1883..=1883));
    assert_eq!(parse_nat_ports("[fc00::1]:1883-1890"), Some(1883..=1890));
    assert_eq!(parse_nat_ports("8080-8090"), Some(8080..=8090));
    assert_eq!(parse_nat_ports("8080-8090/80"), Some(8080..=8090));
    assert_eq!(parse_nat_ports("10.0.0.1"), None);
    assert_eq!(parse_nat_ports("fc00::1"), None);
    assert_eq!(parse_nat_ports("10.0.0.1:many"), Some(0..=u16::MAX));
}

#[test]
fn words_are_split_as_by_a_shell() {
    assert_eq!(
        split_shell_words(r#"-m comment --comment "a \"b\" c" --x "" end"#),
        ["-m", "comment", "--comment", "a \"b\" c", "--x", "", "end"]
    );
}

#[test]
fn malformed_save_is_rejected() {
    for text in ["-A INPUT -j ACCEPT", "*filter\n-A NOWHERE -j ACCEPT", "*filter\n:INPUT", "*filter\n-X", "junk"] {
        assert!(parse(text, RulesetFormat::IptablesLegacy, "ip").is_err(), "{text}");
    }
    let counted = "*filter\n:INPUT ACCEPT [0:0]\n[12:640] -A INPUT -m state --state NEW -j DROP\nCOMMIT\n";
    assert_eq!(
        parse(counted, RulesetFormat::IptablesNft, "ip").unwrap()[0].chains[0].rules[0].ct_features,
        [CtFeature::State]
    );
}
