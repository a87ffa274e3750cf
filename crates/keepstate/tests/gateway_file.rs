//! `gateway.toml` by the program: checked with all that it names, printed with origins, run, read again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use clap::CommandFactory;
use common::{keepstate, report_skipped};
use keepstate::cli::Cli;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const RULES: &str =
    "table inet filter {\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy $policy;\n\t}\n}\n";
const SERVICES: &str = "[[service]]\nname = \"web\"\nlisten = \"192.0.2.80:80\"\nbackends = [\"10.1.0.2:80\"]\n";
const FILE: &str = r#"version = 1
ruleset = "router.nft"
services = "services.toml"
control = "gateway.sock"
device = [{ name = "cfg0", addresses = ["10.1.0.1/24"] }]

[define]
policy = "accept"

[sysctl]
nf_conntrack_max = 4096
nf_conntrack_udp_timeout = 30
"#;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("router.nft", RULES), ("services.toml", SERVICES), ("gateway.toml", FILE)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// `text` with `from` replaced by `to`, in the file `name`.
fn edit(folder: &TempDir, name: &str, from: &str, to: &str) {
    let text = fs::read_to_string(folder.path().join(name)).unwrap();
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "{from}");
    fs::write(folder.path().join(name), changed).unwrap();
}

#[test]
fn every_option_of_the_gateway_has_a_key() {
    let schema = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/gateway.schema.json"));
    let schema: serde_json::Value = serde_json::from_str(&schema.unwrap()).unwrap();
    let keys = &schema["properties"];
    let [nat, table] = ["NatSettings", "TableSettings"].map(|name| &schema["$defs"][name]["properties"]);
    let cli = Cli::command();
    let gateway = cli.find_subcommand("gateway").unwrap();
    let mut without = Vec::new();
    for option in gateway.get_arguments().filter_map(|argument| argument.get_long()) {
        let has_key = match option {
            "set" => keys["sysctl"].is_object(),
            "sysctl" => keys["sysctl-files"].is_object(),
            "verbose" => keys["log"].is_object(),
            _ => {
                let in_nat = option.strip_prefix("nat-").unwrap_or(option);
                let in_table = option.strip_prefix("table-").unwrap_or(option);
                keys[option].is_object() || nat[in_nat].is_object() || table[in_table].is_object()
            }
        };
        if !has_key {
            without.push(option);
        }
    }
    // What is done once, by hand; and the seed of hashes, which is a secret.
    assert_eq!(without, ["config", "print-config", "detach", "close", "in", "out", "each", "seed"]);
}

#[test]
fn check_reads_all_that_the_file_names() {
    let folder = folder();
    let file = path(&folder, "gateway.toml");
    let ran = keepstate(&["check", &file], b"");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    assert!(ran.out.starts_with(&format!("{file}: ok: 8 settings\n")), "{}", ran.out);
    assert!(
        ran.out.contains("router.nft: ok: 1 table, 1 chain")
            && ran.out.contains("services.toml: ok: 1 service, 1 backend"),
        "{}",
        ran.out
    );
    // A fault in each of the three, all at once.
    edit(&folder, "gateway.toml", "[sysctl]", "[sysctl]\nnf_conntrack_macks = 5");
    edit(&folder, "router.nft", "hook forward", "hook sideways");
    edit(&folder, "services.toml", "name", "nane");
    let ran = keepstate(&["check", &file], b"");
    assert_eq!(ran.code, Some(1));
    for words in [
        "gateway.toml:11:1: there is no sysctl nf_conntrack_macks; did you mean nf_conntrack_max?",
        "router.nft:3:",
        "services.toml:2:1: unknown key `nane`; did you mean `name`?",
    ] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    let ran = keepstate(&["check", "--json", &file], b"");
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, document["ok"].as_bool()), (Some(1), Some(false)));
    let files: Vec<&str> =
        document["faults"].as_array().unwrap().iter().map(|fault| fault["file"].as_str().unwrap()).collect();
    assert!(
        ["gateway.toml", "router.nft", "services.toml"]
            .iter()
            .all(|name| files.iter().any(|file| file.ends_with(name))),
        "{document}"
    );
    // A file that is named and not there is a fault where its name stands.
    edit(&folder, "gateway.toml", "router.nft", "absent.nft");
    let ran = keepstate(&["check", &file], b"");
    assert!(ran.out.contains("gateway.toml:2:11: ") && ran.out.contains("absent.nft cannot be read"), "{}", ran.out);
}

