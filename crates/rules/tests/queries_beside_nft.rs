//! `list`, `get` and `reset`: what is printed is what nft 1.0.6 prints of the kernel's ruleset; what newer nft resets is reset.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test that cannot go on has failed")]

use keepstate_engine::Instant;
use keepstate_rules::{ListOptions, NoIncludes, Program, compile, parse_with};
use std::io::Write;
use std::process::{Command, Stdio};

const RULESET: &str = "\
table ip t {
	counter web { packets 5 bytes 6; }
	counter mail { packets 7 bytes 8; }
	quota most { 100 bytes used 7 bytes; }
	set s { type ipv4_addr; flags timeout; size 100; counter; comment \"hello\"
		elements = { 192.0.2.4 counter packets 3 bytes 4, 192.0.2.5 comment \"x\", 192.0.2.6 timeout 1h }
	}
	set ranges { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 10.0.3.0/24, 10.1.0.0-10.1.0.77, 10.2.0.1 }; }
	set merged { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/24, 10.0.1.0/24 }; }
	set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/24 . 80, 10.0.1.0/24 . 1-100, 10.5.0.1 . 5 }; }
	set rest { type ipv4_addr; elements = { 192.0.2.1, * }; }
	map names { type ipv4_addr : ipv4_addr; elements = { 192.0.2.4 : 10.0.0.1, 192.0.2.5 : 10.0.0.2 }; }
	map verdicts { type ipv4_addr : verdict; elements = { 192.0.2.4 : accept, 192.0.2.5 : jump other }; }
	map objects { type ipv4_addr : counter; elements = { 192.0.2.4 : \"web\" }; }
	set ports { type inet_service; elements = { 22, 80 }; }
	set learned { type ipv4_addr; flags dynamic,timeout; timeout 1m; counter; }
	chain other { }
	chain c {
		counter packets 8 bytes 9
		add @learned { ip saddr }
		meter few { ip saddr limit rate 1/second } accept
	}
}
";

/// Both answer these alike, also with an error.
const ALIKE: [&str; 46] = [
    "get element ip t s { 192.0.2.4 }",
    "get element t s { 192.0.2.4, 192.0.2.5 }",
    "get element t s { 192.0.2.5, 192.0.2.4, 192.0.2.4 }",
    "get element t s { 192.0.2.6 }",
    "get element t s { 192.0.2.9 }",
    "get element t s { 192.0.2.4, 192.0.2.9 }",
    "get element t s { 192.0.2.4 timeout 5s }",
    "get element t missing { 192.0.2.4 }",
    "get element missing s { 192.0.2.4 }",
    "get element t ranges { 10.0.0.5 }",
    "get element t ranges { 10.0.0.0/24 }",
    "get element t ranges { 10.0.0.0/25, 10.0.0.9 }",
    "get element t ranges { 10.0.0.1-10.0.0.3 }",
    "get element t ranges { 10.1.0.5, 10.2.0.1 }",
    "get element t ranges { 10.1.0.78 }",
    "get element t ranges { 10.0.0.5-10.0.1.5 }",
    "get element t ranges { 10.0.0.200-10.0.5.5 }",
    "get element t ranges { 0.0.0.0/0 }",
    "get element t merged { 10.0.1.5 }",
    "get element t merged { 10.0.0.0/23 }",
    "get element t pairs { 10.0.0.1 . 80 }",
    "get element t pairs { 10.0.0.0/25 . 80 }",
    "get element t pairs { 10.0.1.1 . 5-7, 10.5.0.1 . 5 }",
    "get element t pairs { 10.0.0.1 . 81 }",
    "get element t rest { 192.0.2.1 }",
    "get element t rest { 192.0.2.2 }",
    "get element t rest { * }",
    "get element t names { 192.0.2.4 }",
    "get element t names { 192.0.2.4 : 10.0.0.9 }",
    "get element t verdicts { 192.0.2.5 }",
    "get element t objects { 192.0.2.4 }",
    "get element t ports { ssh, 80 }",
    "get element t ports { 22-23 }",
    "get element t learned { 192.0.2.1 }",
    "get element t s",
    "get element t s { }",
    "get set t s",
    "list meters",
    "list meter t few",
    "list sets",
    "list chain t c",
    "reset counter t web",
    "list counter t web",
    "reset counters",
    "reset quotas table t",
    "list quotas",
];

fn program() -> Program {
    let (tree, sources) = parse_with("file", RULESET, &NoIncludes, &[]).unwrap();
    compile(&tree, &sources).unwrap()
}

/// What a script prints, as a gateway carries it out.
fn answer(program: &mut Program, script: &str) -> Result<String, String> {
    let update = program.ruleset().prepare_script(("script", script), &NoIncludes, Instant(1));
    let update = update.map_err(|refused| refused.to_string())?;
    let queries = update.queries.clone();
    program.apply(update, Instant(1)).unwrap();
    let mut copy = program.start_snapshot(&queries, Instant(1));
    while program.continue_snapshot(&mut copy, 1) == Some(false) {}
    program.take_counts(&queries, &copy);
    let mut listed = copy.listed_counts(&queries);
    while !program.take_element_counts(&mut listed, 1) {}
    queries.iter().map(|query| copy.list(query, ListOptions::default())).collect()
}

/// Without ends of lines and without the time that is left to elements.
fn words(text: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    while let Some(at) = words.iter().position(|word| *word == "expires") {
        words.drain(at..(at + 2).min(words.len()));
    }
    words.join(" ")
}

#[test]
fn queries_are_answered_as_by_nft() {
    let mut script = format!("nft -f - <<'END'\n{RULESET}\nEND\n");
    for query in ALIKE {
        script += &format!("nft '{query}' 2>/dev/null || echo refused\necho @@@@\n");
    }
    let Some(theirs) = in_namespace(&script) else {
        return keepstate_test_support::report_skipped("nft beside our queries needs root and network namespaces");
    };
    let mut ours = program();
    let mut different = Vec::new();
    for (query, theirs) in ALIKE.iter().zip(theirs.split("@@@@\n")) {
        let ours = answer(&mut ours, query);
        let printed = ours.clone().unwrap_or_else(|_| "refused".to_owned());
        if words(&printed) != words(theirs) {
            different.push(format!("{query}\nours: {ours:?}\nnft: {theirs}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

/// Each after the one before: what sets and meters that rules change look like.
const UPDATED: [&str; 12] = [
    "table ip t {
	set a { type ipv4_addr; flags dynamic; }
	set b { type ipv4_addr; flags timeout; }
	set c { type ipv4_addr; comment \"later\"; }
	set e { comment \"x\"; type ipv4_addr; gc-interval 1m; counter; flags dynamic; timeout 60s; policy memory; }
	set g { type ipv4_addr; flags dynamic; size 70000; }
	set k { quota 500 bytes; typeof ip saddr; flags dynamic, timeout; counter; }
	set z { type ipv4_addr; auto-merge; flags interval; }
	set y { type ipv4_addr; timeout 90s; }
	map m { type ipv4_addr : mark; flags dynamic; }
	chain c {
		add @a { ip saddr }
		update @b { ip saddr timeout 5m }
		add @e { ip saddr }
		update @g { ip saddr }
		ip saddr @c accept
		meter one { ip saddr counter }
		meter two size 70 { ip saddr . tcp dport limit rate 1/second } accept
	}
}",
    "list ruleset",
    "add rule ip t c add @c { ip saddr }",
    "list set ip t c",
    "flush chain ip t c",
    "list sets",
    "list meters",
    "add set ip t later { type ipv4_addr; }; add rule ip t c delete @later { ip saddr }",
    "list set ip t later",
    "add rule ip t c update @m { ip saddr : 0x00000005 }",
    "list map ip t m",
    "list ruleset",
];

#[test]
fn sets_that_rules_change_are_listed_as_by_nft() {
    let mut script = String::new();
    for commands in UPDATED {
        script += &format!("nft -f - 2>&1 <<'END'\n{commands}\nEND\necho @@@@\n");
    }
    let Some(theirs) = in_namespace(&script) else {
        return keepstate_test_support::report_skipped("nft beside our listings needs root and network namespaces");
    };
    let mut ours = Program::default();
    let mut different = Vec::new();
    for (commands, theirs) in UPDATED.iter().zip(theirs.split("@@@@\n")) {
        let ours = answer(&mut ours, commands);
        if words(ours.as_deref().unwrap_or("refused")) != words(theirs) {
            different.push(format!("{commands}\nours: {}\nnft: {theirs}", ours.unwrap_or_else(|error| error)));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

/// What a shell script prints in a network namespace of its own. `None` without permission.
fn in_namespace(script: &str) -> Option<String> {
    let mut shell = Command::new("unshare");
    let mut shell = shell.args(["-n", "bash"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut input = shell.stdin.take().unwrap();
    let script = script.to_owned();
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = shell.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn what_is_reset_is_listed_once_and_begins_again() {
    let mut program = program();
    let mut reset = |script: &str| answer(&mut program, script).unwrap();
    assert!(reset("reset element t s { 192.0.2.4, 192.0.2.4 }").contains("192.0.2.4 counter packets 3 bytes 4,"));
    assert!(reset("get element t s { 192.0.2.4 }").contains("192.0.2.4 counter packets 0 bytes 0 }"));
    assert!(reset("reset rule t c handle 16").contains("counter packets 8 bytes 9"));
    let rules = reset("reset rules chain ip t c");
    assert!(rules.contains("counter packets 0 bytes 0") && rules.contains("add @learned"), "{rules}");
    for (script, says) in [
        ("reset set t nowhere", "nothing named nowhere"),
        ("reset element t s { 192.0.2.77 }", "s does not have the element 192.0.2.77"),
        ("reset element t pairs { 10.9.0.0/16 . 80 }", "pairs does not have the element 10.9.0.0/16 . 80"),
        ("reset rule t c handle 99", "chain c has no rule with handle 99"),
        ("reset rule t d handle 9", "no chain named d"),
        ("reset limits", "cannot reset `limits`"),
        ("reset table t", "cannot reset `table`"),
        ("get element t s { }", "no elements in these braces"),
        ("get element t ports { 1-2 }", "ports has no ranges"),
    ] {
        let refused = answer(&mut program, script).unwrap_err();
        assert!(refused.contains(says), "{script}: {refused}");
    }
    let file = "get element ip t s { 192.0.2.4 }";
    let refused = parse_with("file", file, &NoIncludes, &[]).unwrap_err().to_string();
    assert!(refused.contains("`get` has no place in a ruleset file"), "{refused}");
}

#[test]
fn what_is_counted_while_elements_are_listed_stays_with_them() {
    let text = "table ip t {\n set s { type ipv4_addr; counter; elements = { 192.0.2.1 counter packets 3 bytes 30, 192.0.2.2 counter packets 4 bytes 40 }; }\n}";
    let (tree, sources) = parse_with("file", text, &NoIncludes, &[]).unwrap();
    let mut program = compile(&tree, &sources).unwrap();
    let prepare = |program: &Program, script| program.ruleset().prepare_script(("s", script), &NoIncludes, Instant(1));
    let update = prepare(&program, "reset set ip t s").unwrap();
    let queries = update.queries.clone();
    let mut copy = program.start_snapshot(&queries, Instant(1));
    while program.continue_snapshot(&mut copy, 1) == Some(false) {}
    let mut listed = copy.listed_counts(&queries);
    // The first is taken; then another script makes the set begin at other values, and has it another ruleset.
    assert!(!program.take_element_counts(&mut listed, 1));
    let other = prepare(&program, "add table ip other").unwrap();
    program.apply(other, Instant(1)).unwrap();
    assert!(program.take_element_counts(&mut listed, 1));
    let after = program.list().to_string();
    assert_eq!(after.matches("counter packets 0 bytes 0").count(), 2, "{after}");
}
