//! What users expect of every command: help that ends with examples and fits the screen, a manual page, completion in their shell.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test speaks by panicking, its helpers too")]
mod common;

use clap::CommandFactory;
use common::{keepstate, report_skipped};
use keepstate::cli::Cli;
use std::io::Write;
use std::process::{Command, Stdio};

/// The names of all commands that are shown.
fn commands() -> Vec<String> {
    let shown = Cli::command();
    let shown = shown.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

/// Hands a text to a program; what that says, unless there is no such program.
fn pipe_to_program(program: &str, arguments: &[&str], text: &str) -> Option<(bool, String)> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        report_skipped(&format!("{program} is not installed"));
        return None;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    Some((ended.status.success(), String::from_utf8_lossy(&ended.stderr).into_owned()))
}

#[test]
fn every_help_ends_with_examples_and_fits_the_screen() {
    for command in commands() {
        let help = keepstate(&[&command, "--help"], b"");
        assert_eq!(help.code, Some(0), "{command}: {}", help.err);
        for line in help.out.lines() {
            // The width without a terminal.
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
        let examples = help.out.rfind("\nExamples:\n").unwrap_or_else(|| panic!("{command}: {}", help.out));
        let options = help.out.find("Options:").unwrap_or(0);
        assert!(examples > options, "{command}: examples stand at the end");
        assert!(help.out[examples..].contains(&format!("{command} ")), "{command}");
    }
}

#[test]
fn every_command_has_a_man_page() {
    let directory = tempfile::tempdir().unwrap();
    let ran = keepstate(&["man", "--dir", directory.path().to_str().unwrap()], b"");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""));
    let mut names: Vec<String> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected: Vec<String> = commands().iter().map(|command| format!("keepstate-{command}.1")).collect();
    expected.push("keepstate.1".into());
    expected.sort();
    assert_eq!(names, expected);
    for command in commands() {
        let page = std::fs::read_to_string(directory.path().join(format!("keepstate-{command}.1"))).unwrap();
        for part in [&format!(".TH keepstate-{command} 1"), ".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES"] {
            assert!(page.contains(part), "{command}: no {part}: {page}");
        }
        let printed = keepstate(&["man", &command], b"");
        assert_eq!((printed.code, printed.out.as_str()), (Some(0), page.as_str()));
        if let Some((well, said)) = pipe_to_program("groff", &["-Kutf8", "-ww", "-man", "-Tutf8", "-z"], &page) {
            assert!(well && said.is_empty(), "{command}: {said}");
        }
    }
    let wrong = keepstate(&["man", "nonsense"], b"");
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("there are: doctor"), "{}", wrong.err);
}

#[test]
fn every_shell_completes_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = keepstate(&["completions", shell], b"");
        assert_eq!((script.code, script.err.as_str()), (Some(0), ""), "{shell}");
        for command in commands() {
            assert!(script.out.contains(&command), "{shell}: {command}");
        }
        if ["bash", "zsh", "fish"].contains(&shell)
            && let Some((well, said)) = pipe_to_program(shell, &["-n"], &script.out)
        {
            assert!(well, "{shell}: {said}");
        }
    }
    assert_eq!(keepstate(&["completions", "csh"], b"").code, Some(2));
}

/// The script does in bash what it is for.
#[test]
fn bash_completes_a_command_and_an_option() {
    let script = keepstate(&["completions", "bash"], b"").out;
    let asks = "\nCOMP_WORDS=(keepstate disa); COMP_CWORD=1; _keepstate keepstate disa keepstate; [ \"${COMPREPLY[*]}\" = disable ] || exit 1\n\
                COMP_WORDS=(keepstate disable --po); COMP_CWORD=2; _keepstate keepstate --po disable; [ \"${COMPREPLY[*]}\" = --ports ] || exit 2\n\
                COMP_WORDS=(keepstate conntrack --reply-port-s); COMP_CWORD=2; _keepstate keepstate --reply-port-s conntrack; [ \"${COMPREPLY[*]}\" = --reply-port-src ] || exit 3\n\
                COMP_WORDS=(keepstate conntrack -f ''); COMP_CWORD=3; _keepstate keepstate '' -f; [ \"${COMPREPLY[*]}\" = 'ipv4 ipv6' ] || exit 4\n";
    let (well, said) = pipe_to_program("bash", &["--noprofile", "--norc"], &(script + asks)).unwrap();
    assert!(well, "{said}");
}

/// One text and one exit code, whichever command was to look there.
#[test]
fn unknown_namespace_is_the_same_error_everywhere() {
    let commands: [&[&str]; 7] = [
        &["top", "--once"],
        &["serve"],
        &["doctor"],
        &["disable"],
        &["disable", "--ports", "tcp/1883"],
        &["disable", "--ports", "tcp/1883", "--apply"],
        &["disable", "--remove"],
    ];
    // What is there, and is no namespace, is as unknown.
    for (name, why) in [
        ("no such", "/run/netns/no such cannot be read: No such file or directory (os error 2)"),
        ("/etc/passwd", "/etc/passwd cannot be read: it is the file of no namespace"),
    ] {
        let text =
            format!("keepstate: no network namespace {name:?}: give a name from `ip netns`, or a process id ({why})\n");
        for command in commands {
            let ran = keepstate(&[command, &["--netns", name]].concat(), b"");
            assert_eq!((ran.code, ran.err.as_str(), ran.out.as_str()), (Some(3), text.as_str(), ""), "{command:?}");
        }
    }
}