#[test]
fn a_services_file_or_another_machine_is_not_taken_for_the_gateways_file() {
    let folder = folder();
    let ran = keepstate(&["check", &path(&folder, "services.toml")], b"");
    assert!(ran.code == Some(1) && ran.out.contains("keepstate check --services FILE"), "{}", ran.out);
    let ran = keepstate(&["check", "--environment", &path(&folder, "router.nft")], b"");
    assert!(ran.code == Some(2) && ran.err.contains("--environment needs the gateway's file"), "{}", ran.err);
}

#[test]
fn the_environment_is_checked_too() {
    let folder = folder();
    let file = path(&folder, "gateway.toml");
    edit(
        &folder,
        "gateway.toml",
        "device = [{ name = \"cfg0\", addresses = [\"10.1.0.1/24\"] }]",
        "interface = [\"veth8\"]",
    );
    edit(&folder, "gateway.toml", "gateway.sock", "absent/gateway.sock");
    let check = |words: &[&str]| {
        let ran = Command::new("unshare")
            .args(["--net", env!("CARGO_BIN_EXE_keepstate"), "check"])
            .args(words)
            .output()
            .unwrap();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
    };
    if !Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|status| status.success()) {
        return report_skipped("check --environment: it needs root and unshare");
    }
    assert_eq!(check(&[&file]).0, Some(0), "the file alone is right");
    let (code, said) = check(&["--environment", &file]);
    assert_eq!(code, Some(1));
    assert!(said.contains("gateway.toml:5:13: --interface veth8: no such interface"), "{said}");
    assert!(said.contains("gateway.toml:4:11: the directory ") && said.contains("absent is missing"), "{said}");
    // Without capabilities.
    let ran = Command::new("setpriv")
        .args([
            "--bounding-set=-all",
            "--inh-caps=-all",
            env!("CARGO_BIN_EXE_keepstate"),
            "check",
            "--environment",
            &file,
        ])
        .output();
    match ran {
        Ok(ran) if ran.status.code() == Some(1) => {
            let said = String::from_utf8(ran.stdout).unwrap();
            assert!(said.contains("CAP_NET_ADMIN") && said.contains("keepstate-gateway.service"), "{said}");
        }
        _ => report_skipped("check --environment without capabilities: it needs setpriv"),
    }
}

#[test]
fn the_sum_of_file_and_options_is_printed_and_is_a_file_again() {
    let folder = folder();
    let file = path(&folder, "gateway.toml");
    let ran = keepstate(
        &["gateway", "--config", &file, "--state", "/tmp/x", "--set", "nf_conntrack_max=7", "--print-config"],
        b"",
    );
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let line = |start: &str| {
        ran.out.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {}", ran.out))
    };
    assert!(line("state = \"/tmp/x\"").ends_with("# --state"));
    assert!(line("nf_conntrack_max = \"7\"").ends_with("# --set"));
    assert!(line("nf_conntrack_udp_timeout = 30").ends_with(&format!("# {file}:12")));
    assert!(line("log = \"info\"").ends_with("# default"));
    fs::write(folder.path().join("again.toml"), &ran.out).unwrap();
    let again = keepstate(&["gateway", "--config", &path(&folder, "again.toml"), "--print-config"], b"");
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  #").next().unwrap().trim_end().to_owned()).collect()
    };
    assert_eq!(values(&again.out), values(&ran.out));
    // A fault is said before anything is printed; one of the options is a usage error.
    edit(&folder, "gateway.toml", "control", "controll");
    let ran = keepstate(&["gateway", "--config", &file, "--print-config"], b"");
    assert!(
        ran.code == Some(1)
            && ran.out.is_empty()
            && ran.err.contains("gateway.toml:4:1: unknown key `controll`; did you mean `control`?"),
        "{}",
        ran.err
    );
    let ran = keepstate(&["gateway", "--ruleset", "a.nft", "--queue", "0", "--mtu", "1500", "--print-config"], b"");
    assert_eq!(ran.code, Some(2), "{}", ran.err);
}

