//! `keepstate collect`, and what `doctor --from` makes of it on another machine.
use crate::common::keepstate;
use crate::netns_fixture::{Connections, DoctorOutput, NetnsFixture, send_datagrams, unreachable};
use std::fs;
use std::path::Path;

/// Every file below a directory, as text.
fn read_texts(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_texts(&path, found);
        } else {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn collect(arguments: &[&str]) {
    let ran = keepstate(&[&["collect", "--interval", "50ms"], arguments].concat(), b"");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

#[test]
fn directory_and_archive_give_the_live_findings() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft(
        "table inet filter { chain in { type filter hook input priority 0; ct state established,related accept; }; }",
    );
    let held = bed.enter(|| {
        send_datagrams(unreachable(53), 40);
        Connections::open(21, 3)
    });
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    collect(&["-o", &path("directory")]);
    collect(&["-o", &path("packed.tar.gz"), "--redact"]);
    let live = DoctorOutput::run(&["doctor", "--interval", "0", "--json"]);
    assert_eq!(live.first_finding_in(&bed.name), Some("helper-not-assigned"));
    for name in ["directory", "packed.tar.gz"] {
        let said = DoctorOutput::run(&["doctor", "--json", "--from", &path(name)]);
        assert_eq!(said.first_finding_in(&bed.name), Some("helper-not-assigned"), "{name}");
        let spaces = said.document["namespaces"].as_array().unwrap();
        let ours = spaces.iter().find(|space| space["name"] == *bed.name).unwrap();
        assert_eq!((ours["sampled"].as_u64(), ours["initial"].as_bool()), (Some(43), Some(false)), "{name}");
        assert!(ours["growth"]["over_ms"].as_u64().unwrap() >= 50, "{name}");
    }
    // Nothing is left beside them.
    let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["directory", "packed.tar.gz"]);
    drop(held);
}

#[test]
fn pseudonyms_are_consistent_and_reveal_nothing() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft(
        "table ip nat { chain out { type nat hook output priority -100; udp dport 5399 dnat to 10.9.1.77:5399; }; }",
    );
    bed.enter(|| send_datagrams(unreachable(53), 25));
    let place = tempfile::tempdir().unwrap();
    let plain = place.path().join("plain");
    let redacted = place.path().join("redacted");
    collect(&["-o", plain.to_str().unwrap()]);
    collect(&["-o", redacted.to_str().unwrap(), "--redact"]);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    read_texts(&plain, &mut before);
    read_texts(&redacted, &mut after);
    for secret in ["10.9.0.1", "10.9.1.1", "10.9.1.77"] {
        let tells = |(_, text): &&(String, String)| {
            text.split(|letter: char| !letter.is_ascii_digit() && letter != '.').any(|word| word == secret)
        };
        assert!(before.iter().any(|file| tells(&file)), "{secret} is to be seen in the plain bundle");
        assert_eq!(after.iter().find(tells), None, "{secret}");
    }
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(redacted.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((manifest["schema"].as_str(), manifest["redacted"].as_bool()), (Some("keepstate.bundle/1"), Some(true)));
}

/// A process that looks like kube-proxy's to whoever reads its command line; it ends with its standard input.
struct LikeKubeProxy {
    process: std::process::Child,
    _place: tempfile::TempDir,
}

impl LikeKubeProxy {
    fn start(arguments: &[&str]) -> LikeKubeProxy {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("kube-proxy");
        fs::write(&program, "#!/bin/sh\necho started\nread end\n").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let piped = std::process::Stdio::piped;
        let mut command = std::process::Command::new(&program);
        let mut child = command.args(arguments).stdin(piped()).stdout(piped()).spawn().unwrap();
        let mut line = [0; 8];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        LikeKubeProxy { process: child, _place: place }
    }
}

