//! The list of crates inside the program, by cargo-auditable: scanners read from the binary itself which versions it was made of.
use super::cargo_tool::CargoTool;
use super::tools::{DistFolders, run};
use anyhow::{Context, Result};
use flate2::read::ZlibDecoder;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where the list is: compressed JSON in a section of the ELF file.
const SECTION: &str = ".dep-v0";

/// The cargo that builds programs with their list; without cargo-auditable the ordinary one, which is said loudly.
pub(super) fn cargo(folders: &DistFolders) -> Command {
    match (CargoTool { name: "cargo-auditable", version: "0.7.7" }).program(folders) {
        Ok(program) => {
            let mut cargo = Command::new(program);
            cargo.arg("auditable");
            cargo
        }
        Err(error) => {
            eprintln!("######## SKIPPED: the programs are built without the list of their crates: {error:#}");
            Command::new("cargo")
        }
    }
}

/// The crates that a program says it was made of, without those that only built it, as `NAME VERSION`; none if it has no list.
pub(super) fn crates(folders: &DistFolders, program: &Path) -> Result<BTreeSet<String>> {
    let list = folders.target.join("dist-crates.z");
    fs::write(&list, "")?;
    let mut objcopy = Command::new("objcopy");
    objcopy.arg("--dump-section").arg(format!("{SECTION}={}", list.display())).arg(program).arg("/dev/null");
    // objcopy fails where there is no such section.
    let _ = objcopy.stderr(std::process::Stdio::null());
    let dumped = run(&mut objcopy).is_ok();
    let compressed = fs::read(&list)?;
    fs::remove_file(&list)?;
    if dumped { named(&compressed) } else { Ok(BTreeSet::new()) }
}

fn named(compressed: &[u8]) -> Result<BTreeSet<String>> {
    let document: Value = serde_json::from_reader(ZlibDecoder::new(compressed)).context("the list of crates")?;
    let packages = document.get("packages").and_then(Value::as_array).context("the list of crates has packages")?;
    let text = |package: &Value, name: &str| package.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    // What is not said is "runtime".
    let linked = packages.iter().filter(|package| text(package, "kind") != "build");
    Ok(linked.map(|package| format!("{} {}", text(package, "name"), text(package, "version"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use std::io::Write;

    #[test]
    fn linked_crates_are_named() {
        let text = r#"{"packages":[{"name":"a","version":"1.0.0","source":"local","root":true},{"name":"cc","version":"1.2.3","source":"crates.io","kind":"build"}]}"#;
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        assert_eq!(named(&encoder.finish().unwrap()).unwrap(), BTreeSet::from(["a 1.0.0".to_owned()]));
        assert!(named(b"no list").is_err());
    }
}
