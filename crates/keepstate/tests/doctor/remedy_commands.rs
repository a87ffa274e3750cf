//! Every command of every remedy that any scene of the test bed gives, through the parser of its program.
//!
//! What is only checked here changes nothing: keepstate's own commands are parsed by clap, nft and conntrack run in a namespace that goes
//! with them. The fixture runs in its namespace what can be run there (`NetnsFixture`).
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

/// Programs of a plain system, or of a package that the step names; their own options are not judged.
const OTHER_PROGRAMS: [&str; 11] =
    ["awk", "echo", "ethtool", "grep", "modprobe", "sleep", "tcpdump", "auditctl", "ausearch", "cat", "ip"];

/// The commands of a finding that are run on a machine with tracking, not lines of other programs' files.
pub fn commands(finding: &Value) -> Vec<&str> {
    let steps = ["now", "for_good"].into_iter().flat_map(|when| finding[when].as_array().unwrap());
    let here = steps.filter(|step| step["at"].get("elsewhere").is_none());
    here.filter_map(|step| step["command"].as_str()).collect()
}

/// Checks every command of a report.
pub fn check_report(document: &Value) {
    static CHECKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    for finding in document["findings"].as_array().unwrap() {
        for command in commands(finding) {
            let is_new = CHECKED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(command.to_owned());
            if is_new {
                check(command).unwrap_or_else(|error| panic!("{}: {command}: {error}", finding["name"]));
            }
        }
    }
}

/// Would each program of this command line understand its arguments?
fn check(command: &str) -> Result<(), String> {
    for part in split_outside_quotes(command, &[';', '|']) {
        check_program(&words(&part).iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn check_program(words: &[&str]) -> Result<(), String> {
    match words {
        ["timeout", _, rest @ ..] => check_program(rest),
        ["keepstate", "conntrack", ..] => conntrack(env!("CARGO_BIN_EXE_keepstate"), &words[1..]),
        // clap reads the words in order, and complains before it comes to the last.
        ["keepstate", rest @ ..] => succeed(Command::new(env!("CARGO_BIN_EXE_keepstate")).args(rest).arg("--help")),
        ["conntrack", rest @ ..] => {
            conntrack(env!("CARGO_BIN_EXE_keepstate"), words)?;
            if is_installed("conntrack") { conntrack("conntrack", rest) } else { Ok(()) }
        }
        ["nft", rest @ ..] if is_installed("nft") => {
            succeed(Command::new("unshare").args(["-n", "nft"]).args(["-c"]).args(rest))
        }
        ["nft", ..] => Ok(()),
        ["sysctl", "--system"] => Ok(()),
        ["sysctl", "-w", settings @ ..] => settings.iter().try_for_each(|setting| sysctl(setting)),
        [program, ..] if OTHER_PROGRAMS.contains(program) => Ok(()),
        _ => Err("no known program".into()),
    }
}

/// The key exists in Linux, and the value is a number.
fn sysctl(setting: &str) -> Result<(), String> {
    let (key, value) = setting.split_once('=').ok_or("no value")?;
    value.parse::<u64>().map_err(|error| format!("{value}: {error}"))?;
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    if Path::new(&path).exists() { Ok(()) } else { Err(format!("{path} does not exist")) }
}

/// Finds nothing in a namespace without entries, and says so; that is no usage error.
fn conntrack(program: &str, words: &[&str]) -> Result<(), String> {
    let output =
        Command::new("unshare").args(["-n", program]).args(words).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_understood = output.status.success() || text.contains("flow entries have been");
    if is_understood { Ok(()) } else { Err(text) }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let Output { status, stdout, stderr } = command.output().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
    }
}

/// Runs what can be run in a namespace without touching the machine: rules, and sysctls of the namespace's own.
pub fn run_in_namespace(namespace: &str, command: &str) -> Result<(), String> {
    let enter = ["netns", "exec", namespace];
    for part in split_outside_quotes(command, &[';', '|']) {
        let words = words(&part);
        let inside = match words.first().map(String::as_str) {
            Some("nft") if is_installed("nft") => words,
            // These two are the machine's.
            Some("sysctl") if !part.contains("nf_conntrack_max=") && !part.contains("nf_conntrack_buckets=") => words,
            _ => continue,
        };
        succeed(Command::new("ip").args(enter).args(inside))?;
    }
    Ok(())
}

/// Runs one command in a namespace, keepstate's own too; did it succeed?
pub fn cure(namespace: &str, command: &str) -> bool {
    let words = words(command).into_iter().map(|word| match word.as_str() {
        "keepstate" => env!("CARGO_BIN_EXE_keepstate").to_owned(),
        _ => word,
    });
    Command::new("ip").args(["netns", "exec", namespace]).args(words).status().is_ok_and(|status| status.success())
}

fn is_installed(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|directory| Path::new(directory).join(program).exists())
}

/// Splits at each of these outside quotes, as a shell does as far as these commands need it.
fn split_outside_quotes(text: &str, marks: &[char]) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for letter in text.chars() {
        match quote {
            Some(open) if open == letter => quote = None,
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            None if marks.contains(&letter) => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// Words without their quotes.
fn words(text: &str) -> Vec<String> {
    let unquoted = |word: String| match word.strip_prefix('\'').and_then(|word| word.strip_suffix('\'')) {
        Some(inner) => inner.to_owned(),
        None => word,
    };
    split_outside_quotes(text, &[' ']).into_iter().map(unquoted).collect()
}

#[test]
fn commands_that_no_program_understands_are_found() {
    for wrong in [
        "keepstate tops",
        "keepstate tune apply --persists --max 5",
        "keepstate conntrack -L --sorted",
        "conntrack -D --reply-source 10.0.0.1",
        "sysctl -w net.netfilter.nf_conntrack_maximum=5",
        "sysctl -w net.netfilter.nf_conntrack_max=many",
        "iptables-all -L",
    ] {
        assert!(check(wrong).is_err(), "{wrong}");
    }
    if is_installed("nft") {
        assert!(check("nft 'table inet t { chain c { udp dport 5 drops; }; }'").is_err());
        assert!(check("nft add rule inet filter input drop").is_err(), "no chain is there by default");
    }
    check("keepstate conntrack -L -p tcp | awk '$3 < 5'; sleep 1").unwrap();
}
