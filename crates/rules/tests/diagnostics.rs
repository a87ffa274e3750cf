//! What is wrong with a ruleset, word for word: place, piece, and what to write instead. Where the language itself is broken, nft refuses it too.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_rules::{IncludeResolver, NoIncludes, compile, parse_with};

/// What is said of a text; panics if it is taken.
fn diagnostic_text(text: &str) -> String {
    match parse_with("r.nft", text, &NoIncludes, &[]) {
        Err(refused) => refused.to_string(),
        Ok((tree, sources)) => match compile(&tree, &sources) {
            Err(refused) => refused.to_string(),
            Ok(_) => panic!("taken: {text}"),
        },
    }
}

/// In a chain of a table.
fn rule_diagnostic(rule: &str) -> String {
    diagnostic_text(&format!("table inet t {{\n\tchain c {{\n\t\t{rule}\n\t}}\n}}\n"))
}

#[test]
fn diagnostic_underlines_span_and_shows_help() {
    assert_eq!(
        rule_diagnostic("tcp dport ssh acept"),
        "r.nft:3:17: acept: a match, a statement or a verdict is wanted here\n\
         3 | \t\ttcp dport ssh acept\n  | \t\t              ^^^^^\n  = accept\n"
    );
    assert_eq!(
        rule_diagnostic("ip saddr www.example.org accept"),
        "r.nft:3:12: www.example.org is not an IPv4 address\n\
         3 | \t\tip saddr www.example.org accept\n  | \t\t         ^^^^^^^^^^^^^^^\n  = an address in digits: names of hosts are not asked for, since their answers change\n"
    );
    assert_eq!(
        rule_diagnostic("ct saddr 10.0.0.1 accept"),
        "r.nft:3:3: ct saddr of which direction?\n\
         3 | \t\tct saddr 10.0.0.1 accept\n  | \t\t^^^^^^^^\n  = ct original saddr, or ct reply saddr\n"
    );
}

#[test]
fn rule_errors_have_expected_messages() {
    for (wrong, words) in [
        ("tcp dport 70000 accept", "3:13: 70000 is too large for a port"),
        ("tcp dport 80-22 accept", "this range ends before it begins"),
        ("ip saddr 10.0.0.0/33 accept", "/33 is longer than an address"),
        ("ip saddr 10.0.0.256 accept", "10.0.0.256 is no IPv4 address"),
        ("ip saddr fe80::1 accept", "fe80::1: an IPv4 address is wanted here"),
        ("ip foo 1 accept", "foo: no such field"),
        ("tcp dport 80, 443 accept", "several values stand in braces"),
        ("ct state established,nwe accept", "nwe is not a state of connection tracking"),
        ("jump nowhere", "nowhere: there is no such chain in this table"),
        ("ip saddr @nets accept", "nets: there is no such set in this table"),
        ("jump c", "circle"),
        ("accept drop", "nothing behind a verdict is ever done"),
        ("synproxy mss 70000", "no segment is 70000 octets long"),
        ("synproxy wscale 15", "a window's scale is at most 14"),
        ("synproxy name nobody", "nobody: there is no such object in this table"),
        ("limit rate 0/second accept", "a rate of nothing"),
        ("limit rate 5/fortnight accept", "fortnight is no time"),
        ("log prefix \"never closed", "this quotation mark is never closed"),
        ("ip saddr $nets accept", "$nets is not defined"),
        ("iifname averyveryverylongname accept", "at most 15 letters"),
        ("queue num 3", "queue is not supported"),
        ("meta skuid 1000 accept", "asks for a socket"),
        ("ether saddr 00:11:22:33:44:55 accept", "ether is not supported"),
        ("numgen inc mod 0 vmap { 0 : accept }", "nothing is below 0"),
        ("counter name \"seen\"", "there is no such object"),
        ("reject with icmp type nonsense", "nonsense is not an ICMP code"),
        ("ip saddr { 10.0.0.0/8, 10.1.0.0/16 : drop } accept", "`,` or `}`"),
        ("tcp dport vmap { 80 : accept, 80 : drop }", "this key maps to something else already"),
        ("meta hour \"25:00\" accept", "25:00 is not an hour"),
        ("meta hour { \"22:00\"-\"06:00\" } accept", "two elements"),
        ("meta day \"Mon\" accept", "Monday"),
        ("meta day 7 accept", "7 is too large for a day of the week"),
        ("meta time \"2026-02-29\" accept", "2026-02-29 is not a date"),
        ("meta time 1767225600 accept", "a date in quotation marks"),
        ("meta priority \"fast\" accept", "fast is not a class, like 1:10"),
        ("tcp option nonsense exists accept", "nonsense is not an option of TCP"),
        ("tcp option window size 3 accept", "window size: no such field"),
        ("sctp chunk nonsense exists accept", "nonsense is not a chunk of SCTP"),
        ("exthdr ah exists accept", "ah is not an extension header"),
        ("rt nexthop 10.0.0.1 accept", "a packet's route is not asked for by rules"),
        ("tcp checksum set 0", "this cannot be set"),
        ("ip length set 40", "this cannot be set"),
        ("log group 1 level info", "a line with a group has no level"),
        ("log group 70000", "a group is at most 65535"),
        ("meter m { }", "what of the packet becomes the element"),
        ("meter m { ip saddr : 5 }", "limit, quota, counter, ct count, timeout or `}`"),
        ("tcp dport vmap { 1-10 : accept, 5-20 : drop }", "overlaps another"),
    ] {
        let said = rule_diagnostic(wrong);
        assert!(said.contains(words), "{wrong}: {words:?} in\n{said}");
        assert!(said.contains("r.nft:3:") && said.contains("^"), "{wrong}: a place in\n{said}");
    }
}

