//! Error messages, word for word: place, marked text, and hint. Where the syntax itself is broken, nft refuses the ruleset too.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_rules::{IncludeResolver, NoIncludes, compile, parse_with};

/// The error messages for a text; panics if it is accepted.
fn diagnostic_text(text: &str) -> String {
    match parse_with("r.nft", text, &NoIncludes, &[]) {
        Err(error) => error.to_string(),
        Ok((tree, sources)) => match compile(&tree, &sources) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("accepted: {text}"),
        },
    }
}

/// The error messages for a rule.
fn rule_diagnostic(rule: &str) -> String {
    diagnostic_text(&format!("table inet t {{\n\tchain c {{\n\t\t{rule}\n\t}}\n}}\n"))
}

#[test]
fn diagnostic_underlines_span_and_shows_help() {
    assert_eq!(
        rule_diagnostic("tcp dport ssh acept"),
        "r.nft:3:17: expected a match, a statement or a verdict, found `acept`\n\
         3 | \t\ttcp dport ssh acept\n  | \t\t              ^^^^^\n  = help: did you mean `accept`?\n"
    );
    assert_eq!(
        rule_diagnostic("ip saddr www.example.org accept"),
        "r.nft:3:12: `www.example.org` is not an IPv4 address\n\
         3 | \t\tip saddr www.example.org accept\n  | \t\t         ^^^^^^^^^^^^^^^\n  = help: write a numeric address: host names are not resolved\n"
    );
    assert_eq!(
        rule_diagnostic("ct saddr 10.0.0.1 accept"),
        "r.nft:3:3: ct saddr needs a direction\n\
         3 | \t\tct saddr 10.0.0.1 accept\n  | \t\t^^^^^^^^\n  = help: use `ct original saddr` or `ct reply saddr`\n"
    );
}

