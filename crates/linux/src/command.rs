//! Output of other programs: run on this machine, or read from another machine's collected files.
//!
//! A program is run without a shell, with an empty standard input, in the network namespace of the calling thread, and killed when it takes too long. Its output is read up
//! to a limit.
use crate::sysroot::SysRoot;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The bundle's directory for the output of programs: one file per command line, named by its words.
pub const BUNDLE_DIRECTORY: &str = "/commands";

/// The same in a report of sos: one directory per plugin.
const SOS_DIRECTORY: &str = "/sos_commands";

/// How long a program may take. A ruleset of 50,000 rules needs a few seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest listing that is read, in bytes.
const MAX_LISTING: u64 = 128 << 20;

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such program.
    #[error("{0} is not installed")]
    NotInstalled(String),
    /// It could not be started, or failed.
    #[error("{command}: {stderr}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// One line of its standard error, or its exit status.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("{0}: no result after {limit} s", limit = TIMEOUT.as_secs())]
    TimedOut(String),
    /// It printed more than is read.
    #[error("{0}: more than {limit} MiB of output", limit = MAX_LISTING >> 20)]
    OutputTooLarge(String),
    /// The collected files contain no output of it.
    #[error("the files contain no output of {0}")]
    NotCollected(String),
}

impl CommandError {
    /// The program ran, but its output cannot be read.
    pub fn unreadable(words: &[&str], reason: impl Into<String>) -> CommandError {
        CommandError::Failed { command: words.join(" "), stderr: reason.into() }
    }
}

/// The file of a program: in `PATH`, or in the system directories that an ordinary user's `PATH` lacks.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The whole output of a program that lists something; run on this machine.
///
/// # Errors
/// It is not installed, fails, takes too long or prints too much.
pub fn listing(words: &[&str]) -> Result<String, CommandError> {
    let finished = run(words, MAX_LISTING)?;
    match finished.status.success() {
        _ if finished.stdout.len() as u64 > MAX_LISTING => Err(CommandError::OutputTooLarge(words.join(" "))),
        true => Ok(String::from_utf8_lossy(&finished.stdout).into_owned()),
        false => Err(finished.failed(words, |stderr| stderr.lines().next())),
    }
}

/// The output of a program, cut at `limit` bytes: run on this machine, or read from collected files.
///
/// # Errors
/// It is not there, or fails.
pub fn output(root: &SysRoot, words: &[&str], limit: u64) -> Result<String, CommandError> {
    if !root.is_live() {
        return read_collected(root, words);
    }
    let mut finished = run(words, limit)?;
    // A program that is cut at the limit ends with a broken pipe: its output is still good.
    if !finished.status.success() && (finished.stdout.len() as u64) < limit {
        return Err(finished.failed(words, |stderr| stderr.lines().next_back()));
    }
    finished.stdout.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(String::from_utf8_lossy(&finished.stdout).into_owned())
}

/// A program that has ended.
struct Finished {
    status: ExitStatus,
    /// One byte more than the limit if there was more.
    stdout: Vec<u8>,
    stderr: String,
}

impl Finished {
    fn failed(&self, words: &[&str], line: impl Fn(&str) -> Option<&str>) -> CommandError {
        let stderr = line(self.stderr.trim()).map_or_else(|| self.status.to_string(), |line| line.trim().to_owned());
        CommandError::Failed { command: words.join(" "), stderr }
    }
}

