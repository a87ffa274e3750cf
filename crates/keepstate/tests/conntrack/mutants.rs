//! The judge judged: Debian's program is equal to itself, and doubles of it that do one thing wrong are found out.
use crate::case_file::{self, Case};
use crate::netns_fixture::DEBIAN;
use crate::{CASES_DIR, Mismatch, can_run, compare};
use std::fs;
use std::path::Path;

#[test]
fn debian_conntrack_matches_itself() {
    if !can_run() {
        return;
    }
    // Some of the cases; all of them with KEEPSTATE_CONNTRACK=/usr/sbin/conntrack, by the test that judges ours.
    let cases: Vec<Case> = case_file::read_all(Path::new(CASES_DIR)).unwrap().into_iter().step_by(8).collect();
    let mut complaints = Vec::new();
    for (case, found) in cases.iter().zip(compare(&cases, Path::new(DEBIAN))) {
        match found {
            None => {}
            Some(Mismatch::Different(how)) => complaints.push(format!("== {}\n{how}", case.name())),
            Some(Mismatch::SetupFailed(why)) => complaints.push(format!("== {}\n{why}", case.name())),
        }
    }
    assert!(complaints.is_empty(), "{} of {} cases\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

/// What a double does instead, where it is found out, and by what.
const MUTANTS: [(&str, &str, &str); 9] = [
    ("exec /usr/sbin/conntrack \"$@\" | sed 1d", "conntrack -L", "standard output"),
    ("/usr/sbin/conntrack \"$@\"; exit 3", "conntrack -L", "exit code"),
    ("exec /usr/sbin/conntrack \"$@\" 2> /dev/null", "conntrack -L", "standard error"),
    ("/usr/sbin/conntrack \"$@\" 2>&1", "conntrack -L", "standard error"),
    ("/usr/sbin/conntrack \"$@\" | sed 's/ 99 src/ 93 src/'", "conntrack -L -p udp", "standard output"),
    ("/usr/sbin/conntrack \"$@\" | sed 's/$/ /'", "conntrack -L", "standard output"),
    ("/usr/sbin/conntrack \"$@\"; /usr/sbin/conntrack -F 2> /dev/null", "conntrack -L", "the table afterwards"),
    ("[ $1 = -D ] && set -- -L -p tcp; /usr/sbin/conntrack \"$@\"", "conntrack -D -p tcp", "the table afterwards"),
    (
        "echo '<conntrack>'; /usr/sbin/conntrack \"$@\" | sed '/^<conntrack>/d'",
        "conntrack -L -o xml",
        "standard output",
    ),
];

#[test]
fn each_mutant_is_detected() {
    if !can_run() {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let script = folder.path().join("double");
    for (double, line, part) in MUTANTS {
        fs::write(&script, format!("#!/bin/sh\n{double}\n")).unwrap();
        match compare(&[case(line, None)], &script).pop() {
            Some(Some(Mismatch::Different(how))) if how.lines().any(|line| line == part) => {}
            Some(Some(Mismatch::Different(how) | Mismatch::SetupFailed(how))) => {
                panic!("{double}: expected {part}\n{how}")
            }
            _ => panic!("{double} was not found out"),
        }
    }
}

#[test]
fn reordered_events_are_detected() {
    if !can_run() {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let script = folder.path().join("double");
    let double = "/usr/sbin/conntrack \"$@\" > events & child=$!; trap 'kill $child' TERM; wait; wait; tac events";
    fs::write(&script, format!("#!/bin/sh\n{double}\n")).unwrap();
    let stir = ["conntrack -D -p tcp", "conntrack -D -p udp"].map(str::to_owned).to_vec();
    let found = compare(&[case("conntrack -E -e DESTROY", Some(stir))], &script).pop().flatten();
    assert!(matches!(found, Some(Mismatch::Different(_))));
}

#[test]
fn failing_set_up_is_not_a_match() {
    if !can_run() {
        return;
    }
    let mut case = case("conntrack -L", None);
    case.set_up.push("conntrack -D -p sctp".to_owned());
    let Some(Some(Mismatch::SetupFailed(why))) = compare(&[case], Path::new(DEBIAN)).pop() else {
        panic!("nobody complained")
    };
    assert!(why.contains("conntrack -D -p sctp"), "{why}");
}

fn case(line: &str, stir: Option<Vec<String>>) -> Case {
    let set_up = [
        "conntrack -I -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 53 -t 100",
        "conntrack -I -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 100 --state ESTABLISHED",
    ];
    Case {
        story: "doubles".to_owned(),
        title: "two entries".to_owned(),
        set_up: set_up.map(str::to_owned).to_vec(),
        stir,
        line: line.to_owned(),
        signal: case_file::TERM.to_owned(),
    }
}
