//! What is said to the running `keepstate sync`, over a socket of its own: one line, answered by one text.
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncRequest {
    Promote,
    Demote,
    Status,
    Json,
    Check,
}

const WORDS: [(SyncRequest, &str); 5] = [
    (SyncRequest::Promote, "promote"),
    (SyncRequest::Demote, "demote"),
    (SyncRequest::Status, "status"),
    (SyncRequest::Json, "json"),
    (SyncRequest::Check, "check"),
];
/// The first byte of an answer.
const DONE: u8 = b'+';
const FAILED: u8 = b'-';
/// No line is read further.
const MAX_REQUEST: usize = 1024;
/// A client that says nothing is not waited for.
const READ_TIMEOUT: Duration = Duration::from_millis(200);
/// How long the running one may take: longer than what it waits for itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

impl SyncRequest {
    fn word(self) -> &'static str {
        WORDS.iter().find(|(request, _)| *request == self).map_or("status", |(_, word)| word)
    }
}

/// Says it to the running one; prints its answer.
pub(super) fn ask(socket: &Path, request: SyncRequest) -> Result<ExitCode> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!("no keepstate sync answers at {}: start it, or name its socket with --socket", socket.display())
    })?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    writeln!(stream, "{}", request.word())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("keepstate sync does not answer")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match answer.split_first() {
        Some((&DONE, said)) => {
            io::stdout().write_all(said)?;
            Ok(ExitCode::SUCCESS)
        }
        Some((&FAILED, why)) => bail!(text(why)),
        _ => bail!("keepstate sync ended without an answer"),
    }
}

/// The socket of the running one. It goes with it.
pub(super) struct RequestServer {
    listener: UnixListener,
    path: PathBuf,
}

/// Where an answer goes.
pub(super) struct SyncAnswer(UnixStream);

impl RequestServer {
    /// Opens the socket, for root alone; one that nobody listens at any more is replaced.
    pub(super) fn bind(path: &Path) -> Result<RequestServer> {
        let shown = path.display();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    bail!("another keepstate sync answers at {shown}: end it, or give this one its own --socket");
                }
                fs::remove_file(path).with_context(|| format!("cannot replace {shown}"))?;
                UnixListener::bind(path)
            }
            bound => bound,
        };
        let listener = listener.with_context(|| format!("cannot listen at {shown}"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(RequestServer { listener, path: path.to_owned() })
    }

    /// The next request, if somebody has said one. Who says anything else is told so.
    pub(super) fn poll(&self) -> Option<(SyncRequest, SyncAnswer)> {
        while let Ok((stream, _)) = self.listener.accept() {
            let answer = SyncAnswer(stream);
            match answer.read() {
                Some(request) => return Some((request, answer)),
                None => {
                    answer.send(&Err("no such request: promote, demote, status, json or check, and a newline".into()))
                }
            }
        }
        None
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for RequestServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl SyncAnswer {
    fn read(&self) -> Option<SyncRequest> {
        self.0.set_nonblocking(false).and_then(|()| self.0.set_read_timeout(Some(READ_TIMEOUT))).ok()?;
        let mut line = Vec::new();
        let mut byte = [0];
        // Read to its end even if it is none: what is left unread would reset the connection before the answer is read.
        for _ in 0..MAX_REQUEST {
            match (&self.0).read(&mut byte) {
                Ok(1) if byte == *b"\n" => break,
                Ok(1) => line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                _ => return None,
            }
        }
        WORDS.iter().find(|(_, word)| word.as_bytes() == line).map(|(request, _)| *request)
    }

    /// Sends it. A client may have hung up.
    pub(super) fn send(&self, outcome: &Result<String, String>) {
        let (lead, text) = match outcome {
            Ok(text) => (DONE, text),
            Err(text) => (FAILED, text),
        };
        let _ = self.0.set_write_timeout(Some(READ_TIMEOUT));
        let _ = (&self.0).write_all(&[&[lead], text.as_bytes()].concat());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn requests_are_answered_and_what_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/sync.sock");
        let server = RequestServer::bind(&path).unwrap();
        assert!(RequestServer::bind(&path).is_err_and(|error| error.to_string().contains("another keepstate sync")));
        let ask = |line: &str| {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(line.as_bytes()).unwrap();
            let request = server.poll().map(|(request, answer)| {
                answer.send(&Ok("done".into()));
                request
            });
            let mut said = String::new();
            client.read_to_string(&mut said).unwrap();
            (request, said)
        };
        assert_eq!(ask("promote\n"), (Some(SyncRequest::Promote), "+done".into()));
        for line in ["promot\n", "\n", "a line that is longer than any request\n"] {
            let (request, said) = ask(line);
            assert!(request.is_none() && said.starts_with("-no such request"), "{line:?}: {said}");
        }
        drop(server);
        assert!(!path.exists());
    }
}
