//! Rulesets people have, and what stands in the way of not tracking a broker there.
use super::*;
use keepstate_linux::dependents::{iptables, of_table};

const BROKER: &str = "tcp/1883";

fn filter(rules: &str) -> String {
    format!("*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n")
}

fn nat(rules: &str) -> String {
    let chains = ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:DOCKER - [0:0]";
    format!("*nat\n{chains}\n{rules}\nCOMMIT\n")
}

fn obstacles(saved: &str, reach: Reach) -> Obstacles {
    let tables = iptables::parse(saved, Language::IptablesNft, "ip").unwrap();
    let dependents: Vec<Dependent> = tables.iter().flat_map(of_table).collect();
    Obstacles::to(&[Wish { service: BROKER.parse().unwrap(), reach }], &tables, &dependents)
}

/// The packets that need a mend, and the command for each.
fn mends(rules: &str, reach: Reach) -> Vec<(String, String)> {
    let found = obstacles(&filter(rules), reach);
    assert!(found.forbids.is_empty());
    found.mends.into_iter().map(|mend| (mend.packets(), mend.command)).collect()
}

#[test]
fn a_port_opened_by_state_needs_a_mend() {
    let rules = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A INPUT -p tcp -m tcp --dport 1883 -m conntrack --ctstate NEW -j ACCEPT";
    let found = mends(rules, Reach::Served);
    let command = "iptables-nft -t filter -I INPUT 1 -p tcp --dport 1883 -m conntrack --ctstate UNTRACKED -j ACCEPT";
    assert_eq!(found, [("packets to tcp/1883".to_owned(), command.to_owned())]);
    let all = obstacles(&filter(rules), Reach::All).mends;
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|mend| mend.certain), "{all:?}");
    assert_eq!(all[0].rules.len(), 2, "both rules are named: {:?}", all[0].rules);
}

#[test]
fn a_port_opened_for_all_needs_none_to_it() {
    let rules = "-A INPUT -m state --state ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 1883 -j ACCEPT";
    assert_eq!(mends(rules, Reach::Served), []);
    // Answers to clients on this machine came in as established.
    let answers =
        "iptables-nft -t filter -I INPUT 1 -p tcp --sport 1883 ! --syn -m conntrack --ctstate UNTRACKED -j ACCEPT";
    assert_eq!(mends(rules, Reach::All), [("packets from tcp/1883".to_owned(), answers.to_owned())]);
}

#[test]
fn mended_rules_need_no_more() {
    let rules = "-A INPUT -p tcp -m tcp --dport 1883 -m conntrack --ctstate UNTRACKED -j ACCEPT\n\
        -A INPUT -p tcp -m tcp --sport 1883 ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate UNTRACKED -j ACCEPT\n\
        -A INPUT -m state --state ESTABLISHED -j ACCEPT";
    assert_eq!(mends(rules, Reach::All), []);
    assert_eq!(mends("-A INPUT -m conntrack --ctstate ESTABLISHED,UNTRACKED -j ACCEPT", Reach::All), []);
}

#[test]
fn dropping_all_but_known_states_needs_a_mend() {
    let rules = "-A INPUT -m conntrack ! --ctstate NEW,RELATED,ESTABLISHED -j DROP\n-A INPUT -p tcp -m tcp --dport 1883 -j ACCEPT";
    assert_eq!(mends(rules, Reach::Served).len(), 1);
    let rules = "-A INPUT -m conntrack --ctstate INVALID -j DROP\n-A INPUT -p tcp -m tcp --dport 1883 -j ACCEPT";
    assert_eq!(mends(rules, Reach::Served), []);
}

#[test]
fn what_is_closed_today_needs_no_mend() {
    assert_eq!(mends("-A INPUT -p tcp -m tcp --dport 22 -m state --state NEW -j ACCEPT", Reach::All), []);
    assert_eq!(mends("", Reach::All), []);
}

#[test]
fn translations_of_the_port_forbid() {
    let forbids = |rules: &str, reach| -> Vec<bool> {
        obstacles(&nat(rules), reach).forbids.iter().map(|forbids| forbids.names_it).collect()
    };
    let published = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
        -A DOCKER -p tcp -m tcp --dport 1883 -j DNAT --to-destination 172.17.0.2:1883";
    assert_eq!(forbids(published, Reach::Served), [true]);
    assert_eq!(forbids("-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 1883", Reach::Served), [true]);
    assert!(forbids("-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080", Reach::All).is_empty());
    assert!(forbids("-A PREROUTING -p udp -m udp --dport 1883 -j REDIRECT --to-ports 8080", Reach::All).is_empty());
    // Masquerading may touch what passes through, and never what is served here.
    let masquerade = "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE";
    assert_eq!(forbids(masquerade, Reach::All), [false]);
    assert!(forbids(masquerade, Reach::Served).is_empty());
}

#[test]
fn synproxy_forbids_and_limits_are_lost() {
    let found = obstacles(&filter("-A INPUT -p tcp -m tcp --dport 1883 -j SYNPROXY --mss 1460"), Reach::Served);
    assert_eq!(found.forbids.len(), 1);
    let limit = "-A INPUT -p tcp -m tcp --dport 1883 -m connlimit --connlimit-above 10 -j DROP\n-A INPUT -p tcp -m tcp --dport 1883 -j ACCEPT";
    let found = obstacles(&filter(limit), Reach::Served);
    assert_eq!((found.forbids.len(), found.losses.len()), (0, 1));
}

#[test]
fn virtual_servers_forbid() {
    let ipvs = Dependent {
        need: Kind::Ipvs,
        by: "ipvs",
        place: "/proc/net/ip_vs".into(),
        number: None,
        what: "TCP 0A600001:075B Masq (net.ipv4.vs.conntrack=1)".into(),
        owner: None,
        sure: keepstate_linux::dependents::Sure::Certain,
    };
    let wish = |service: &str| Wish { service: service.parse().unwrap(), reach: Reach::All };
    assert_eq!(Obstacles::to(&[wish(BROKER)], &[], std::slice::from_ref(&ipvs)).forbids.len(), 1);
    assert_eq!(Obstacles::to(&[wish("tcp/1884")], &[], &[ipvs]).forbids.len(), 0);
}
