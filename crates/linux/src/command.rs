//! What another program prints: run on this machine, or found in another machine's files.
//!
//! A program is run without a shell, with nothing on its standard input, and killed when it takes too long. What it prints is read up
//! to a bound.
use crate::sysroot::SysRoot;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where a bundle keeps what programs printed: a file for each, named by its words.
pub const BUNDLE_DIRECTORY: &str = "/commands";

/// The same in a report of sos: a directory for each of its plugins.
const SOS_DIRECTORY: &str = "/sos_commands";

/// How long a program may take. `nft` needs seconds only for tens of thousands of rules.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such program here.
    #[error("there is no {0} here")]
    NotInstalled(String),
    /// It ran, and failed.
    #[error("{command}: {stderr}")]
    Failed {
        /// The program and its words.
        command: String,
        /// The last line of what it said.
        stderr: String,
    },
    /// The files hold no output of it.
    #[error("the files hold no output of {0}")]
    NotCollected(String),
}

/// What the program prints, up to `bound` octets.
///
/// # Errors
/// If it is not there, or fails.
pub fn output(root: &SysRoot, words: &[&str], bound: u64) -> Result<String, CommandError> {
    if !root.is_live() {
        return read_collected(root, words);
    }
    let Some((name, arguments)) = words.split_first() else { return Err(CommandError::NotInstalled(String::new())) };
    let failed = |said: String| CommandError::Failed { command: words.join(" "), stderr: said };
    let mut command = Command::new(name);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => CommandError::NotInstalled((*name).to_owned()),
        _ => failed(error.to_string()),
    })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        let mut octets = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is still something.
            let _ = pipe.take(bound).read_to_end(&mut octets);
        }
        String::from_utf8_lossy(&octets).into_owned()
    };
    std::thread::scope(|scope| {
        let out = scope.spawn(move || read(out.map(|pipe| Box::new(pipe) as _)));
        let err = scope.spawn(move || read(err.map(|pipe| Box::new(pipe) as _)));
        let begun = Instant::now();
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if begun.elapsed() < TIMEOUT => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break Err(failed(format!("it took more than {} s", TIMEOUT.as_secs())));
                }
                Err(error) => break Err(failed(error.to_string())),
            }
        };
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        let status = status?;
        // Whoever is cut short at the bound ends by a broken pipe; what it printed is what was asked for.
        if status.success() || out.len() as u64 >= bound {
            return Ok(out);
        }
        Err(failed(err.trim().lines().next_back().map_or_else(|| status.to_string(), str::to_owned)))
    })
}

/// The name of the file that keeps what a program printed: its words, with no slash.
///
/// ```
/// assert_eq!(keepstate_linux::program::file_name(&["ethtool", "-S", "eth0"]), "ethtool_-S_eth0");
/// ```
pub fn bundle_file_name(words: &[&str]) -> String {
    words.join("_").replace('/', ".")
}

/// Files kept of a program's outputs whose names begin with these words: full paths below the root.
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
    root.read(exact.ok_or_else(missing)?).map_err(|_| missing())
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
