//! Rulesets as JSON, beside `nft -j`: our document says what nft's says of the same ruleset, nft reads ours, and we read nft's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_engine::Instant;
use keepstate_rules::ast::Query;
use keepstate_rules::{IncludeResolver, ListOptions, Program, compile, json_to_script, parse_with};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The files whose document in nft's words differs, and why. Each is read back nevertheless.
const REWORDED: [(&str, &str); 6] = [
    (
        "real_world/json-forms.nft",
        "nft 1.0.6 writes `add @map` as text, and leaves out the family of a connection's address",
    ),
    ("real_world/inet-ingress.nft", "nft 1.0.6 leaves out the device of the chain"),
    ("rulesets/kubernetes-iptables.nft", "a number below 1 is 0"),
    ("rulesets/link-types.nft", "marks below a prefix are a range, no flag below the first is 0"),
    ("rulesets/prefixes.nft", "a prefix of 32 bits is an address"),
    ("rulesets/learning.nft", "nft 1.0.6 writes `add @map` as text"),
];

/// The files whose documents cannot be read, and why.
const NOT_READ: [(&str, &str); 5] = [
    ("real_world/inet-ingress.nft", "nft 1.0.6 leaves out the device of the chain, and does not read that itself"),
    (
        "rulesets/carrier-nat.nft",
        "nft lists a range of addresses before a port as a prefix, and does not read that itself",
    ),
    ("real_world/overlapping-zones.nft", "nft calls the type of a zone `integer`, and does not read that itself"),
    ("rulesets/balancer-pairs.nft", "the same, of numgen"),
    ("rulesets/learning.nft", "`add @map` as text"),
];

/// The users that nft finds on every machine of these tests.
struct SystemNames;

impl IncludeResolver for SystemNames {
    fn resolve(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("no file includes another".into())
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        let known = [("daemon", 1), ("mail", 8), ("proxy", 13), ("nobody", 65534)];
        known.into_iter().find(|(known, _)| *known == name).map(|(_, id)| id)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.user_id(name)
    }
}

fn everything() -> Query {
    Query::default()
}

fn program(text: &str) -> Result<Program, String> {
    let (tree, sources) = parse_with("t.nft", text, &SystemNames, &[]).map_err(|error| error.to_string())?;
    compile(&tree, &sources).map_err(|error| error.to_string())
}

fn our_json(program: &Program) -> String {
    let mut state = program.start_snapshot(std::slice::from_ref(&everything()), Instant(1));
    while program.continue_snapshot(&mut state, 64) == Some(false) {}
    state.list_json(&[everything()], ListOptions::default()).unwrap()
}

/// Rulesets that nft and this kernel load: the files, by name.
fn rulesets() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut found = BTreeMap::new();
    for part in ["real_world", "rulesets"] {
        for entry in std::fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let head = text.lines().find(|line| line.starts_with("# ")).unwrap_or_default().to_owned();
            if !["newer: ", "kernel: ", "refused: ", "relisted: "].iter().any(|mark| head.contains(mark)) {
                found.insert(format!("{part}/{}", path.file_name().unwrap().to_string_lossy()), text);
            }
        }
    }
    found
}