#[test]
fn rule_errors_have_expected_messages() {
    for (rule, words) in [
        ("tcp dport 70000 accept", "3:13: 70000 is too large for a port"),
        ("tcp dport 80-22 accept", "the end of the range is before its start"),
        ("ip saddr 10.0.0.0/33 accept", "prefix length /33 is too large"),
        ("ip saddr 10.0.0.256 accept", "invalid IPv4 address 10.0.0.256"),
        ("ip saddr fe80::1 accept", "expected an IPv4 address, found `fe80::1`"),
        ("ip foo 1 accept", "ip has no field `foo`"),
        ("tcp dport 80, 443 accept", "write several values in braces"),
        ("ct state established,nwe accept", "`nwe` is not a ct state"),
        ("jump nowhere", "no chain named nowhere in this table"),
        ("ip saddr @nets accept", "no set or map named nets in this table"),
        ("accept drop", "statements after a verdict are never reached"),
        ("synproxy mss 70000", "an MSS is at most 65535, not 70000"),
        ("synproxy wscale 15", "a window scale is at most 14"),
        ("synproxy name nobody", "no object named nobody of this type in this table"),
        ("limit rate 0/second accept", "the rate must be at least 1"),
        ("limit rate 5/fortnight accept", "unknown rate period `fortnight`"),
        ("log prefix \"never closed", "unterminated string"),
        ("ip saddr $nets accept", "undefined variable $nets"),
        ("iifname averyveryverylongname accept", "at most 15 bytes"),
        ("fwd to eth0", "`fwd` is not supported"),
        ("meta skuid nobody-here accept", "`nobody-here` is not a user id"),
        ("meta mark set meta mark << ct mark", "is not a number"),
        ("((((((((((((((((((((((((((((((((((meta mark", "nested more than 32 deep"),
        ("flow add @nobody", "no flowtable named nobody in this table"),
        ("ether vlan 5 accept", "ether has no field `vlan`"),
        ("numgen inc mod 0 vmap { 0 : accept }", "the modulus must be at least 1"),
        ("counter name \"seen\"", "no object named seen of this type in this table"),
        ("reject with icmp type nonsense", "`nonsense` is not an ICMP code"),
        ("ip saddr { 10.0.0.0/8, 10.1.0.0/16 : drop } accept", "`,` or `}`"),
        ("tcp dport vmap { 80 : accept, 80 : drop }", "this key already maps to another value"),
        ("meta hour \"25:00\" accept", "`25:00` is not a time of day"),
        ("meta hour { \"22:00\"-\"06:00\" } accept", "write two elements"),
        ("meta day \"Mon\" accept", "Monday"),
        ("meta day 7 accept", "7 is too large for a day of the week"),
        ("meta time \"2026-02-29\" accept", "`2026-02-29` is not a date"),
        ("meta time 99999999999 accept", "99999999999 is too large for a date"),
        ("meta priority \"fast\" accept", "`fast` is not a traffic class like 1:10"),
        ("tcp option nonsense exists accept", "`nonsense` is not a TCP option"),
        ("tcp option window size 3 accept", "window has no field `size`"),
        ("sctp chunk nonsense exists accept", "`nonsense` is not an SCTP chunk"),
        ("exthdr ah exists accept", "`ah` is not an IPv6 extension header"),
        ("rt2 addr 1 accept", "`rt2` is not supported"),
        ("tcp option window count set 5", "this field cannot be set"),
        ("frag id set 5", "this field cannot be set"),
        ("log group 1 level info", "log group and log level exclude each other"),
        ("log group 70000", "a log group is at most 65535"),
        ("log group 1 flags all", "log group and log flags exclude each other"),
        ("log flags tcp window", "unknown flag `tcp window` of log"),
        ("log flags nonsense", "use tcp sequence, tcp options, ip options, skuid, ether or all"),
        ("meter m { }", "expected a key, like `ip saddr`, found `}`"),
        ("meter m { ip saddr : 5 }", "limit, quota, counter, ct count, timeout or `}`"),
        ("tcp dport vmap { 1-10 : accept, 5-20 : drop }", "overlaps another element"),
    ] {
        let message = rule_diagnostic(rule);
        assert!(message.contains(words), "{rule}: {words:?} in\n{message}");
        assert!(message.contains("r.nft:3:") && message.contains("^"), "{rule}: a place in\n{message}");
    }
}

#[test]
fn table_and_chain_errors_have_expected_messages() {
    for (rule, words) in [
        (
            "table ip t { chain c { type nat hook forward priority 0; }; }",
            "chains of type nat are not possible at hook forward",
        ),
        ("table inet t { chain c { type filter hook egress device lo priority 0; }; }", "hook egress is not supported"),
        ("table ip t { chain c { type filter hook input priority medium; }; }", "unknown priority `medium`"),
        ("table ip t { chain c { policy drop; }; }", "a chain without a hook has no policy"),
        (
            "table ip t { chain c { type filter hook forward priority 0; dnat to 10.0.0.1; }; }",
            "NAT statements are only possible in chains of type nat",
        ),
        ("table ip t { set s { elements = { 1.2.3.4 } ; }; }", "elements need a type"),
        ("table ip t { set s { type colour; }; }", "unknown type `colour`"),
        ("table ip t { map m { type ipv4_addr; }; }", "`:`"),
        ("table ip t { flowtable f { offload; }; }", "unknown flowtable property `offload`"),
        ("table ip t { flags asleep; }", "unknown table flag `asleep`"),
        ("table ip t { chain c { accept", "`}`"),
        (
            "table ip t { chain c { type route hook forward priority 0; }; }",
            "chains of type route are only possible at hook output",
        ),
        (
            "table ip t { map m { type ipv4_addr : counter; elements = { 1.1.1.1 : \"x\" }; }; }",
            "no object named x of this type in this table",
        ),
        (
            "table ip t { map m { type ipv4_addr : mark; }; chain c { counter name ip saddr map @m; }; }",
            "m maps to a value, the rule needs a counter",
        ),
        (
            "table ip t { map m { type ipv4_addr : quota; }; chain c { meta mark set ip saddr map @m; }; }",
            "m maps to a quota, the rule needs a value",
        ),
        ("table ip t { chain c { jump c; }; chain b { type filter hook input priority 0; jump c; }; }", "loop"),
        ("tabel ip t { }", "unknown command `tabel`"),
        ("define x = 1\ndefine x = 2\n", "variable x is already defined"),
        ("include \"nowhere.nft\"\n", "cannot include nowhere.nft: include is not available here"),
        ("add rule ip t c accept\n", "no chain named c"),
    ] {
        let message = diagnostic_text(rule);
        assert!(message.contains(words), "{rule}: {words:?} in\n{message}");
    }
}

