//! The control socket: who may come in, what he asks, and what he is told.
//!
//! One connection is one request: a line of JSON with a version and words, answered by a line of JSON and then text to the end. The socket has the mode 0660, the
//! kernel says who has connected, requests are bounded in length, time and number, and the router is only asked between two turns of its own: whoever is slow holds up nobody but himself.
use anyhow::{Context, Result, bail};
use keepstate_linux::peer::Peer;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// The version of the protocol.
pub const VERSION: u32 = 1;
/// Where the socket stands unless told otherwise.
pub const USUAL: &str = "/run/keepstate/gateway.sock";
/// The longest request.
const LONGEST: u64 = 65_536;
/// How long a visitor may take for his words, or for one piece of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Visitors at a time.
const MOST: usize = 16;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The protocol's version.
    pub v: u32,
    /// As on the command line, behind `keepstate control`.
    pub words: Vec<String>,
}

/// What is told before the text.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The protocol's version.
    pub v: u32,
    /// Why it was not done; none if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A visitor who waits for his answer.
pub(super) struct Visitor {
    pub(super) words: Vec<String>,
    answer: SyncSender<Result<Vec<u8>, String>>,
}

impl Visitor {
    /// Gives him his answer; he may have gone.
    pub(super) fn answer(self, answer: Result<Vec<u8>, String>) {
        let _ = self.answer.send(answer);
    }
}

/// The socket, while it stands.
pub(super) struct Door {
    path: PathBuf,
    visitors: Receiver<Visitor>,
}

impl Door {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be made there, or another gateway has it.
    pub(super) fn open(path: &Path) -> Result<Door> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                bail!("{} is there already, and is no socket", path.display())
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                bail!("another gateway listens at {}: choose another --control", path.display())
            }
            // One that was killed has left it.
            Ok(_) => fs::remove_file(path).with_context(|| format!("{} cannot be removed", path.display()))?,
            Err(_) => (),
        }
        let listener = UnixListener::bind(path).with_context(|| format!("{} cannot be made", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            .with_context(|| format!("{} cannot be closed to others", path.display()))?;
        let (sender, visitors) = channel();
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || welcome(&listener, &sender))
            .context("a thread for the control socket")?;
        Ok(Door { path: path.to_owned(), visitors })
    }

    /// The next visitor, if one waits.
    pub(super) fn next(&self) -> Option<Visitor> {
        self.visitors.try_recv().ok()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Lets visitors in, each in a thread of his own.
fn welcome(listener: &UnixListener, sender: &Sender<Visitor>) {
    let inside = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if inside.fetch_add(1, Ordering::Relaxed) >= MOST {
            inside.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (sender, leaves) = (sender.clone(), inside.clone());
        let begun = std::thread::Builder::new().name("visitor".into()).spawn(move || {
            if let Err(error) = attend(&stream, &sender) {
                tracing::debug!("control: {error:#}");
            }
            leaves.fetch_sub(1, Ordering::Relaxed);
        });
        if begun.is_err() {
            inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One visitor, from his words to his answer.
fn attend(stream: &UnixStream, sender: &Sender<Visitor>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (peer, own) = (Peer::of(stream)?, Peer::own());
    if peer.user != 0 && peer.user != own.user && peer.group != own.group {
        return tell(
            stream,
            Err(format!("user {} may not: only root, user {} and group {} may", peer.user, own.user, own.group)),
        );
    }
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return tell(stream, Err(format!("this is no request: {error}"))),
    };
    if request.v != VERSION {
        return tell(
            stream,
            Err(format!("this gateway speaks version {VERSION} of the control protocol, not {}", request.v)),
        );
    }
    let (answer, waits) = sync_channel(1);
    sender.send(Visitor { words: request.words, answer }).context("the router has ended")?;
    tell(stream, waits.recv().context("the router has ended")?)
}

fn tell(mut stream: &UnixStream, answer: Result<Vec<u8>, String>) -> Result<()> {
    let (text, error) = match answer {
        Ok(text) => (text, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut head = serde_json::to_vec(&Reply { v: VERSION, error })?;
    head.push(b'\n');
    stream.write_all(&head)?;
    Ok(stream.write_all(&text)?)
}
