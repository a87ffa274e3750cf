//! Rulesets in the shape that distributions, firewall managers, container engines, hypervisors and routers give them.
//!
//! nft takes each file, and so do we. What we read is what nft reads: nft lists the file and our listing of it alike. The first line of a file says what is
//! special about it: `refused: WORD` (correct nftables that is named as unsupported here), `newer: …` (syntax that nft 1.0.6 does not know), `kernel: …`
//! (this kernel cannot load it).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_engine::Instant;
use keepstate_rules::ast::Query;
use keepstate_rules::{IncludeResolver, ListOptions, RulesetError, compile, parse_with};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The fewest files.
const FILES: usize = 85;

struct RulesetFile {
    name: String,
    text: String,
}

impl RulesetFile {
    fn mark(&self, name: &str) -> Option<&str> {
        let head = self.text.lines().find(|line| line.starts_with("# "))?;
        head.split_once(&format!("{name}: ")).map(|(_, rest)| rest.split(' ').next().unwrap())
    }

    /// Can nft and this kernel say something about it?
    fn nft_loads_it(&self) -> bool {
        self.mark("newer").is_none() && self.mark("kernel").is_none()
    }
}

/// The users and groups that nft finds on every machine of these tests.
struct SystemNames;

impl IncludeResolver for SystemNames {
    fn resolve(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("no file includes another".into())
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        [("daemon", 1), ("mail", 8), ("proxy", 13), ("nobody", 65534)]
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, id)| id)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.user_id(name)
    }
}

fn files() -> Vec<RulesetFile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_world");
    let mut files: Vec<RulesetFile> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| RulesetFile {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            text: std::fs::read_to_string(path).unwrap(),
        })
        .collect();
    files.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(files.len() >= FILES, "{} files", files.len());
    files
}

/// The listing of a ruleset by our own program.
fn our_listing(name: &str, text: &str) -> Result<String, RulesetError> {
    let (tree, sources) = parse_with(name, text, &SystemNames, &[])?;
    let program = compile(&tree, &sources)?;
    let everything = Query::default();
    let mut state = program.start_snapshot(std::slice::from_ref(&everything), Instant(1));
    while program.continue_snapshot(&mut state, 64) == Some(false) {}
    Ok(state.list(&everything, ListOptions::default()).unwrap())
}

/// What `nft list ruleset` says of each text in a namespace of its own, without tables of other families; an error as text. `None` without root.
fn nft_listings(texts: &[String]) -> Option<Vec<String>> {
    let mut script = String::new();
    for (at, text) in texts.iter().enumerate() {
        let _ = write!(script, "nft -f - 2>&1 <<'END_OF_TEXT_{at}'\n{text}\nEND_OF_TEXT_{at}\n");
        script += "for family in ip ip6 inet; do nft list ruleset $family; done; nft flush ruleset; echo @@@@\n";
    }
    let mut shell = Command::new("unshare")
        .args(["-n", "bash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = shell.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = shell.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split("@@@@\n").map(sort_tables).take(texts.len()).collect())
}

/// The elements of sets in order.
fn sort_elements(text: &str) -> String {
    const HEAD: &str = "\telements = { ";
    let mut parts = text.split(HEAD);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (elements, rest) = part.split_once(" }\n").unwrap();
        let mut elements: Vec<&str> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        let _ = write!(out, "{HEAD}{} }}\n{rest}", elements.join(", "));
    }
    out
}

/// Tables and elements in order, without the time that is left to elements.
fn sort_tables(listing: &str) -> String {
    let mut text = String::new();
    let mut parts = listing.split(" expires ");
    text += parts.next().unwrap_or_default();
    for part in parts {
        text += part.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    }
    let text = sort_elements(&text);
    let mut tables: Vec<&str> = text.split_inclusive("\n}\n").collect();
    tables.sort_unstable();
    tables.concat()
}

#[test]
fn each_file_is_taken_or_named_as_unsupported() {
    let mut wrong = Vec::new();
    for file in files() {
        let result = our_listing(&file.name, &file.text);
        match (file.mark("refused"), result) {
            (None, Ok(_)) => (),
            (Some(word), Err(error)) => {
                let named = error.diagnostics.iter().all(|one| one.unsupported);
                if !named || !error.diagnostics.iter().any(|one| one.message.contains(word)) {
                    wrong.push(format!("{}: not named as unsupported, for {word}\n{error}", file.name));
                }
            }
            (Some(_), Ok(_)) => wrong.push(format!("{}: taken", file.name)),
            (None, Err(error)) => wrong.push(format!("{} is refused\n{error}", file.name)),
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn nft_reads_our_listing_as_the_file_and_we_read_its_listing() {
    let files: Vec<RulesetFile> = files().into_iter().filter(RulesetFile::nft_loads_it).collect();
    let texts: Vec<String> = files.iter().map(|file| file.text.clone()).collect();
    let Some(theirs) = nft_listings(&texts) else {
        return keepstate_test_support::report_skipped("comparison with nft needs root and nftables");
    };
    let mut different: Vec<String> = files
        .iter()
        .zip(&theirs)
        .filter(|(_, listing)| listing.contains("Error: "))
        .map(|(file, listing)| format!("nft refuses {}: {listing}", file.name))
        .collect();
    let supported: Vec<(&RulesetFile, &String)> =
        files.iter().zip(&theirs).filter(|(file, _)| file.mark("refused").is_none()).collect();
    // Our listing of the file, and our listing of nft's listing: nft lists both as it lists the file.
    let mut ours = Vec::new();
    for (file, listing) in &supported {
        for (what, text) in [("the file", &file.text), ("nft's listing", listing)] {
            if file.mark("relisted").is_some() && text == *listing {
                continue;
            }
            match our_listing(&file.name, text) {
                Ok(listing) => ours.push((file, what, listing)),
                Err(error) => different.push(format!("{}: {what} is refused\n{error}", file.name)),
            }
        }
    }
    let texts: Vec<String> = ours.iter().map(|(.., listing)| listing.clone()).collect();
    let read_back = nft_listings(&texts).unwrap();
    for ((file, what, listing), read) in ours.iter().zip(read_back) {
        let wanted = theirs.iter().zip(&files).find(|(_, one)| one.name == file.name).unwrap().0;
        if read != *wanted {
            different
                .push(format!("{}: our listing of {what}\n{listing}\nis read as\n{read}\nnot\n{wanted}", file.name));
        }
    }
    assert!(different.is_empty(), "{}\n{}", different.len(), different.join("\n\n"));
}
