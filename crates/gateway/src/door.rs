//! The control socket: who may come in, what he asks, and what he is told.
//!
//! A visitor's first line is JSON: a version, and words, which are answered by a line of JSON and then text to the end; or that he speaks the kernel's messages from
//! then on (`session`). The socket has the mode 0660, the kernel says who has connected, requests are bounded in length, time and number, and the router is only asked
//! between two turns of its own: whoever is slow holds up nobody but himself. The protocol is told in docs/control.md.
use super::desk::{Access, Service};
use super::{flowing, session};
use anyhow::{Context, Result, bail};
use keepstate_engine::Instant;
use keepstate_linux::peer::Peer;
use keepstate_router::Router;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Read, Write};
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
/// How long a visitor may take for his words.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long he may leave one piece of an answer unread: he may be somebody with a pager.
const READING: Duration = Duration::from_secs(600);
/// Visitors at a time.
const MOST: usize = 64;
/// What a visitor says who speaks the kernel's messages.
pub const CTNETLINK: &str = "ctnetlink";

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The protocol's version.
    pub v: u32,
    /// As on the command line, behind `keepstate control`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// Instead of words: the messages that are spoken from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speak: Option<String>,
}

/// The part that every version has.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// The request in a first line.
///
/// # Errors
/// A sentence for the visitor: why it is none, and what to do.
pub fn request(line: &[u8]) -> Result<Request, String> {
    let Versioned { v } = serde_json::from_slice(line).map_err(|error| {
        format!(
            "this is no request: {error}. The first line is JSON, such as {{\"v\":{VERSION},\"words\":[\"count\"]}}"
        )
    })?;
    if v != VERSION {
        return Err(format!(
            "this gateway speaks version {VERSION} of the control protocol, not {v}: use the keepstate that it was started with"
        ));
    }
    let request: Request =
        serde_json::from_slice(line).map_err(|error| format!("this is no request of version {VERSION}: {error}"))?;
    match &request.speak {
        Some(speak) if speak != CTNETLINK => Err(format!(
            "this gateway does not speak {}: it speaks {CTNETLINK}, or understands words",
            speak.escape_debug()
        )),
        _ => Ok(request),
    }
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
    service: Service,
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
        let (service, access) = Service::new();
        let house = House { words: sender, access };
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || welcome(&listener, &house))
            .context("a thread for the control socket")?;
        Ok(Door { path: path.to_owned(), visitors, service })
    }

    /// The next visitor, if one waits.
    pub(super) fn next(&self) -> Option<Visitor> {
        self.visitors.try_recv().ok().inspect(|_| self.service.stay_awake())
    }

    /// A bounded piece of what else visitors want: the table read and changed, events handed on.
    pub(super) fn turn(&self, router: &mut Router, now: Instant) {
        let _ = self.service.turn(router, now);
    }

    /// How long the router may wait for packets, if it usually waits `usual` milliseconds.
    pub(super) fn patience(&self, usual: i32) -> i32 {
        self.service.patience(usual)
    }
}

/// Where a visitor's wishes go.
#[derive(Clone)]
pub(super) struct House {
    pub(super) words: Sender<Visitor>,
    pub(super) access: Access,
}

impl Drop for Door {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Lets visitors in, each in a thread of his own.
fn welcome(listener: &UnixListener, house: &House) {
    let inside = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if inside.fetch_add(1, Ordering::Relaxed) >= MOST {
            inside.fetch_sub(1, Ordering::Relaxed);
            // A few octets fit into the socket's buffer whoever reads them.
            let _ = stream.set_nonblocking(true);
            let _ = tell(&stream, Err(format!("{MOST} visitors are here already: try again when one has left")));
            continue;
        }
        let (house, leaves) = (house.clone(), inside.clone());
        let begun = std::thread::Builder::new().name("visitor".into()).spawn(move || {
            if let Err(error) = attend(&stream, &house) {
                tracing::trace!("control: {error:#}");
            }
            leaves.fetch_sub(1, Ordering::Relaxed);
        });
        if begun.is_err() {
            inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One visitor, from his first words to his last answer.
pub(super) fn attend(stream: &UnixStream, house: &House) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(READING))?;
    let (peer, own) = (Peer::of(stream)?, Peer::own());
    if peer.user != 0 && peer.user != own.user && peer.group != own.group {
        return tell(
            stream,
            Err(format!("user {} may not: only root, user {} and group {} may", peer.user, own.user, own.group)),
        );
    }
    let request = match request(&first_line(stream)?) {
        Ok(request) => request,
        Err(why) => return tell(stream, Err(why)),
    };
    if request.speak.is_some() {
        tell(stream, Ok(Vec::new()))?;
        // From here on he may take his time.
        stream.set_read_timeout(None)?;
        return session::attend(stream, &house.access, peer);
    }
    if let Some(done) = flowing::attend(&request.words, stream, &house.access, peer) {
        return done;
    }
    let (answer, waits) = sync_channel(1);
    house.words.send(Visitor { words: request.words, answer }).ok().context("the router has ended")?;
    tell(stream, waits.recv().context("the router has ended")?)
}

/// The first line, and not an octet more: what follows is another's to read. One that is too long or never ends is none.
fn first_line(mut stream: &UnixStream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut octet = [0];
    while (line.len() as u64) < LONGEST {
        match stream.read(&mut octet) {
            Ok(0) => break,
            Ok(_) if octet == *b"\n" => break,
            Ok(_) => line.extend(octet),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(line)
}

/// The line that an answer begins with.
pub(super) fn tell_head(mut stream: &UnixStream, error: Option<String>) -> Result<()> {
    let mut head = serde_json::to_vec(&Reply { v: VERSION, error })?;
    head.push(b'\n');
    Ok(stream.write_all(&head)?)
}

fn tell(mut stream: &UnixStream, answer: Result<Vec<u8>, String>) -> Result<()> {
    let (text, error) = match answer {
        Ok(text) => (text, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    tell_head(stream, error)?;
    Ok(stream.write_all(&text)?)
}