/// A gateway of the file, in a network namespace of its own.
struct Running {
    child: Child,
    folder: TempDir,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start() -> Option<Running> {
        let folder = folder();
        let mut child = Command::new("unshare")
            .args(["--net", env!("CARGO_BIN_EXE_keepstate"), "gateway", "--config", &path(&folder, "gateway.toml")])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let log = BufReader::new(child.stderr.take().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(folder.path().join("gateway.sock")).is_err() {
            if !matches!(child.try_wait(), Ok(None)) || Instant::now() > until {
                report_skipped("a gateway of a file: it needs root, unshare and /dev/net/tun");
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Running { child, folder, log })
    }

    fn control(&self, words: &[&str]) -> (Option<i32>, String) {
        let socket = path(&self.folder, "gateway.sock");
        let ran = keepstate(&[&["control", "--socket", &socket][..], words].concat(), b"");
        (ran.code, ran.out + &ran.err)
    }

    /// The next line of the log with these words.
    fn log_line(&mut self, words: &str) -> String {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            if line.contains(words) {
                return line;
            }
            line.clear();
        }
        panic!("the log ended without {words}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_reload_applies_what_can_change_and_refuses_the_rest_as_a_whole() {
    let Some(mut gateway) = Running::start() else { return };
    assert_eq!(gateway.control(&["get", "nf_conntrack_max"]), (Some(0), "4096\n".into()));
    // What was set at run time stays, unless the file has changed it.
    assert_eq!(gateway.control(&["set", "nf_conntrack_udp_timeout=77"]).0, Some(0));
    edit(&gateway.folder, "gateway.toml", "4096", "8192");
    edit(&gateway.folder, "gateway.toml", "\"accept\"", "\"drop\"");
    fs::rename(gateway.folder.path().join("router.nft"), gateway.folder.path().join("other.nft")).unwrap();
    edit(&gateway.folder, "gateway.toml", "router.nft", "other.nft");
    let (code, said) = gateway.control(&["reload"]);
    assert!(code == Some(0) && said.contains("nf_conntrack_max = 8192\n"), "{said}");
    assert_eq!(gateway.control(&["get", "nf_conntrack_max"]).1, "8192\n");
    assert_eq!(gateway.control(&["get", "nf_conntrack_udp_timeout"]).1, "77\n");
    // Nothing else: those that follow the machine's memory, which a running gateway may not read again, stay.
    assert_eq!(said.matches(" = ").count(), 1, "{said}");
    assert!(gateway.control(&["rules"]).1.contains("policy drop"));
    // One key that needs a restart, and one that does not: neither is applied.
    edit(&gateway.folder, "gateway.toml", "version = 1", "version = 1\nspin = 5");
    edit(&gateway.folder, "gateway.toml", "8192", "1024");
    let (code, said) = gateway.control(&["reload"]);
    assert!(
        code == Some(1)
            && said.contains("gateway.toml:2: spin: 5 needs a restart; running with 0")
            && said.contains("nothing is changed"),
        "{said}"
    );
    assert_eq!(gateway.control(&["get", "nf_conntrack_max"]).1, "8192\n");
    assert!(Command::new("kill").args(["-HUP", &gateway.child.id().to_string()]).status().unwrap().success());
    gateway.log_line("spin: 5 needs a restart");
    // Taken back, the rest is applied.
    edit(&gateway.folder, "gateway.toml", "spin = 5\n", "");
    assert!(Command::new("kill").args(["-HUP", &gateway.child.id().to_string()]).status().unwrap().success());
    gateway.log_line("ruleset reloaded");
    assert_eq!(gateway.control(&["get", "nf_conntrack_max"]).1, "1024\n");
    // A fault of the file is a refusal with its place.
    edit(&gateway.folder, "gateway.toml", "1024", "1024\nnf_conntrack_tcp_lose = 1");
    let (code, said) = gateway.control(&["reload"]);
    assert!(code == Some(1) && said.contains("gateway.toml:12:1: there is no sysctl"), "{said}");
}