fn run(words: &[&str], limit: u64) -> Result<Finished, CommandError> {
    let failed = |error: io::Error| CommandError::Failed { command: words.join(" "), stderr: error.to_string() };
    let (name, arguments) = words.split_first().ok_or_else(|| CommandError::NotInstalled(String::new()))?;
    let file = find_in_path(name).ok_or_else(|| CommandError::NotInstalled((*name).to_owned()))?;
    let started = Command::new(file)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, stdout, stderr) = std::thread::scope(|scope| {
        let stdout = scope.spawn(|| read_limited(stdout, limit));
        let stderr = scope.spawn(|| read_limited(stderr, MAX_LISTING));
        let status = wait_with_timeout(&mut child);
        (status, stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default())
    });
    let status = status.map_err(failed)?.ok_or_else(|| CommandError::TimedOut(words.join(" ")))?;
    Ok(Finished { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

/// The exit status; `None`: it took too long and was killed.
fn wait_with_timeout(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a pipe gives, one byte more than the limit at most. Then the pipe is closed, so that its writer ends.
fn read_limited(from: Option<impl Read>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What was read before an error is still good.
        let _ = from.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    }
    bytes
}

/// The name of the file for the output of a command line: its words, without slashes.
///
/// ```
/// assert_eq!(keepstate_linux::command::bundle_file_name(&["ethtool", "-S", "eth0"]), "ethtool_-S_eth0");
/// ```
pub fn bundle_file_name(words: &[&str]) -> String {
    words.join("_").replace('/', ".")
}

/// Collected files of command lines that begin with these words: full paths below the root.
pub fn collected_files(root: &SysRoot, words: &[&str]) -> Vec<String> {
    let beginning = bundle_file_name(words);
    let mut directories = vec![BUNDLE_DIRECTORY.to_owned()];
    directories.extend(
        root.list_dir(SOS_DIRECTORY).unwrap_or_default().into_iter().map(|plugin| format!("{SOS_DIRECTORY}/{plugin}")),
    );
    let mut paths = Vec::new();
    for directory in directories {
        for name in root.list_dir(&directory).unwrap_or_default() {
            if name.starts_with(&beginning) {
                paths.push(format!("{directory}/{name}"));
            }
        }
    }
    paths
}

fn read_collected(root: &SysRoot, words: &[&str]) -> Result<String, CommandError> {
    let name = bundle_file_name(words);
    let missing = || CommandError::NotCollected(words.join(" "));
    let paths = collected_files(root, words);
    let exact = paths.iter().find(|path| path.rsplit('/').next() == Some(name.as_str()));
    root.read_up_to(exact.ok_or_else(missing)?, MAX_LISTING).map_err(|_| missing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_commands_on_this_machine() {
        let live = SysRoot::live();
        assert_eq!(output(&live, &["echo", "a b"], 100).unwrap(), "a b\n");
        assert_eq!(output(&live, &["echo", "abcdef"], 3).unwrap(), "abc");
        assert_eq!(output(&live, &["no-such-program"], 3), Err(CommandError::NotInstalled("no-such-program".into())));
        let failed = output(&live, &["sh", "-c", "echo why >&2; exit 3"], 3);
        assert!(failed.unwrap_err().to_string().ends_with(": why"));
    }

    #[test]
    fn listings_are_whole_or_an_error() {
        assert_eq!(listing(&["echo", "a", "b"]), Ok("a b\n".into()));
        assert_eq!(listing(&["no-such-program"]), Err(CommandError::NotInstalled("no-such-program".into())));
        let error = listing(&["ls", "/no/such/place"]).unwrap_err();
        assert!(error.to_string().starts_with("ls /no/such/place: "), "{error}");
        assert_eq!(listing(&["sh", "-c", "exit 3"]).unwrap_err().to_string(), "sh -c exit 3: exit status: 3");
    }

    #[test]
    fn both_pipes_are_drained() {
        let script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero | tr '\\0' x";
        assert_eq!(listing(&["sh", "-c", script]).unwrap().len(), 300_000);
    }

    #[test]
    fn reads_collected_command_output() {
        let there = tempfile::tempdir().unwrap();
        for (directory, name) in [("commands", "nft_list_ruleset"), ("sos_commands/networking", "ethtool_-S_eth0")] {
            std::fs::create_dir_all(there.path().join(directory)).unwrap();
            std::fs::write(there.path().join(directory).join(name), name).unwrap();
        }
        let root = SysRoot::at(there.path());
        assert_eq!(output(&root, &["nft", "list", "ruleset"], 9).unwrap(), "nft_list_ruleset");
        assert_eq!(output(&root, &["ethtool", "-S", "eth0"], 9).unwrap(), "ethtool_-S_eth0");
        assert_eq!(collected_files(&root, &["ethtool", "-S", ""]), ["/sos_commands/networking/ethtool_-S_eth0"]);
        assert_eq!(output(&root, &["nft"], 9), Err(CommandError::NotCollected("nft".into())));
    }
}
