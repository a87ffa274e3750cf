//! Scripts of nft's commands on a running ruleset: what they do and what they refuse is the same as in the kernel, and nft reads our listing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test that cannot go on has failed")]

use keepstate_engine::Instant;
use keepstate_rules::ast::Query;
use keepstate_rules::{ListOptions, NoIncludes, Program, RulesetUpdateError, compile, parse_with};
use std::fmt::Write as _;
use std::io::Write;
use std::process::{Command, Stdio};

/// Scripts that are sent one after another, each to the ruleset that the one before has left behind.
const STORIES: [(&str, &[&str]); 8] = [
    (
        "fail2ban",
        &[
            "add table inet f2b-table",
            "add chain inet f2b-table f2b-chain { type filter hook input priority -1 ; }",
            "add set inet f2b-table addr-set-sshd { type ipv4_addr; }",
            "add rule inet f2b-table f2b-chain tcp dport { 22, 2222 } ip saddr @addr-set-sshd reject with icmp type port-unreachable",
            "add element inet f2b-table addr-set-sshd { 192.0.2.7 }",
            "add element inet f2b-table addr-set-sshd { 192.0.2.8 }",
            "add element inet f2b-table addr-set-sshd { 192.0.2.7 }",
            "delete element inet f2b-table addr-set-sshd { 192.0.2.7 }",
            "delete element inet f2b-table addr-set-sshd { 192.0.2.7 }",
            "delete set inet f2b-table addr-set-sshd",
            "flush chain inet f2b-table f2b-chain",
            "delete set inet f2b-table addr-set-sshd",
            "delete chain inet f2b-table f2b-chain",
            "delete table inet f2b-table",
            "delete table inet f2b-table",
        ],
    ),
    (
        "crowdsec",
        &[
            "table ip crowdsec {\n\tset blocked {\n\t\ttype ipv4_addr\n\t\tflags timeout\n\t}\n\tchain input {\n\t\ttype filter hook input priority filter - 10; policy accept;\n\t\tip saddr @blocked drop\n\t}\n}",
            "add element ip crowdsec blocked { 192.0.2.1 timeout 4h, 192.0.2.2 timeout 3h59m }",
            "add element ip crowdsec blocked { 192.0.2.1 timeout 2h }",
            "delete element ip crowdsec blocked { 192.0.2.2 }",
            "create element ip crowdsec blocked { 192.0.2.1 timeout 1h }",
            "flush set ip crowdsec blocked",
            "add element ip crowdsec nothing { 192.0.2.1 }",
        ],
    ),
    (
        "kube-proxy: one transaction, maps of verdicts",
        &[
            "add table ip kube { comment \"rules for services\"; }\n\
             add chain ip kube services\nadd chain ip kube marking\nadd chain ip kube nat-in { type nat hook prerouting priority -100 ; }\n\
             add map ip kube service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; comment \"by address\" ; }\n\
             add chain ip kube service-a\nadd rule ip kube service-a jump marking\nadd rule ip kube marking meta mark set 0x4000\n\
             add rule ip kube services ip daddr . meta l4proto . th dport vmap @service-ips\nadd rule ip kube nat-in jump services\n\
             add element ip kube service-ips { 10.96.0.1 . tcp . 443 : goto service-a }",
            "add chain ip kube service-b\nflush chain ip kube service-b\nadd rule ip kube service-b return\n\
             add element ip kube service-ips { 10.96.0.2 . tcp . 53 : goto service-b , 10.96.0.2 . udp . 53 : goto service-b }",
            "delete chain ip kube service-b",
            "delete element ip kube service-ips { 10.96.0.2 . tcp . 53 }\ndelete element ip kube service-ips { 10.96.0.2 . udp . 53 : goto service-b }\n\
             delete chain ip kube service-b",
            "add element ip kube service-ips { 10.96.0.1 . tcp . 443 : goto marking }",
        ],
    ),
    (
        "rules by place",
        &[
            "table ip t {\n\tchain c {\n\t\ttcp dport 1 accept\n\t\ttcp dport 2 counter accept\n\t\ttcp dport 3 accept\n\t}\n}",
            "insert rule ip t c tcp dport 4 accept",
            "add rule ip t c index 1 tcp dport 5 accept",
            "insert rule ip t c index 2 tcp dport 6 accept",
            "add rule ip t c handle 3 tcp dport 7 accept",
            "insert rule ip t c position 3 tcp dport 8 accept",
            "replace rule ip t c handle 4 tcp dport 9 counter drop",
            "delete rule ip t c handle 2",
            "delete rule ip t c handle 2",
            "insert rule ip t c index 77 accept",
            "add rule ip t c handle 99 accept",
            "replace rule ip t c handle 99 accept",
            "add rule ip t missing accept",
            "rename chain ip t c d",
            "add rule ip t d tcp dport 10 accept",
            "flush table ip t",
        ],
    ),
    (
        "all or nothing",
        &[
            "table ip t {\n\tset s {\n\t\ttype ipv4_addr\n\t}\n\tchain c {\n\t\tip saddr @s drop\n\t}\n}",
            "add element ip t s { 192.0.2.1, 192.0.2.2 }\nadd rule ip t c accept\ndelete element ip t s { 192.0.2.9 }",
            "flush set ip t s\nadd element ip t s { 192.0.2.3 }\ncreate element ip t s { 192.0.2.3 }",
            "add element ip t s { 192.0.2.1 }\ndelete element ip t s { 192.0.2.1 }\nadd element ip t s { 192.0.2.4 }",
            "flush set ip t s\ncreate element ip t s { 192.0.2.4 }",
            "delete set ip t s",
            "delete chain ip t c\ndelete set ip t s",
            "flush ruleset\nadd table ip t\nadd chain ip t c\nadd rule ip t c jump nowhere",
            "flush ruleset\nadd table ip6 u\nadd chain ip6 u c\nadd rule ip6 u c accept",
        ],
    ),
    (
        "sets with ranges and sizes, maps",
        &[
            "table inet t {\n\tset r {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t}\n\tset m {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\tauto-merge\n\t}\n\
             \tset two {\n\t\ttype inet_service\n\t\tsize 2\n\t}\n\tmap p {\n\t\ttype inet_service : ipv4_addr\n\t}\n}",
            "add element inet t r { 10.0.0.0/8, 192.0.2.1-192.0.2.9 }",
            "add element inet t r { 10.0.0.0/8 }",
            "add element inet t r { 10.1.0.0/16 }",
            "delete element inet t r { 10.1.0.0/16 }",
            "delete element inet t r { 10.0.0.0/8 }",
            "add element inet t m { 10.0.0.0/8 }\nadd element inet t m { 10.1.2.3, 11.0.0.0/8 }",
            "add element inet t two { 1, 2 }",
            "add element inet t two { 3 }",
            "delete element inet t two { 1 }\nadd element inet t two { 3 }",
            "add element inet t p { 80 : 10.0.0.1 }",
            "add element inet t p { 80 : 10.0.0.2 }",
            "delete element inet t p { 80 }\nadd element inet t p { 80 : 10.0.0.2 }",
            "flush map inet t p",
        ],
    ),
    (
        "objects",
        &[
            "table inet t {\n\tcounter web {\n\t\tpackets 5 bytes 600\n\t}\n\tquota most {\n\t\tover 10 mbytes\n\t}\n\tlimit few {\n\t\trate 10/second\n\t}\n\tchain c {\n\t\tcounter name \"web\"\n\t\tquota name \"most\" drop\n\t\tlimit name \"few\" accept\n\t}\n}",
            "add counter inet t web { packets 1 bytes 1 }",
            "create counter inet t web",
            "add counter inet t mail\nadd rule inet t c tcp dport 25 counter name mail",
            "add quota inet t most { over 20 mbytes }",
            "delete counter inet t web",
            "delete counter inet t nothing",
            "flush chain inet t c\ndelete counter inet t web",
        ],
    ),
    (
        "what exists may be added, not created",
        &[
            "add table inet t\nadd table inet t\nadd chain inet t c\nadd chain inet t c\nadd set inet t s { type ipv4_addr; }\nadd set inet t s { type ipv4_addr; }",
            "create table inet t",
            "create chain inet t c",
            "create set inet t s { type ipv4_addr; }",
            "create chain inet t d { type filter hook forward priority 0; policy drop; }",
            "add chain inet t d { policy accept; }",
            "create table inet u",
            "delete set inet t missing",
            "delete chain inet missing c",
            "flush chain inet t missing",
            "flush set inet t missing",
        ],
    ),
];

