//! The control socket: who may come in, what he asks, and what he is told.
//!
//! A visitor's first line is JSON: a version, and words, which are answered by a line of JSON and then text to the end; or that he speaks the kernel's messages from
//! then on (`session`). The socket has the mode 0660, the kernel says who has connected, requests are bounded in length, time and number, and the router is only asked
//! between two turns of its own: whoever is slow holds up nobody but himself. The protocol is told in docs/control.md.
use super::jobs::{JobRunner, JobSender};
use super::{ctnl_session, streaming};
use anyhow::{Context, Result, bail};
use keepstate_engine::Instant;
use keepstate_linux::peercred::PeerCred;
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
pub const PROTOCOL_VERSION: u32 = 1;
/// Where the socket stands unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/keepstate/gateway.sock";
/// The longest request.
const MAX_REQUEST_LEN: u64 = 65_536;
/// How long a visitor may take for his words.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long he may leave one piece of an answer unread: he may be somebody with a pager.
const WRITE_TIMEOUT: Duration = Duration::from_secs(600);
/// Visitors at a time.
const MAX_CONNECTIONS: usize = 64;
/// What a visitor says who speaks the kernel's messages.
pub const CTNETLINK: &str = "ctnetlink";

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct ControlRequest {
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
struct VersionOnly {
    v: u32,
}

/// The request in a first line.
///
/// # Errors
/// A sentence for the visitor: why it is none, and what to do.
pub fn parse_request(line: &[u8]) -> Result<ControlRequest, String> {
    let VersionOnly { v } = serde_json::from_slice(line).map_err(|error| {
        format!(
            "this is no request: {error}. The first line is JSON, such as {{\"v\":{PROTOCOL_VERSION},\"words\":[\"count\"]}}"
        )
    })?;
    if v != PROTOCOL_VERSION {
        return Err(format!(
            "this gateway speaks version {PROTOCOL_VERSION} of the control protocol, not {v}: use the keepstate that it was started with"
        ));
    }
    let request: ControlRequest = serde_json::from_slice(line)
        .map_err(|error| format!("this is no request of version {PROTOCOL_VERSION}: {error}"))?;
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
pub struct ControlReply {
    /// The protocol's version.
    pub v: u32,
    /// Why it was not done; none if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A visitor who waits for his answer.
pub(super) struct PendingCommand {
    pub(super) args: Vec<String>,
    reply: SyncSender<Result<Vec<u8>, String>>,
}

impl PendingCommand {
    /// Gives him his answer; he may have gone.
    pub(super) fn reply(self, answer: Result<Vec<u8>, String>) {
        let _ = self.reply.send(answer);
    }
}

/// The socket, while it stands.
pub(super) struct ControlServer {
    path: PathBuf,
    commands: Receiver<PendingCommand>,
    jobs: JobRunner,
}

impl ControlServer {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be made there, or another gateway has it.
    pub(super) fn open(path: &Path) -> Result<ControlServer> {
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
        let (service, access) = JobRunner::new();
        let house = ControlHandle { commands: sender, jobs: access };
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept_loop(&listener, &house))
            .context("a thread for the control socket")?;
        Ok(ControlServer { path: path.to_owned(), commands: visitors, jobs: service })
    }

    /// The next visitor, if one waits.
    pub(super) fn next_command(&self) -> Option<PendingCommand> {
        self.commands.try_recv().ok().inspect(|_| self.jobs.mark_active())
    }

    /// A bounded piece of what else visitors want: the table read and changed, events handed on.
    pub(super) fn run_jobs(&self, router: &mut Router, now: Instant) {
        let _ = self.jobs.run_jobs(router, now);
    }

    /// How long the router may wait for packets, if it usually waits `usual` milliseconds.
    pub(super) fn poll_timeout(&self, usual: i32) -> i32 {
        self.jobs.poll_timeout(usual)
    }
}

/// Where a visitor's wishes go.
#[derive(Clone)]
pub(super) struct ControlHandle {
    pub(super) commands: Sender<PendingCommand>,
    pub(super) jobs: JobSender,
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Lets visitors in, each in a thread of his own.
fn accept_loop(listener: &UnixListener, house: &ControlHandle) {
    let inside = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if inside.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            inside.fetch_sub(1, Ordering::Relaxed);
            // A few octets fit into the socket's buffer whoever reads them.
            let _ = stream.set_nonblocking(true);
            let _ = write_reply(
                &stream,
                Err(format!("{MAX_CONNECTIONS} visitors are here already: try again when one has left")),
            );
            continue;
        }
        let (house, leaves) = (house.clone(), inside.clone());
        let begun = std::thread::Builder::new().name("visitor".into()).spawn(move || {
            if let Err(error) = serve(&stream, &house) {
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
pub(super) fn serve(stream: &UnixStream, house: &ControlHandle) -> Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let (peer, own) = (PeerCred::of(stream)?, PeerCred::current());
    if peer.uid != 0 && peer.uid != own.uid && peer.gid != own.gid {
        return write_reply(
            stream,
            Err(format!("user {} may not: only root, user {} and group {} may", peer.uid, own.uid, own.gid)),
        );
    }
    let request = match parse_request(&read_line(stream)?) {
        Ok(request) => request,
        Err(why) => return write_reply(stream, Err(why)),
    };
    if request.speak.is_some() {
        write_reply(stream, Ok(Vec::new()))?;
        // From here on he may take his time.
        stream.set_read_timeout(None)?;
        return ctnl_session::serve(stream, &house.jobs, peer);
    }
    if let Some(done) = streaming::serve_streaming(&request.words, stream, &house.jobs, peer) {
        return done;
    }
    let (answer, waits) = sync_channel(1);
    house.commands.send(PendingCommand { args: request.words, reply: answer }).ok().context("the router has ended")?;
    write_reply(stream, waits.recv().context("the router has ended")?)
}

/// The first line, and not an octet more: what follows is another's to read. One that is too long or never ends is none.
fn read_line(mut stream: &UnixStream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut octet = [0];
    while (line.len() as u64) < MAX_REQUEST_LEN {
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
pub(super) fn write_reply_header(mut stream: &UnixStream, error: Option<String>) -> Result<()> {
    let mut head = serde_json::to_vec(&ControlReply { v: PROTOCOL_VERSION, error })?;
    head.push(b'\n');
    Ok(stream.write_all(&head)?)
}

fn write_reply(mut stream: &UnixStream, answer: Result<Vec<u8>, String>) -> Result<()> {
    let (text, error) = match answer {
        Ok(text) => (text, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    write_reply_header(stream, error)?;
    Ok(stream.write_all(&text)?)
}
