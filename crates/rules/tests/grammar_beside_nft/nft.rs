//! nft on the kernel: one interactive nft a worker, in a network namespace of its own, which is sent one ruleset after another.
use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// What nft says to a ruleset: its listing, or the first line of its error.
pub type Answer = Result<String, String>;

/// nft's answers, in order; `None` if nft cannot be asked here.
pub fn ask(rulesets: &[String]) -> Option<Vec<Answer>> {
    let half = rulesets.len().div_ceil(2).max(1);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = rulesets.chunks(half).map(|some| scope.spawn(move || ask_one(some))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    answers.into_iter().collect::<Option<Vec<_>>>().map(|halves| halves.concat())
}

/// A word that no ruleset has, for what separates the answers.
const MARK: &str = "keepstate_mark_";

/// Rulesets for one nft: it keeps all variables.
const AT_ONCE: usize = 1000;

/// How long nft may say nothing: no ruleset of the grammar takes it more than some milliseconds.
const MAX_SILENCE: Duration = Duration::from_secs(120);

/// nft 1.0.6 dies of some rulesets: then the next one begins behind that ruleset.
fn ask_one(rulesets: &[String]) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    while answers.len() < rulesets.len() {
        let rest = &rulesets[answers.len()..];
        let next = &rest[..rest.len().min(AT_ONCE)];
        let more = ask_until_death(next)?;
        let died = more.len() < next.len();
        answers.extend(more);
        if died {
            answers.push(Err("nft died".to_owned()));
        }
    }
    Some(answers)
}

fn ask_until_death(rulesets: &[String]) -> Option<Vec<Answer>> {
    let mut child = Command::new("unshare")
        .args(["--net", "nft", "-i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let (mut stdin, stdout, stderr) = (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
    let (progress, progressed) = mpsc::channel();
    let (listings, errors) = std::thread::scope(|scope| {
        scope.spawn(move || {
            for (at, ruleset) in rulesets.iter().enumerate() {
                // A listing is this ruleset's only if its transaction went through: the marks are tables' names in it.
                let lines = format!(
                    "flush ruleset; table ip {MARK}first {{ }}; {ruleset}; table ip {MARK}{at} {{ }}\nlist ruleset\nlist table ip {MARK}none\n"
                );
                if stdin.write_all(lines.as_bytes()).is_err() {
                    return;
                }
            }
            let _ = stdin.write_all(b"quit\n");
        });
        let of_errors = progress.clone();
        let errors = scope.spawn(move || read_all(stderr, &of_errors));
        let listings = scope.spawn(move || read_all(stdout, &progress));
        loop {
            match progressed.recv_timeout(MAX_SILENCE) {
                Ok(()) => (),
                Err(RecvTimeoutError::Disconnected) => break,
                // Of some rulesets nft 1.0.6 computes for ever: it is ended, and the next one begins behind that ruleset, as if it had died.
                Err(RecvTimeoutError::Timeout) => drop(child.kill()),
            }
        }
        (listings.join().unwrap(), errors.join().unwrap())
    });
    child.wait().ok()?;
    if errors.contains("Operation not permitted") && !errors.contains(MARK) {
        return None;
    }
    // The first mark begins a listing, the ruleset's own ends it: what the ruleset's commands print is before that.
    let listings: HashMap<usize, &str> = listings
        .split(&format!("table ip {MARK}first {{\n}}\n"))
        .filter_map(|part| part.split_once(&format!("table ip {MARK}")))
        .filter_map(|(listing, behind)| Some((behind.split_once(' ')?.0.parse().ok()?, listing)))
        .collect();
    let mut parts: Vec<&str> = errors.split(&format!("list table ip {MARK}none")).collect();
    // The first part without its mark is of nobody, or of the ruleset of which nft died.
    parts.pop();
    let answers = parts.iter().enumerate().map(|(at, errors)| match listings.get(&at) {
        Some(listing) => Ok((*listing).to_owned()),
        None => {
            let mut lines = errors.lines().filter(|line| line.contains("rror: ") && !line.ends_with(MARK));
            Err(lines.next().unwrap_or_default().to_owned())
        }
    });
    Some(answers.collect())
}

fn read_all(mut from: impl Read, progress: &mpsc::Sender<()>) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 1 << 16]);
    // What was read before an error is judged like what nft said before it died.
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        text.extend(buffer.iter().take(length));
        let _ = progress.send(());
    }
    String::from_utf8_lossy(&text).into_owned()
}
