//! What iptables-save 1.8.9 printed of rules with every use of tracking.
use super::super::of_table;
use super::*;

const SAVED: &str = include_str!("../recorded/iptables.save");

fn tables() -> Vec<Table> {
    parse(SAVED, Language::IptablesLegacy, "ip").unwrap()
}

#[test]
fn each_rule_and_what_it_needs() {
    let mut found = String::new();
    for table in tables() {
        for dependent in of_table(&table) {
            found.push_str(&format!("{:<9} {:<18} {}\n", dependent.need.name(), dependent.place, dependent.what));
        }
    }
    assert_eq!(found, NEEDS);
}

/// Each line was looked at beside the rule it is about.
const NEEDS: &str = include_str!("../recorded/iptables.needs");

#[test]
fn conditions() {
    let read = |text: &str| read(&words(text));
    let tcp = || Test::Protocol { names: vec!["tcp".into()], not: false };
    let state =
        |states: &[&str], not| Test::State { states: states.iter().map(|state| state.to_string()).collect(), not };
    let rule = read("-p tcp -m tcp --dport 1883 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT");
    let port = Test::Port { end: End::Destination, ports: vec![1883..=1883], not: false };
    assert_eq!(rule.tests, [tcp(), port, state(&["new", "established"], false)]);
    assert_eq!(rule.branches, [Branch { test: None, verdict: Verdict::Accept }]);
    let rule = read("! -i lo -p 6 -m multiport ! --sports 80,81:90,1000: -j REJECT --reject-with tcp-reset");
    let ports = Test::Port { end: End::Source, ports: vec![80..=80, 81..=90, 1000..=65535], not: true };
    assert_eq!(rule.tests, [Test::Other, tcp(), ports]);
    assert_eq!(read("-m conntrack ! --ctstate INVALID -g x").tests, [state(&["invalid"], true)]);
    assert_eq!(read("-m conntrack --ctstatus ASSURED").tests, [Test::Connection]);
    assert_eq!(read("-m comment --comment \"-p udp -j DROP\" -j FOO").branches[0].verdict, Verdict::Jump("FOO".into()));
    assert_eq!(read("-m comment --comment \"-p udp -j DROP\" -j FOO").tests, []);
}

#[test]
fn where_translations_lead() {
    assert_eq!(translated("10.0.0.1:1883"), Some(1883..=1883));
    assert_eq!(translated("[fc00::1]:1883-1890"), Some(1883..=1890));
    assert_eq!(translated("8080-8090"), Some(8080..=8090));
    assert_eq!(translated("8080-8090/80"), Some(8080..=8090));
    assert_eq!(translated("10.0.0.1"), None);
    assert_eq!(translated("fc00::1"), None);
    assert_eq!(translated("10.0.0.1:many"), Some(0..=u16::MAX));
}

#[test]
fn words_are_split_as_by_a_shell() {
    assert_eq!(
        words(r#"-m comment --comment "a \"b\" c" --x "" end"#),
        ["-m", "comment", "--comment", "a \"b\" c", "--x", "", "end"]
    );
}

#[test]
fn what_is_none_of_its_lines_is_refused() {
    for text in ["-A INPUT -j ACCEPT", "*filter\n-A NOWHERE -j ACCEPT", "*filter\n:INPUT", "*filter\n-X", "junk"] {
        assert!(parse(text, Language::IptablesLegacy, "ip").is_err(), "{text}");
    }
    let counted = "*filter\n:INPUT ACCEPT [0:0]\n[12:640] -A INPUT -m state --state NEW -j DROP\nCOMMIT\n";
    assert_eq!(parse(counted, Language::IptablesNft, "ip").unwrap()[0].chains[0].rules[0].needs, [Need::State]);
}