#[test]
fn table_and_chain_errors_have_expected_messages() {
    for (wrong, words) in [
        ("table bridge b { }", "tables of this family are not for a router"),
        ("table ip t { chain c { type nat hook forward priority 0; }; }", "nat chains have no place in forward"),
        ("table ip t { chain c { type filter hook ingress device lo priority 0; }; }", "ingress belongs to a device"),
        ("table ip t { chain c { type filter hook input priority medium; }; }", "no such priority"),
        ("table ip t { chain c { policy drop; }; }", "only a chain with a hook has a policy"),
        (
            "table ip t { chain c { type filter hook forward priority 0; dnat to 10.0.0.1; }; }",
            "only chains of type nat translate",
        ),
        ("table ip t { set s { elements = { 1.2.3.4 } ; }; }", "elements of which type?"),
        ("table ip t { set s { type colour; }; }", "colour: no such type"),
        ("table ip t { map m { type ipv4_addr; }; }", "`:`"),
        ("table ip t { flowtable f { }; }", "take the short way by themselves"),
        ("table ip t { chain c { accept", "`}`"),
        (
            "table ip t { chain c { type route hook forward priority 0; }; }",
            "chains of type route stand at the hook output",
        ),
        (
            "table ip t { map m { type ipv4_addr : counter; elements = { 1.1.1.1 : \"x\" }; }; }",
            "x: there is no such object",
        ),
        (
            "table ip t { map m { type ipv4_addr : mark; }; chain c { counter name ip saddr map @m; }; }",
            "m maps to a value, and a counter is wanted",
        ),
        (
            "table ip t { map m { type ipv4_addr : quota; }; chain c { meta mark set ip saddr map @m; }; }",
            "m maps to a quota, and a value is wanted",
        ),
        (
            "table ip t { set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 limit rate 1/second }; }; }",
            "a range has no limit",
        ),
        ("tabel ip t { }", "tabel: no such command"),
        ("define x = 1\ndefine x = 2\n", "x is defined already"),
        ("include \"nowhere.nft\"\n", "nothing can be included here"),
        ("add rule ip t c accept\n", "c: there is no such chain"),
    ] {
        let said = diagnostic_text(wrong);
        assert!(said.contains(words), "{wrong}: {words:?} in\n{said}");
    }
}