impl Drop for LikeKubeProxy {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[test]
fn one_of_each_class_is_replaced_everywhere_in_a_bundle() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    // A namespace, and so a line of the manifest, whose name holds an address.
    let named = format!("ip-10-66-77-88-{}", std::process::id());
    assert!(crate::netns_fixture::run(&["ip", "netns", "add", &named]));
    let process = LikeKubeProxy::start(&["--token=hunter2", "--hostname-override=node-10-66-77-5.ec2.internal"]);
    bed.nft(
        "table inet redact { chain c { ip daddr 10.66.77.5 ether saddr 52:54:00:aa:bb:cc counter comment \"ip-10-66-77-5 and 2001-db8-7--5\"\n\
         ip6 daddr 2001:db8:7::5 counter\n}\n}",
    );
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let [plain, redacted] = ["plain", "redacted"].map(|name| path(name).display().to_string());
    collect(&["-o", &plain]);
    collect(&["-o", &redacted, "--redact"]);
    run_netns_del(&named);
    drop(process);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    read_texts(&path("plain"), &mut before);
    read_texts(&path("redacted"), &mut after);
    let holds = |files: &[(String, String)], secret: &str| {
        files.iter().any(|(path, text)| path.contains(secret) || text.contains(secret))
    };
    for secret in ["10.66.77.5", "10-66-77-5", "10-66-77-88", "52:54:00:aa:bb:cc", "2001:db8:7::5", "2001-db8-7--5"] {
        assert!(holds(&before, secret), "{secret} is to be seen in the plain bundle");
        assert!(!holds(&after, secret), "{secret}");
    }
    for (files, name) in [(&before, "plain"), (&after, "redacted")] {
        assert!(!holds(files, "hunter2") && holds(files, "--token=[REDACTED]"), "{name}");
    }
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path("redacted/manifest.json")).unwrap()).unwrap();
    let classes = manifest["replaced"].as_array().unwrap();
    for class in ["secrets", "addresses", "addresses in names", "hardware addresses"] {
        let number = classes.iter().find(|found| found["class"] == class).map(|found| &found["number"]);
        assert!(number.and_then(serde_json::Value::as_u64).is_some_and(|number| number > 0), "{class}: {classes:?}");
    }
}

fn run_netns_del(name: &str) {
    assert!(crate::netns_fixture::run(&["ip", "netns", "del", name]));
}

#[test]
fn files_over_the_size_limit_are_omitted_and_listed() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.enter(|| send_datagrams(unreachable(53), 1000));
    let place = tempfile::tempdir().unwrap();
    let small = place.path().join("small");
    collect(&["-o", small.to_str().unwrap(), "--max-size", "64K"]);
    let mut files = Vec::new();
    read_texts(&small, &mut files);
    let bytes: usize =
        files.iter().filter(|(path, _)| !path.ends_with("manifest.json")).map(|(_, text)| text.len()).sum();
    assert!(bytes <= 64 << 10, "{bytes}");
    let manifest = fs::read_to_string(small.join("manifest.json")).unwrap();
    assert!(manifest.contains("--max-size"), "{manifest}");
}

#[test]
fn never_overwrites_and_never_leaves_a_partial_bundle() {
    let place = tempfile::tempdir().unwrap();
    let taken = place.path().join("taken.tar.gz");
    fs::write(&taken, "precious").unwrap();
    let ran = keepstate(&["collect", "-o", taken.to_str().unwrap()], b"");
    assert_eq!((ran.code, fs::read_to_string(&taken).unwrap().as_str()), (Some(1), "precious"));
    assert!(ran.err.contains("exists: choose another name"), "{}", ran.err);
    let nowhere = place.path().join("no/such/place");
    let ran = keepstate(&["collect", "-o", nowhere.to_str().unwrap()], b"");
    assert_eq!(ran.code, Some(1));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing was left behind");
}

#[test]
fn non_bundles_are_rejected() {
    let place = tempfile::tempdir().unwrap();
    let unknown = |path: &Path, what: &str| {
        let ran = keepstate(&["doctor", "--from", path.to_str().unwrap()], b"");
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{}", ran.err);
        assert!(ran.err.contains(what), "{}", ran.err);
    };
    unknown(&place.path().join("nothing"), "cannot read");
    unknown(place.path(), "is no bundle");
    let text = place.path().join("text");
    fs::write(&text, "no archive").unwrap();
    unknown(&text, "neither a directory nor a .tar.gz");
    fs::write(&text, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]).unwrap();
    unknown(&text, "cannot unpack");
    let manifest = |directory: &str| {
        let place = serde_json::json!({"directory": directory, "name": "x", "inode": 1, "is_ours": true});
        serde_json::json!({"schema": "keepstate.bundle/1", "made_by": "", "made_at": "", "redacted": false, "interval_ms": 0,
            "namespaces": [place], "files": [], "left_out": []})
    };
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("manifest.json"), manifest("../../etc").to_string()).unwrap();
    unknown(other.path(), "leads outside the bundle");
    fs::write(other.path().join("manifest.json"), r#"{"schema": "keepstate.bundle/2"}"#).unwrap();
    unknown(other.path(), "keepstate.bundle/2");
}
