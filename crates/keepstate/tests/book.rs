//! The book: every command in it is run, or parsed by the program's own parser; every link leads somewhere; the reference is what the program says.
//!
//! A block ```` ```console ```` is run in `book/src/examples`: `$ keepstate …`, then what it prints, where a line `...` is any number of lines and `[..]` any text of a line. The
//! commands of a block ```` ```sh ```` need root or a network and are parsed only.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use clap::{CommandFactory, Parser};
use keepstate::cli::Cli;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../book/src")
}

/// Every page: its path and text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![book()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The blocks of one kind: page and text.
fn blocks(kind: &str) -> Vec<(String, String)> {
    let fence = format!("```{kind}\n");
    let of_page = |(path, text): (PathBuf, String)| -> Vec<(String, String)> {
        let blocks = text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
        blocks.map(|block| (path.file_name().unwrap().to_string_lossy().into_owned(), block)).collect()
    };
    pages().into_iter().flat_map(of_page).collect()
}

/// Is the line as the pattern says?
fn line_matches(pattern: &str, line: &str) -> bool {
    let parts: Vec<&str> = pattern.trim_end().split("[..]").collect();
    let [first, middle @ .., last] = &parts[..] else { return pattern.trim_end() == line.trim_end() };
    let Some(mut rest) = line.trim_end().strip_prefix(first) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Are the lines as the patterns say?
fn lines_match(patterns: &[&str], lines: &[&str]) -> bool {
    match (patterns, lines) {
        ([], []) => true,
        (["...", more @ ..], _) => (0..=lines.len()).any(|skipped| lines_match(more, &lines[skipped..])),
        ([pattern, more @ ..], [line, others @ ..]) => line_matches(pattern, line) && lines_match(more, others),
        _ => false,
    }
}

#[test]
fn patterns_match_what_they_say_and_nothing_else() {
    assert!(line_matches("a [..] c", "a b c") && !line_matches("a [..] c", "a b d") && !line_matches("a", "a b"));
    assert!(lines_match(&["a", "...", "c"], &["a", "b", "b", "c"]) && !lines_match(&["a", "..."], &["b"]));
    assert!(!lines_match(&["a"], &["a", "b"]) && !lines_match(&["a", "b"], &["a"]) && lines_match(&["..."], &[]));
}

#[test]
fn every_command_prints_what_the_page_says() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for (page, block) in blocks("console") {
        for case in block.split("$ ").skip(1) {
            let mut lines = case.trim_end().lines();
            let command = lines.next().unwrap();
            let words: Vec<&str> = command.strip_prefix("keepstate ").unwrap().split_whitespace().collect();
            let expected: Vec<&str> = lines.collect();
            let output = Command::new(env!("CARGO_BIN_EXE_keepstate"))
                .args(&words)
                .current_dir(book().join("examples"))
                .env("COLUMNS", "100")
                .output()
                .unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            let printed_lines: Vec<&str> = printed.lines().collect();
            if !lines_match(&expected, &printed_lines) || printed.is_empty() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                wrong.push(format!("{page}: {command}\n{printed}{said}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 6, "only {count} commands were run");
}

#[test]
fn every_command_that_is_not_run_is_one_that_the_program_takes() {
    let mut count = 0;
    for (page, block) in blocks("sh") {
        for line in block.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let words = line.strip_prefix("sudo ").unwrap_or(line).split_whitespace();
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{page}: {line}: {error}");
            }
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} commands were parsed");
}

#[test]
fn every_link_leads_to_a_file_and_every_page_is_in_the_summary() {
    let pages = pages();
    let mut links = 0;
    for (path, text) in &pages {
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(path.parent().unwrap().join(target).exists(), "{}: {target}", path.display());
            links += 1;
        }
    }
    assert!(links >= 10, "only {links} links were found");
    let summary = fs::read_to_string(book().join("SUMMARY.md")).unwrap();
    for (path, _) in pages.iter().filter(|(path, _)| !path.ends_with("SUMMARY.md")) {
        let name = path.strip_prefix(book()).unwrap().to_string_lossy().into_owned();
        assert!(summary.contains(&format!("({name})")), "{name} is not in SUMMARY.md");
    }
    // Files that the text names in backquotes, of this repository.
    let root = book().join("../..");
    for (path, text) in &pages {
        for name in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.starts_with("packaging/") || name.starts_with("docs/"))
        {
            assert!(root.join(name).exists(), "{}: {name}", path.display());
        }
    }
}

/// Compares a page that is made with the one in the book; with KEEPSTATE_WRITE_BOOK it is written.
fn check_made(name: &str, made: &str) {
    let path = book().join("reference").join(name);
    if std::env::var_os("KEEPSTATE_WRITE_BOOK").is_some() {
        fs::write(&path, made).unwrap();
    }
    let is_current = fs::read_to_string(&path).is_ok_and(|text| text == made);
    assert!(is_current, "{name} is old: KEEPSTATE_WRITE_BOOK=1 cargo test -p keepstate --test book");
}

#[test]
fn the_reference_of_commands_is_what_help_says() {
    let mut text = String::from("# Commands\n\nMade from the program's own help.\n");
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        let output = Command::new(env!("CARGO_BIN_EXE_keepstate")).args([name, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        text += &format!("\n## keepstate {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    }
    check_made("commands.md", &text);
}

#[test]
fn the_reference_of_gateway_toml_is_the_schema() {
    let schema = fs::read_to_string(book().join("../../packaging/gateway.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let mut text = String::from(
        "# gateway.toml\n\nMade from `packaging/gateway.schema.json`. A relative path is relative to the file.\n",
    );
    let flow_log = &schema["$defs"]["FlowLog"]["properties"];
    let tables = [
        ("", &schema["properties"]),
        ("[flow-log]", flow_log),
        ("nat", &schema["$defs"]["NatSettings"]["properties"]),
        ("cluster", &schema["$defs"]["ClusterSettings"]["properties"]),
    ];
    for (table, properties) in tables {
        if !table.is_empty() {
            text += &format!("\n## `[{table}]`\n");
        }
        text += "\n| key | meaning |\n|---|---|\n";
        for (name, property) in properties.as_object().unwrap() {
            let meaning = property["description"].as_str().unwrap().replace('\n', " ").replace('|', "\\|");
            text += &format!("| `{name}` | {meaning} |\n");
        }
    }
    check_made("gateway-file.md", &text);
}