#[test]
fn several_errors_are_reported_together() {
    let said = diagnostic_text(
        "table ip t {\n\tchain c {\n\t\ttcp dport { 80, 99999 } accept\n\t\taccept\n\t\tip saddr nobody drop\n\t}\n\tchain d {\n\t\tqueue\n\t}\n}\n",
    );
    for place in ["r.nft:3:19:", "r.nft:5:12:", "r.nft:8:3:"] {
        assert!(said.contains(place), "{place} in\n{said}");
    }
}

/// Texts by name.
struct MemoryIncludes(&'static [(&'static str, &'static str)]);

impl IncludeResolver for MemoryIncludes {
    fn resolve(&self, pattern: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        let found: Vec<_> = self.0.iter().filter(|(name, _)| *name == pattern).collect();
        if found.is_empty() {
            return Err("there is no such file".into());
        }
        Ok(found.into_iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }
}

#[test]
fn error_in_included_file_shows_include_site() {
    let texts = MemoryIncludes(&[("inner.nft", "tcp dport 99999 accept\n"), ("round.nft", "include \"round.nft\"\n")]);
    let outer = "table ip t {\n\tchain c {\n\t\tinclude \"inner.nft\"\n\t}\n}\n";
    let refused = parse_with("outer.nft", outer, &texts, &[]).unwrap_err().to_string();
    assert!(
        refused.starts_with("inner.nft:1:11: 99999") && refused.contains("included from outer.nft:3:11"),
        "{refused}"
    );
    let refused = parse_with("round.nft", "include \"round.nft\"\n", &texts, &[]).unwrap_err().to_string();
    assert!(refused.contains("is it a circle?"), "{refused}");
    let defined = [("port".to_owned(), "{ 80, 443 }".to_owned())];
    assert!(parse_with("v.nft", "table ip t { chain c { tcp dport $port accept; }; }", &texts, &defined).is_ok());
}

#[test]
fn nesting_jump_depth_and_token_limits() {
    let deep = "table ip t { chain c { ip saddr ".to_owned() + &"{ ".repeat(100_000);
    assert!(diagnostic_text(&deep).contains("r.nft:1:"));
    for nested in ["jhash ", "numgen inc mod 2 map { 0 : ", "add @s { ip saddr "] {
        assert!(rule_diagnostic(&nested.repeat(100_000)).contains("r.nft:3:"), "{nested}");
    }
    // The kernel lets packets go fifteen chains deep below a base chain, and no further.
    for (depth, taken) in [(15, true), (16, false)] {
        let chains: String = (1..=depth)
            .map(|at| {
                format!(
                    "chain c{at} {{ {} ; }}\n",
                    if at == depth { "accept".to_owned() } else { format!("jump c{}", at + 1) }
                )
            })
            .collect();
        let text = format!("table ip t {{\nchain b {{ type filter hook input priority 0; jump c1; }}\n{chains}}}\n");
        let (tree, sources) = parse_with("deep", &text, &NoIncludes, &[]).unwrap();
        assert_eq!(compile(&tree, &sources).is_ok(), taken, "{depth}");
    }
    let many: String = (0..100_000).map(|at| format!("define a{at} = 1\n")).collect();
    assert!(parse_with("many", &many, &NoIncludes, &[]).is_ok());
    // Each is ten of the one before it.
    let mut growing = "define a0 = 1.1.1.1\n".to_owned();
    for at in 1..20 {
        growing += &format!("define a{at} = {}\n", vec![format!("$a{}", at - 1); 10].join(", "));
    }
    assert!(diagnostic_text(&growing).contains("more than 5000000 words"));
}
