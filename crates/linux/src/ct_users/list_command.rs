//! Programs of others that list what the kernel holds: run, waited for a bounded time, their output taken.
//!
//! A program runs in the network namespace of the thread that starts it. Only programs that list are run from here, none that
//! changes anything.
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListCommandError {
    /// There is no such program.
    #[error("{0} is not installed")]
    NotInstalled(String),
    /// It was started, and failed.
    #[error("{0}")]
    Failed(String),
    /// It took too long, and was ended.
    #[error("{0} took longer than {patience} s", patience = TIMEOUT.as_secs())]
    TimedOut(String),
    /// It wrote more than anybody will read.
    #[error("{0} wrote more than {most} MiB", most = MAX_OUTPUT >> 20)]
    OutputTooLarge(String),
}

/// Where the file of a program is: in `PATH`, or where system programs are, which `PATH` of an ordinary user leaves out.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|file| file.is_file())
}

/// What a program writes on its standard output.
///
/// # Errors
/// Why there is none.
pub fn output(name: &str, arguments: &[&str]) -> Result<String, ListCommandError> {
    let line = [&[name], arguments].concat().join(" ");
    let file = find_in_path(name).ok_or_else(|| ListCommandError::NotInstalled(name.to_owned()))?;
    let started = Command::new(file)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.map_err(|error| ListCommandError::Failed(format!("{line}: {error}")))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (ended, out, err) = std::thread::scope(|scope| {
        let out = scope.spawn(|| read_limited(out));
        let err = scope.spawn(|| read_limited(err));
        let ended = wait_with_timeout(&mut child);
        (ended, out.join().unwrap_or_default(), err.join().unwrap_or_default())
    });
    match ended {
        Err(error) => Err(ListCommandError::Failed(format!("{line}: {error}"))),
        Ok(None) => Err(ListCommandError::TimedOut(line)),
        Ok(Some(_)) if out.len() as u64 > MAX_OUTPUT => Err(ListCommandError::OutputTooLarge(line)),
        Ok(Some(true)) => Ok(String::from_utf8_lossy(&out).into_owned()),
        Ok(Some(false)) => {
            let said = String::from_utf8_lossy(&err);
            Err(ListCommandError::Failed(format!("{line}: {}", said.lines().next().unwrap_or("failed").trim())))
        }
    }
}

/// Did it end well? `None`: it did not end, and was ended.
fn wait_with_timeout(child: &mut Child) -> io::Result<Option<bool>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All of it, or one octet more than is read at most: the rest is read and forgotten, so that its writer can end.
fn read_limited(from: Option<impl Read>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(mut from) = from {
        let _ = from.by_ref().take(MAX_OUTPUT + 1).read_to_end(&mut text);
        let _ = io::copy(&mut from, &mut io::sink());
    }
    text
}

/// How long a listing may take. A node with 50,000 service rules needs a few seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much it may write.
const MAX_OUTPUT: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_output_or_error() {
        assert_eq!(output("echo", &["a", "b"]), Ok("a b\n".into()));
        assert_eq!(output("no-such-program", &[]), Err(ListCommandError::NotInstalled("no-such-program".into())));
        let error = output("ls", &["/no/such/place"]).unwrap_err();
        assert!(error.to_string().starts_with("ls /no/such/place: "), "{error}");
    }

    #[test]
    fn both_pipes_are_drained() {
        let script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero | tr '\\0' x";
        assert_eq!(output("sh", &["-c", script]).unwrap().len(), 300_000);
    }
}