/// The same, written in files: what programs send to a running ruleset.
fn written_stories() -> Vec<(&'static str, Vec<String>)> {
    let mut stories: Vec<(&str, Vec<String>)> = Vec::new();
    let json = if cfg!(feature = "json") { include_str!("scripts/json.txt") } else { "" };
    for line in include_str!("scripts/live.txt").lines().chain(json.lines()) {
        match (line.strip_prefix("=== "), stories.last_mut()) {
            (Some(name), _) => stories.push((name, vec![String::new()])),
            (None, Some((_, scripts))) if line == "---" => scripts.push(String::new()),
            (None, Some((_, scripts))) if !line.starts_with('#') => {
                let script = scripts.last_mut().unwrap();
                script.push_str(line);
                script.push('\n');
            }
            (None, _) => (),
        }
    }
    stories
}

fn everything() -> Query {
    Query::default()
}

fn listing(program: &Program, handles: bool) -> String {
    let mut state = program.start_snapshot(&[everything()], Instant(1));
    while program.continue_snapshot(&mut state, 1) == Some(false) {}
    state.list(&everything(), ListOptions { handles, ..ListOptions::default() }).unwrap()
}

fn apply(program: &mut Program, script: &str) -> Result<(), String> {
    #[cfg(feature = "json")]
    let from_json = script.starts_with('{').then(|| keepstate_rules::json_to_script(script)).transpose();
    #[cfg(feature = "json")]
    let from_json = from_json.map_err(|refused| refused.to_string())?;
    #[cfg(feature = "json")]
    let script = from_json.as_deref().unwrap_or(script);
    let update = program.ruleset().prepare_script(("script", script), &NoIncludes, Instant(1));
    let update = update.map_err(|refused| refused.to_string())?;
    let queries = update.queries.clone();
    match program.apply(update, Instant(1)) {
        Ok(_) => {
            if queries.iter().any(|query| query.reset) {
                let mut copy = program.start_snapshot(&queries, Instant(1));
                while program.continue_snapshot(&mut copy, 1) == Some(false) {}
                program.take_counts(&queries, &copy);
                let mut listed = copy.listed_counts(&queries);
                while !program.take_element_counts(&mut listed, 1) {}
            }
            Ok(())
        }
        Err(RulesetUpdateError::Outdated) => panic!("nobody else changes it"),
        Err(RulesetUpdateError::Refused(refused)) => Err(refused.to_string()),
    }
}

