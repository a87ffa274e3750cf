//! nft on the kernel: each ruleset is loaded into a network namespace of the test's own, one after the other.
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Reads a ruleset a line; prints nft's exit code and the first line of its error. Each replaces the one before it, in one transaction.
const LOOP: &str = r#"
while IFS= read -r line; do
    error=$(printf 'flush ruleset\n%s\n' "$line" | nft -f - 2>&1)
    printf '%s %s\n' "$?" "$(printf '%s' "$error" | head -n 1)"
done
"#;

/// Does nft take each of these rulesets, and if not, why? `None` if it cannot be asked here.
pub fn load_each(rulesets: &[String]) -> Option<Vec<Result<(), String>>> {
    let half = rulesets.len().div_ceil(2).max(1);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = rulesets.chunks(half).map(|some| scope.spawn(move || load(some))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    answers.into_iter().collect::<Option<Vec<_>>>().map(|halves| halves.concat())
}

fn load(rulesets: &[String]) -> Option<Vec<Result<(), String>>> {
    let mut shell = Command::new("unshare")
        .args(["--net", "sh", "-c", LOOP])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let (mut stdin, stdout) = (shell.stdin.take()?, shell.stdout.take()?);
    let answers: Vec<String> = std::thread::scope(|scope| {
        // Without permission the shell ends at once, and nobody reads.
        scope.spawn(move || rulesets.iter().try_for_each(|ruleset| writeln!(stdin, "{ruleset}")));
        BufReader::new(stdout).lines().map_while(Result::ok).collect()
    });
    shell.wait().ok()?;
    let usable = answers.len() == rulesets.len() && !answers.iter().any(|answer| answer.starts_with("127 "));
    usable.then(|| {
        let parts = answers.iter().map(|answer| answer.split_once(' ').unwrap_or((answer, "")));
        parts.map(|(code, error)| if code == "0" { Ok(()) } else { Err(format!("{code} {error}")) }).collect()
    })
}
