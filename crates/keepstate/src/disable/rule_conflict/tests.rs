//! Rulesets people have, and what stands in the way of not tracking a broker there.
use super::*;
use keepstate_linux::ct_users::{iptables, table_ct_users};

const BROKER: &str = "tcp/1883";

fn filter(rules: &str) -> String {
    format!("*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n")
}

fn nat(rules: &str) -> String {
    let chains = ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:DOCKER - [0:0]";
    format!("*nat\n{chains}\n{rules}\nCOMMIT\n")
}

fn conflicts(saved: &str, reach: NotrackScope) -> RuleConflicts {
    let tables = iptables::parse(saved, RulesetFormat::IptablesNft, "ip").unwrap();
    let dependents: Vec<CtUser> = tables.iter().flat_map(table_ct_users).collect();
    RuleConflicts::find(&[NotrackRequest { service: BROKER.parse().unwrap(), scope: reach }], &tables, &dependents)
}

/// The packets that need a mend, and the command for each.
fn fixes(rules: &str, reach: NotrackScope) -> Vec<(String, String)> {
    let found = conflicts(&filter(rules), reach);
    assert!(found.blocking.is_empty());
    found.fixes.into_iter().map(|mend| (mend.packets(), mend.command)).collect()
}

#[test]
fn port_opened_by_state_needs_a_fix() {
    let rules = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A INPUT -p tcp -m tcp --dport 1883 -m conntrack --ctstate NEW -j ACCEPT";
    let found = fixes(rules, NotrackScope::LocalOnly);
    let command = "iptables-nft -t filter -I INPUT 1 -p tcp --dport 1883 -m conntrack --ctstate UNTRACKED -j ACCEPT";
    assert_eq!(found, [("packets to tcp/1883".to_owned(), command.to_owned())]);
    let all = conflicts(&filter(rules), NotrackScope::All).fixes;
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|mend| mend.certain), "{all:?}");
    assert_eq!(all[0].rules.len(), 2, "both rules are named: {:?}", all[0].rules);
}

#[test]
fn port_opened_for_all_needs_no_fix() {
    let rules = "-A INPUT -m state --state ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 1883 -j ACCEPT";
    assert_eq!(fixes(rules, NotrackScope::LocalOnly), []);
    // Answers to clients on this machine came in as established.
    let answers =
        "iptables-nft -t filter -I INPUT 1 -p tcp --sport 1883 ! --syn -m conntrack --ctstate UNTRACKED -j ACCEPT";
    assert_eq!(fixes(rules, NotrackScope::All), [("packets from tcp/1883".to_owned(), answers.to_owned())]);
}

#[test]
fn fixed_rules_need_no_fix() {
    let rules = "-A INPUT -p tcp -m tcp --dport 1883 -m conntrack --ctstate UNTRACKED -j ACCEPT\n\
        -A INPUT -p tcp -m tcp --sport 1883 ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate UNTRACKED -j ACCEPT\n\
        -A INPUT -m state --state ESTABLISHED -j ACCEPT";
    assert_eq!(fixes(rules, NotrackScope::All), []);
    assert_eq!(fixes("-A INPUT -m conntrack --ctstate ESTABLISHED,UNTRACKED -j ACCEPT", NotrackScope::All), []);
}

#[test]
fn dropping_unknown_states_needs_a_fix() {
    let rules = "-A INPUT -m conntrack ! --ctstate NEW,RELATED,ESTABLISHED -j DROP\n-A INPUT -p tcp -m tcp --dport 1883 -j ACCEPT";
    assert_eq!(fixes(rules, NotrackScope::LocalOnly).len(), 1);
    let rules = "-A INPUT -m conntrack --ctstate INVALID -j DROP\n-A INPUT -p tcp -m tcp --dport 1883 -j ACCEPT";
    assert_eq!(fixes(rules, NotrackScope::LocalOnly), []);
}

#[test]
fn closed_port_needs_no_fix() {
    assert_eq!(fixes("-A INPUT -p tcp -m tcp --dport 22 -m state --state NEW -j ACCEPT", NotrackScope::All), []);
    assert_eq!(fixes("", NotrackScope::All), []);
}

#[test]
fn nat_of_the_port_blocks() {
    let forbids = |rules: &str, reach| -> Vec<bool> {
        conflicts(&nat(rules), reach).blocking.iter().map(|forbids| forbids.names_port).collect()
    };
    let published = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
        -A DOCKER -p tcp -m tcp --dport 1883 -j DNAT --to-destination 172.17.0.2:1883";
    assert_eq!(forbids(published, NotrackScope::LocalOnly), [true]);
    assert_eq!(
        forbids("-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1883", NotrackScope::LocalOnly),
        [true]
    );
    assert!(
        forbids("-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080", NotrackScope::All).is_empty()
    );
    assert!(
        forbids("-A PREROUTING -p udp -m udp --dport 1883 -j REDIRECT --to-ports 8080", NotrackScope::All).is_empty()
    );
    // Masquerading may touch what passes through, and never what is served here.
    let masquerade = "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE";
    assert_eq!(forbids(masquerade, NotrackScope::All), [false]);
    assert!(forbids(masquerade, NotrackScope::LocalOnly).is_empty());
}

#[test]
fn synproxy_blocks_and_limits_become_ineffective() {
    let found =
        conflicts(&filter("-A INPUT -p tcp -m tcp --dport 1883 -j SYNPROXY --mss 1460"), NotrackScope::LocalOnly);
    assert_eq!(found.blocking.len(), 1);
    let limit = "-A INPUT -p tcp -m tcp --dport 1883 -m connlimit --connlimit-above 10 -j DROP\n-A INPUT -p tcp -m tcp --dport 1883 -j ACCEPT";
    let found = conflicts(&filter(limit), NotrackScope::LocalOnly);
    assert_eq!((found.blocking.len(), found.ineffective.len()), (0, 1));
}

#[test]
fn ipvs_services_block() {
    let ipvs = CtUser {
        kind: CtUserKind::Ipvs,
        listed_by: "ipvs",
        location: "/proc/net/ip_vs".into(),
        number: None,
        description: "TCP 0A600001:075B Masq (net.ipv4.vs.conntrack=1)".into(),
        owner: None,
        confidence: keepstate_linux::ct_users::Confidence::Certain,
    };
    let wish = |service: &str| NotrackRequest { service: service.parse().unwrap(), scope: NotrackScope::All };
    assert_eq!(RuleConflicts::find(&[wish(BROKER)], &[], std::slice::from_ref(&ipvs)).blocking.len(), 1);
    assert_eq!(RuleConflicts::find(&[wish("tcp/1884")], &[], &[ipvs]).blocking.len(), 0);
}