#[test]
fn several_errors_are_reported_together() {
    let message = diagnostic_text(
        "table ip t {\n\tchain c {\n\t\ttcp dport { 80, 99999 } accept\n\t\taccept\n\t\tip saddr nobody drop\n\t}\n\tchain d {\n\t\tfwd\n\t}\n}\n",
    );
    for place in ["r.nft:3:19:", "r.nft:5:12:", "r.nft:8:3:"] {
        assert!(message.contains(place), "{place} in\n{message}");
    }
}

/// Includes by name.
struct MemoryIncludes(&'static [(&'static str, &'static str)]);

impl IncludeResolver for MemoryIncludes {
    fn resolve(&self, pattern: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        let found: Vec<_> = self.0.iter().filter(|(name, _)| *name == pattern).collect();
        if found.is_empty() {
            return Err("no such file".into());
        }
        Ok(found.into_iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }
}

#[test]
fn error_in_included_file_shows_include_site() {
    let texts = MemoryIncludes(&[("inner.nft", "tcp dport 99999 accept\n"), ("round.nft", "include \"round.nft\"\n")]);
    let outer = "table ip t {\n\tchain c {\n\t\tinclude \"inner.nft\"\n\t}\n}\n";
    let error = parse_with("outer.nft", outer, &texts, &[]).unwrap_err().to_string();
    assert!(error.starts_with("inner.nft:1:11: 99999") && error.contains("included from outer.nft:3:11"), "{error}");
    let error = parse_with("round.nft", "include \"round.nft\"\n", &texts, &[]).unwrap_err().to_string();
    assert!(error.contains("does a file include itself?"), "{error}");
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
    // The kernel allows jumps fifteen levels deep below a base chain, and no deeper.
    for (depth, accepted) in [(15, true), (16, false)] {
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
        assert_eq!(compile(&tree, &sources).is_ok(), accepted, "{depth}");
    }
    let many: String = (0..100_000).map(|at| format!("define a{at} = 1\n")).collect();
    assert!(parse_with("many", &many, &NoIncludes, &[]).is_ok());
    // Each variable is ten times the one before it.
    let mut growing = "define a0 = 1.1.1.1\n".to_owned();
    for at in 1..20 {
        growing += &format!("define a{at} = {}\n", vec![format!("$a{}", at - 1); 10].join(", "));
    }
    assert!(diagnostic_text(&growing).contains("more than 5000000 tokens"));
}

/// A ruleset in one line, as programs write it: the part around the error is enough.
#[test]
fn of_a_long_line_the_part_around_the_error_is_shown() {
    let rules = "ip saddr 192.0.2.1 accept; ".repeat(100);
    let text = format!("table ip t {{ chain c {{ {rules} tcp dport ssh acept; {rules} }}; }}");
    let error = diagnostic_text(&text);
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() < 280), "{error}");
    let (line, marks) = (lines[1], lines[2]);
    let (start, length) = (marks.find('^').unwrap(), marks.matches('^').count());
    let marked: String = line.chars().skip(start).take(length).collect();
    assert_eq!(marked, "acept", "{error}");
    assert!(line.contains("… ") && line.ends_with(" …"), "{error}");
}