/// What nft prints after it has read each text with `load`, in a namespace of its own: `list ruleset` with `-j` or without. `None` without root.
fn nft(load: &str, texts: &[&str], list: &str) -> Option<Vec<String>> {
    let mut script = String::new();
    for (at, text) in texts.iter().enumerate() {
        let _ = write!(script, "nft {load} -f - 2>&1 <<'END_OF_TEXT_{at}'\n{text}\nEND_OF_TEXT_{at}\n");
        let _ = writeln!(
            script,
            "for family in ip ip6 inet; do {list} list ruleset $family; done; nft flush ruleset; echo @@@@"
        );
    }
    let mut shell = Command::new("unshare")
        .args(["-n", "bash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = shell.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = shell.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.split("@@@@\n").take(texts.len()).map(str::to_owned).collect())
}

/// The objects of one or several documents, in order, without what is no part of a ruleset's meaning.
fn objects(documents: &str) -> Vec<String> {
    let mut found = Vec::new();
    for document in documents.lines().filter(|line| !line.is_empty()) {
        let Ok(document) = serde_json::from_str::<Value>(document) else { return vec![documents.to_owned()] };
        for object in document["nftables"].as_array().unwrap() {
            if object.get("metainfo").is_none() {
                found.push(normalized(object.clone()).to_string());
            }
        }
    }
    found.sort();
    found
}

/// Without handles and what nft 1.0.6 does not list; elements in order.
fn normalized(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("handle");
            fields.remove("auto-merge");
            fields.remove("expires");
            for inside in fields.values_mut() {
                *inside = normalized(inside.take());
            }
            for list in ["set", "elem"] {
                if let Some(Value::Array(elements)) = fields.get_mut(list) {
                    elements.sort_by_key(Value::to_string);
                }
            }
            // nft names no table flag and not that packets change a set; of one set it may say a word, not a list.
            if let Some(Value::Array(flags)) = fields.get_mut("flags") {
                flags.retain(|flag| flag != "dynamic");
                flags.sort_by_key(Value::to_string);
                if flags.is_empty() {
                    fields.remove("flags");
                }
            }
            // nft 1.0.6 does not list the comments of chains.
            if let Some(Value::Object(chain)) = fields.get_mut("chain") {
                chain.remove("comment");
            }
            // Interface 0 is none.
            if fields.get("left").is_some_and(|left| left["fib"]["result"] == "oif")
                && fields.get("right").is_some_and(|right| right == "0")
            {
                fields.insert("right".into(), false.into());
            }
            if let Some(Value::Object(table)) = fields.get_mut("table") {
                table.remove("flags");
                table.remove("comment");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|inside| *inside = normalized(inside.take())),
        _ => (),
    }
    value
}

#[test]
fn documents_say_what_nft_says_and_are_read_back() {
    let rulesets = rulesets();
    let names: Vec<&str> = rulesets.keys().map(String::as_str).collect();
    let texts: Vec<&str> = rulesets.values().map(String::as_str).collect();
    let Some(theirs) = nft("", &texts, "nft -j") else {
        return keepstate_test_support::report_skipped("comparison with nft needs root and nftables");
    };
    let listings = nft("", &texts, "nft").unwrap();
    let mut wrong = Vec::new();
    let (mut from_ours, mut from_theirs) = (Vec::new(), Vec::new());
    for ((name, listing), their_documents) in names.iter().zip(&listings).zip(&theirs) {
        let name = *name;
        // nft's own listing of the file: it has put in, left out and reordered what the rules imply.
        let program = program(listing).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ours = our_json(&program);
        let (our_objects, their_objects) = (objects(&ours), objects(their_documents));
        if !REWORDED.iter().any(|(known, _)| *known == name) {
            let missing = their_objects.iter().filter(|one| !our_objects.contains(one));
            let more = our_objects.iter().filter(|one| !their_objects.contains(one));
            for (who, one) in missing.map(|one| ("nft", one)).chain(more.map(|one| ("we", one))) {
                wrong.push(format!("{name}: only {who}: {one}"));
            }
        }
        // We read our own document and nft's.
        if NOT_READ.iter().any(|(known, _)| *known == name) {
            from_ours.push(String::new());
            from_theirs.push(String::new());
            continue;
        }
        let merged: Vec<Value> = their_documents
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .flat_map(|document| document["nftables"].as_array().cloned().unwrap_or_default())
            .collect();
        for (who, document, into) in
            [("our", ours, &mut from_ours), ("nft's", json!({ "nftables": merged }).to_string(), &mut from_theirs)]
        {
            match json_to_script(&document).map_err(|error| error.to_string()).and_then(|script| {
                self::program(&script)
                    .map(|program| program.list().to_string())
                    .map_err(|error| format!("{error}\n{script}"))
            }) {
                Ok(listing) => into.push(listing),
                Err(error) => {
                    wrong.push(format!("{name}: {who} document is refused: {error}"));
                    into.push(String::new());
                }
            }
        }
    }
    // nft lists what we have read as it lists the file.
    for (who, read) in [("our", from_ours), ("nft's", from_theirs)] {
        let read: Vec<&str> = read.iter().map(String::as_str).collect();
        for (((name, listing), again), ours) in
            names.iter().zip(&listings).zip(nft("", &read, "nft").unwrap()).zip(&read)
        {
            if sorted(&again) != sorted(listing) && !ours.is_empty() && !REWORDED.iter().any(|(known, _)| known == name)
            {
                wrong.push(format!("{name}: {who} document is read as\n{again}\nnot\n{listing}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

/// The lines of a listing that have a meaning, in order.
fn sorted(listing: &str) -> Vec<String> {
    let mut lines: Vec<String> = listing
        .replace(",\n", ",")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").replace(" oif 0", " oif missing"))
        .map(|line| match line.split_once("elements = { ") {
            Some((_, elements)) => {
                let mut parts: Vec<String> = elements.trim_end_matches(" }").split(',').map(without_times).collect();
                parts.sort();
                parts.join(", ")
            }
            None => line,
        })
        // A set by its type is the same as by what has the type; nft's documents tell neither comments of tables nor `dynamic`.
        .filter(|line| {
            !line.is_empty()
                && !["typeof ", "type ", "comment ", "flags ", "auto-merge"].iter().any(|head| line.starts_with(head))
        })
        .collect();
    lines.sort();
    lines
}

/// Time passes between a document and its listing.
fn without_times(element: &str) -> String {
    let mut words: Vec<&str> = element.split_whitespace().collect();
    while let Some(at) = words.iter().position(|word| matches!(*word, "timeout" | "expires")) {
        words.drain(at..(at + 2).min(words.len()));
    }
    words.join(" ")
}
