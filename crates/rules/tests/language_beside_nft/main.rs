//! The language beside nft: what nft takes and lists is taken by our parser, with the same meaning however it is written.
//!
//! Each line of `matches.txt` and `statements.txt` becomes a rule in a chain of its own. nft loads them in a network namespace and lists them back in each of
//! its forms; the listed rule must mean the same as the written one. What we refuse is in `unsupported.txt`, with the reason.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod corpus;
mod meaning;

use corpus::{Section, sections};
use keepstate_rules::{NoIncludes, parse};
use meaning::{chain_meaning, table_meanings, without_counts, without_expiry};
use std::io::Write;
use std::process::{Command, Stdio};

/// The forms in which nft lists a ruleset.
const LIST_FORMS: [&str; 10] = ["", "-a", "-n", "-nn", "-s", "-y", "-p", "-S", "-T", "-u"];

/// What nft lists in other words: it adds or leaves out what the rest of the rule implies, computes constants, names a raw offset, or leaves out a default.
const REWORDED: &[&str] = &[
    "ip saddr & 255.255.255.0 == 192.0.2.0",
    "ip6 saddr & ffff:ffff:: == 2001:db8::",
    "tcp flags & (fin|syn|rst|psh|ack|urg|ecn|cwr) == 0",
    "icmp id 1245",
    "icmp id != 33-45",
    "icmp sequence 22",
    "icmpv6 type { mld-listener-report, mld-listener-done, mld-listener-reduction, mld2-listener-report }",
    "icmpv6 type packet-too-big icmpv6 mtu 1280",
    "icmpv6 id 33-45",
    "icmpv6 sequence 2",
    "igmp type membership-query",
    "igmp type { membership-query, membership-report-v1, membership-report-v2, membership-report-v3, leave-group }",
    "igmp type 0x11",
    "igmp checksum 12345",
    "igmp mrt 10",
    "meta mark xor 0x03 == 0x01",
    "mark xor 0x03 != 0x01",
    "iif { \"lo\" }",
    "ct mark { 1, 2, 0x10-0x20 }",
    "ct original l3proto ipv4",
    "ct reply l3proto ipv6",
    "ct original protocol tcp",
    "ct reply protocol 17",
    "vlan type ip",
    "@th,16,16 53",
    "@th,16,16 { 22, 80 }",
    "@th,0,16 != 53",
    "@th,110,1 1",
    "@nh,0,4 4",
    "@th,16,16 53-60",
    "@th,16,16 . @th,0,16 { 53 . 1024 }",
    // `nft -n` lists `exists` as 1, which is an index where it reads it again.
    "fib saddr . iif oif exists",
    "fib daddr oif exists",
    "log prefix \"in: \" level warn",
    "log level warn",
    "reject with icmpx port-unreachable",
    "reject with icmpx 1",
    "meta mark set meta mark and 0xffff0000 or 0x1",
    "meta mark set meta mark & 0xffff0000 | 0x1234",
    "meta mark set meta mark or 0x1 and 0xf0",
    "@nh,8,2 set 1",
    "@th,16,16 set 53",
    "@ih,0,8 set 0x1",
    // nft lists a window scale of 0 where there is none.
    "tcp dport 80 synproxy sack-perm timestamp mss 1460",
    "meta l4proto tcp dnat ip addr . port to tcp dport map { 80 : 192.0.2.1 . 8080, 443 : 192.0.2.2 . 8443 }",
    "meta l4proto tcp dnat ip to tcp dport map { 80 : 192.0.2.1 . 8080, 443 : 192.0.2.2 . 8443 }",
    "meta l4proto tcp dnat ip6 addr . port to tcp dport map { 80 : 2001:db8::1 . 8080 }",
    "meta l4proto tcp dnat ip addr . port to tcp dport map { 80 : 192.0.2.1 . 8080 }",
];

