//! The text of the licences of everything that is linked into the program: a static binary carries their code.
use super::tools::{DistFolders, output};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// For each crate its name, version and licence; below, each licence file once, with the crates that have it.
pub(super) fn text(folders: &DistFolders, target: &str) -> Result<String> {
    let document = metadata(folders, target)?;
    let mut list = String::from("keepstate contains code of these crates.\n\n");
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked_crates(&document) {
        let name = name_and_version(package);
        list.push_str(&format!("{name}: {}\n", field(package, "license")));
        let folder = Path::new(field(package, "manifest_path")).parent().unwrap_or(Path::new("."));
        for text in licence_files(folder)? {
            files.entry(text).or_default().push(name.clone());
        }
    }
    for (text, owners) in files {
        list.push_str(&format!("\n{}\n{}\n\n{}\n", "=".repeat(78), owners.join(", "), text.trim_end()));
    }
    Ok(list)
}

/// The crates of others that are linked into the program, as `NAME VERSION`: without macros, which run in the compiler, and what these alone need.
pub(super) fn crates(folders: &DistFolders, target: &str) -> Result<BTreeSet<String>> {
    let mut document = metadata(folders, target)?;
    forget_macros(&mut document);
    Ok(linked_crates(&document).into_iter().map(name_and_version).collect())
}

/// Takes procedural macros out of what packages depend on.
fn forget_macros(document: &mut Value) {
    let packages = document.get("packages").and_then(Value::as_array).into_iter().flatten();
    let is_macro = |package: &&Value| {
        let targets = package.get("targets").and_then(Value::as_array).into_iter().flatten();
        let mut kinds = targets.filter_map(|target| target.get("kind").and_then(Value::as_array)).flatten();
        kinds.any(|kind| kind == "proc-macro")
    };
    let macros: BTreeSet<String> = packages.filter(is_macro).map(|package| field(package, "id").to_owned()).collect();
    let nodes = document.pointer_mut("/resolve/nodes").and_then(Value::as_array_mut).into_iter().flatten();
    for needed in nodes.filter_map(|node| node.get_mut("deps").and_then(Value::as_array_mut)) {
        needed.retain(|dependency| !macros.contains(field(dependency, "pkg")));
    }
}

fn metadata(folders: &DistFolders, target: &str) -> Result<Value> {
    let mut metadata = Command::new("cargo");
    metadata.current_dir(&folders.root);
    metadata.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]);
    serde_json::from_str(&output(&mut metadata)?).context("cargo metadata")
}

/// The packages of others that are linked: the workspace's own have no source.
fn linked_crates(document: &Value) -> Vec<&Value> {
    let linked = linked_packages(document);
    let packages = document.get("packages").and_then(Value::as_array).into_iter().flatten();
    packages
        .filter(|package| {
            linked.contains(field(package, "id")) && package.get("source").is_some_and(|source| !source.is_null())
        })
        .collect()
}

fn field<'a>(package: &'a Value, name: &str) -> &'a str {
    package.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn name_and_version(package: &Value) -> String {
    format!("{} {}", field(package, "name"), field(package, "version"))
}

/// The ids of the packages that `keepstate` links, at any depth: not what only builds or tests it.
fn linked_packages(document: &Value) -> BTreeSet<String> {
    let nodes = document.pointer("/resolve/nodes").and_then(Value::as_array).into_iter().flatten();
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let needs: BTreeMap<String, Vec<String>> = nodes
        .map(|node| {
            let needed = node.get("deps").and_then(Value::as_array).into_iter().flatten().filter(|dependency| {
                let kinds = dependency.get("dep_kinds").and_then(Value::as_array);
                kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.get("kind").is_none_or(Value::is_null)))
            });
            (text(node, "id"), needed.map(|dependency| text(dependency, "pkg")).collect())
        })
        .collect();
    let packages = document.get("packages").and_then(Value::as_array).into_iter().flatten();
    let program = packages.filter(|package| text(package, "name") == "keepstate").map(|package| text(package, "id"));
    let (mut found, mut left) = (BTreeSet::new(), program.collect::<Vec<_>>());
    while let Some(id) = left.pop() {
        if let (true, Some(needed)) = (found.insert(id.clone()), needs.get(&id)) {
            left.extend(needed.iter().cloned());
        }
    }
    found
}

/// The licence files of a crate, and of what it holds a copy of (C sources, some folders deeper).
fn licence_files(folder: &Path) -> Result<BTreeSet<String>> {
    const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];
    const DEPTH: usize = 4;
    let (mut found, mut folders) = (BTreeSet::new(), vec![(folder.to_owned(), 0)]);
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
            if path.is_dir() && depth < DEPTH {
                folders.push((path, depth + 1));
            } else if path.is_file() && NAMES.iter().any(|known| name.starts_with(known)) {
                found.insert(String::from_utf8_lossy(&fs::read(&path)?).into_owned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_of_copied_sources_are_found() {
        let folder = std::env::temp_dir().join(format!("keepstate-licences-{}", std::process::id()));
        fs::create_dir_all(folder.join("c_src/lib/v3")).unwrap();
        for (path, text) in [("LICENSE-MIT", "one"), ("c_src/lib/v3/LICENSE", "other"), ("c_src/lib/code.c", "none")] {
            fs::write(folder.join(path), text).unwrap();
        }
        assert_eq!(licence_files(&folder).unwrap(), ["one", "other"].map(str::to_owned).into());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_what_is_linked_is_named() {
        let dependency = |id: &str, kind: Value| serde_json::json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let document = serde_json::json!({
            "packages": [{"name": "keepstate", "id": "k"}, {"name": "a", "id": "a"}],
            "resolve": {"nodes": [
                {"id": "k", "deps": [dependency("a", Value::Null), dependency("t", "dev".into())]},
                {"id": "a", "deps": [dependency("b", Value::Null), dependency("g", "build".into())]},
                {"id": "b", "deps": []},
            ]},
        });
        let expected: BTreeSet<String> = ["k", "a", "b"].map(str::to_owned).into();
        assert_eq!(linked_packages(&document), expected);
        let mut document = document;
        document["packages"][1]["targets"] = serde_json::json!([{"kind": ["proc-macro"]}]);
        forget_macros(&mut document);
        assert_eq!(linked_packages(&document), BTreeSet::from(["k".to_owned()]), "a macro, and what it alone needs");
    }
}