/// Runs a shell script in a network namespace of its own. `None` without permission.
fn in_namespace(script: &str) -> Option<String> {
    let mut shell = Command::new("unshare");
    shell.args(["-n", "bash"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = shell.spawn().ok()?;
    let mut input = shell.stdin.take().unwrap();
    let script = script.to_owned();
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = shell.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shell_document(command: &str, text: &str) -> String {
    format!("{command} <<'END_OF_TEXT' 2>/tmp/null_$$\n{text}\nEND_OF_TEXT\n").replace("2>/tmp/null_$$", "2>/dev/null")
}

/// Without the time that is left to elements, which passes.
fn without_expiry(text: &str) -> String {
    let mut out = String::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        if word == "expires" {
            let behind = words.next().unwrap_or_default();
            out.push_str(behind.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
            continue;
        }
        let _ = write!(out, "{}{word}", if out.is_empty() { "" } else { " " });
    }
    out
}

/// What has which handle, in order.
fn handles(listing: &str) -> Vec<(String, String)> {
    let mut found: Vec<_> = listing
        .lines()
        .filter_map(|line| line.split_once(" # handle "))
        .map(|(line, handle)| {
            let named = line.trim().strip_suffix(" {").filter(|line| !line.contains('{'));
            (handle.trim().to_owned(), named.unwrap_or("rule").to_owned())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn scripts_do_the_same_as_in_the_kernel() {
    let mut different = Vec::new();
    let stories =
        STORIES.iter().map(|(name, scripts)| (*name, scripts.iter().map(|script| (*script).to_owned()).collect()));
    for (story, scripts) in stories.chain(written_stories()) {
        // The kernel: each script, its result, the handles behind it, and the ruleset.
        let mut commands = String::new();
        for script in &scripts {
            let load = if script.starts_with('{') { "nft -j -f -" } else { "nft -f - >/dev/null" };
            commands += &shell_document(load, script.trim_end());
            commands += "echo \"result $?\"\nnft -a list ruleset\necho ===\nnft list ruleset\necho @@@@\n";
        }
        let Some(theirs) = in_namespace(&commands) else {
            return keepstate_test_support::report_skipped("nft beside our scripts needs root and network namespaces");
        };
        let theirs: Vec<&str> = theirs.split("@@@@\n").collect();
        // We: the same scripts; then nft reads our listings, and lists them.
        let mut program = Program::default();
        let mut results = Vec::new();
        let mut commands = String::new();
        for script in &scripts {
            let result = apply(&mut program, script);
            let ours = listing(&program, true);
            commands += &shell_document("nft -f -", &ours);
            commands += "echo \"loaded $?\"\nnft list ruleset\nnft flush ruleset\necho @@@@\n";
            results.push((result, handles(&ours)));
        }
        let ours = in_namespace(&commands).unwrap();
        let mut refused = false;
        for (((script, (result, our_handles)), ours), theirs) in
            scripts.iter().zip(results).zip(ours.split("@@@@\n")).zip(theirs)
        {
            let (their_result, their_rules) = theirs.split_once('\n').unwrap();
            let (with_handles, their_rules) = their_rules.split_once("===\n").unwrap();
            let (loaded, our_rules) = ours.split_once('\n').unwrap();
            let same = result.is_ok() == (their_result == "result 0") && loaded == "loaded 0";
            // A transaction that fails uses up handles in the kernel.
            refused |= result.is_err();
            let their_handles = handles(with_handles);
            let same = same && (refused || our_handles == their_handles);
            if !same || without_expiry(our_rules) != without_expiry(their_rules) {
                different.push(format!(
                    "{story}: {script}\nours: {result:?}, read by nft: {loaded} {our_handles:?}\n{our_rules}\nnft: {their_result} {their_handles:?}\n{their_rules}"
                ));
                break;
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

#[test]
fn handles_and_state_of_what_a_script_does_not_name_stay() {
    let text = "table ip t {\n\tcounter web {\n\t\tpackets 3 bytes 4\n\t}\n\tchain c {\n\t\tcounter packets 1 bytes 2 accept\n\t\ttcp dport 9 counter packets 5 bytes 6\n\t}\n}";
    let (tree, sources) = parse_with("file", text, &NoIncludes, &[]).unwrap();
    let mut program = compile(&tree, &sources).unwrap();
    apply(&mut program, "insert rule ip t c tcp dport 1 counter drop").unwrap();
    assert_eq!(
        listing(&program, true),
        "table ip t { # handle 1\n\tcounter web { # handle 2\n\t\tpackets 3 bytes 4\n\t}\n\n\tchain c { # handle 1\n\
         \t\ttcp dport 1 counter packets 0 bytes 0 drop # handle 5\n\t\tcounter packets 1 bytes 2 accept # handle 3\n\
         \t\ttcp dport 9 counter packets 5 bytes 6 # handle 4\n\t}\n}\n"
    );
    // A rule that is replaced keeps its handle and counts anew; the others go on.
    apply(&mut program, "replace rule ip t c handle 3 counter accept\ndelete rule ip t c handle 5").unwrap();
    let after = listing(&program, true);
    assert!(
        after.contains(
            "\t\tcounter packets 0 bytes 0 accept # handle 3\n\t\ttcp dport 9 counter packets 5 bytes 6 # handle 4\n"
        ),
        "{after}"
    );
    // What a script refers to by name is reset by name.
    apply(&mut program, "reset counter ip t web").unwrap();
    assert!(listing(&program, false).contains("packets 0 bytes 0\n\t}"));
}

#[test]
fn reload_keeps_what_packets_and_scripts_have_added() {
    let file = "table ip t {\n\tset s {\n\t\ttype ipv4_addr\n\t\tflags timeout\n\t\telements = { 10.0.0.1, 10.0.0.2 }\n\t}\n\tcounter web {\n\t\tpackets 3 bytes 4\n\t}\n\tchain c {\n\t\tip saddr @s drop\n\t}\n}";
    let (tree, sources) = parse_with("file", file, &NoIncludes, &[]).unwrap();
    let mut program = compile(&tree, &sources).unwrap();
    apply(&mut program, "add element ip t s { 10.0.0.9 timeout 1h }\nadd rule ip t c accept\nadd table ip extra\nadd chain ip extra c\nadd rule ip extra c counter packets 7 bytes 7").unwrap();
    let reload = |program: &mut Program, text: &str| {
        let (tree, sources) = parse_with("file", text, &NoIncludes, &[]).unwrap();
        let update = program.ruleset().prepare_reload(tree, &sources, Instant(1)).unwrap();
        program.apply(update, Instant(1)).unwrap();
        listing(program, false)
    };
    // The file names one element less, and its counter begins at another value.
    let changed = file.replace("10.0.0.1, 10.0.0.2", "10.0.0.2").replace("packets 3 bytes 4", "packets 0 bytes 0");
    let after = reload(&mut program, &changed);
    assert!(
        after.contains("10.0.0.2") && after.contains("10.0.0.9 timeout 1h") && !after.contains("10.0.0.1,"),
        "{after}"
    );
    assert!(after.contains("packets 3 bytes 4") && !after.contains("accept"), "{after}");
    assert!(after.starts_with("table ip extra {\n\tchain c {\n\t\tcounter packets 7 bytes 7\n"), "{after}");
    // `flush ruleset` in the file ends what only scripts have made.
    let after = reload(&mut program, &format!("flush ruleset\n{changed}"));
    assert!(!after.contains("extra") && after.contains("10.0.0.9") && after.contains("packets 3 bytes 4"), "{after}");
}

#[test]
fn a_wrong_set_is_one_error() {
    let mut program = Program::default();
    let script = "table ip t {\n\tset s {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.0.0.0/8, 10.1.0.0/16 }\n\t}\n\tchain c {\n\t\tip saddr @s drop\n\t}\n}";
    let refused = apply(&mut program, script).unwrap_err();
    assert!(refused.contains("overlaps") && !refused.contains("no set or map"), "{refused}");
}

#[test]
fn flowtables_are_deleted_unless_a_rule_needs_them() {
    let mut program = Program::default();
    apply(&mut program, "add table ip t\nadd flowtable ip t ft { hook ingress priority 0; devices = { lo }; }\nadd chain ip t c\nadd rule ip t c flow add @ft").unwrap();
    let refused = apply(&mut program, "delete flowtable ip t ft").unwrap_err();
    assert!(refused.contains("ft"), "{refused}");
    apply(&mut program, "flush chain ip t c\ndelete flowtable ip t ft").unwrap();
    let refused = apply(&mut program, "delete flowtable ip t ft").unwrap_err();
    assert!(refused.contains("no flowtable ft"), "{refused}");
}

#[test]
fn an_update_for_an_older_ruleset_is_not_applied() {
    let mut program = Program::default();
    let older = program.ruleset().prepare_script(("script", "add table ip a"), &NoIncludes, Instant(1)).unwrap();
    apply(&mut program, "add table ip b").unwrap();
    assert!(matches!(program.apply(older, Instant(1)), Err(RulesetUpdateError::Outdated)));
    assert_eq!(listing(&program, false), "table ip b {\n}\n");
}