/// Loads a ruleset into a network namespace and lists it in each form; `None` without root or nft.
fn list_forms(ruleset: &str) -> Option<Vec<(String, String)>> {
    let lists: Vec<String> =
        LIST_FORMS.iter().map(|form| format!("echo '=== {form}'; nft {form} list ruleset")).collect();
    let script = format!("nft -f - && {{ {}; }}", lists.join("; "));
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let input = ruleset.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let written = writer.join().unwrap();
    if message.contains("Operation not permitted") || message.contains("not found") {
        return None;
    }
    assert!(output.status.success() && written.is_ok(), "nft refuses: {message}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let forms = text.split("=== ").skip(1).map(|part| part.split_once('\n').unwrap());
    Some(forms.map(|(form, listing)| (form.to_owned(), listing.to_owned())).collect())
}

fn check_section(section: &Section, failures: &mut Vec<String>) -> bool {
    let mut accepted = Vec::new();
    for rule in &section.rules {
        match chain_meaning(&section.ruleset(&[rule]), "c0") {
            Ok(meaning) => accepted.push((rule, meaning)),
            Err(error) => failures.push(format!("refused: {rule}\n{error}")),
        }
    }
    let rules: Vec<&String> = accepted.iter().map(|(rule, _)| *rule).collect();
    let Some(forms) = list_forms(&section.ruleset(&rules)) else { return false };
    for (form, listing) in forms {
        for (at, (rule, meaning)) in accepted.iter().enumerate() {
            let listed = section.listed_chain(&listing, at);
            match chain_meaning(&section.ruleset(&[&listed]), "c0") {
                Ok(listed_meaning)
                    if listed_meaning == *meaning
                        || without_counts(meaning) == listed_meaning && form == "-s"
                        || REWORDED.contains(&rule.as_str()) => {}
                Ok(listed_meaning) => {
                    failures.push(format!("nft {form} lists `{rule}` as `{listed}`:\n  {meaning}\n  {listed_meaning}"))
                }
                Err(error) => failures.push(format!("nft {form} lists `{rule}`, refused:\n{error}")),
            }
        }
    }
    true
}

#[test]
fn listed_rules_mean_what_was_written() {
    let mut failures = Vec::new();
    for section in sections(&[include_str!("matches.txt"), include_str!("statements.txt")]) {
        if !check_section(&section, &mut failures) {
            return keepstate_test_support::report_skipped("comparison with nft needs root and nftables");
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn listed_tables_mean_what_was_written() {
    let mut failures = Vec::new();
    for text in include_str!("tables.nft").split("\n# ----").skip(1).map(|part| part.split_once('\n').unwrap().1) {
        let written = match table_meanings(text) {
            Ok(written) => written,
            Err(error) => {
                failures.push(format!("refused:\n{error}"));
                continue;
            }
        };
        let Some(forms) = list_forms(text) else {
            return keepstate_test_support::report_skipped("comparison with nft needs root and nftables");
        };
        for (form, listing) in forms {
            match table_meanings(&without_expiry(&listing)) {
                Ok(listed) if listed == written || form == "-s" && listed == without_counts(&written) => (),
                Ok(listed) => failures.push(format!("nft {form} lists\n{text}\nas\n{listing}\n{written}\n{listed}")),
                Err(error) => failures.push(format!("nft {form} lists, refused:\n{error}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn newer_spellings_are_taken() {
    let mut failures = Vec::new();
    for section in sections(&[include_str!("newer.txt")]) {
        for rule in &section.rules {
            if let Err(error) = chain_meaning(&section.ruleset(&[rule]), "c0") {
                failures.push(format!("refused: {rule}\n{error}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} refused:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn unsupported_statements_are_named() {
    let mut wrong = Vec::new();
    for section in sections(&[include_str!("unsupported.txt")]) {
        for rule in &section.rules {
            match parse("r.nft", &section.ruleset(&[rule]), &NoIncludes) {
                Ok(_) => wrong.push(format!("taken: {rule}")),
                Err(error) if error.diagnostics.iter().all(|diagnostic| diagnostic.unsupported) => (),
                Err(error) => wrong.push(format!("not named as unsupported: {rule}\n{error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn documentation_table_is_true() {
    let sections = sections(&["[inet filter forward]\n"]);
    let section = sections.first().unwrap();
    let document = include_str!("../../../../docs/nftables.md");
    let mut rows = 0;
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        // In a table, `|` is written `\|`.
        let (example, rest) = line.trim_start_matches("| `").split_once("` | ").unwrap();
        let rule = example.replace("\\|", "|");
        rows += 1;
        let ruleset = section.ruleset(&[&rule]);
        match (rest.starts_with("taken"), chain_meaning(&ruleset, "c0")) {
            (true, Err(error)) => panic!("not taken: {rule}\n{error}"),
            (false, Ok(_)) => panic!("taken: {rule}"),
            (true, Ok(_)) => (),
            (false, Err(_)) => {
                let error = parse("r.nft", &ruleset, &NoIncludes).unwrap_err();
                assert!(
                    error.diagnostics.iter().all(|one| one.unsupported),
                    "not named as unsupported: {rule}\n{error}"
                );
            }
        }
    }
    assert!(rows > 50, "{rows} rows");
}
