//! The control socket: accepts connections, checks who connected, reads one request of each, and answers it.
//!
//! The socket has the mode 0660 from its first moment on; whoever may write to it is served, as the kernel decides by its owner, group and mode (chgrp and chmod it for others). A client's first line is JSON (`control_protocol`): a request, which is
//! answered by a line of JSON and then text to the end; or `ctnetlink`, and frames of messages follow (`ctnl_session`). Requests are bounded in length, time and
//! number, and the router is only asked between two of its turns: a slow client delays nobody but itself.
use super::cluster::ClusterHandle;
use super::control_protocol::{ClientHello, ControlRequest, parse_request_line, write_reply_line};
use super::jobs::{FinishedJobs, JobRunner, JobSender};
use super::turns::TurnTimes;
use super::{control_cluster, ctnl_session, streaming};
use anyhow::{Context, Result, bail};
use keepstate_engine::Instant;
use keepstate_linux::peercred::PeerCred;
use keepstate_linux::{priority, privileges};
use keepstate_router::Router;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// The longest request, in bytes.
const MAX_REQUEST_LEN: usize = 65_536;
/// How long a client may take for its first line.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may leave a part of an answer unread: its user may have a pager open.
const WRITE_TIMEOUT: Duration = Duration::from_secs(600);
/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// A request that waits for the main loop, with the way back to the client's thread.
pub(super) struct PendingRequest {
    pub(super) request: ControlRequest,
    reply: SyncSender<Result<Vec<u8>, String>>,
}

impl PendingRequest {
    /// Answers the client, which may have hung up.
    pub(super) fn reply(self, answer: Result<Vec<u8>, String>) {
        let _ = self.reply.send(answer);
    }
}

/// The socket, from its creation to its removal.
pub(super) struct ControlServer {
    path: PathBuf,
    requests: Receiver<PendingRequest>,
    jobs: JobRunner,
}

/// The socket before anybody is served. It is removed at the end.
pub(super) struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ControlSocket {
    /// Creates the socket and listens.
    ///
    /// # Errors
    /// It cannot be created there, or another gateway listens on it.
    pub(super) fn bind(path: &Path) -> Result<ControlSocket> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create directory {}", dir.display()))?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{} exists and is not a socket", path.display())
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                bail!("another gateway listens on {}: choose another --control", path.display())
            }
            // A killed gateway left it behind.
            Ok(_) => fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?,
            Err(_) => (),
        }
        // 0660 at once: a mode set afterwards would leave a moment in which others may connect. No other thread makes files yet.
        let listener = privileges::with_umask(0o117, || UnixListener::bind(path))
            .with_context(|| format!("cannot create socket {}", path.display()))?;
        Ok(ControlSocket { path: path.to_owned(), listener })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts to serve clients, by threads that can do what this one can.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn serve(self, cluster: Option<ClusterHandle>) -> Result<ControlServer> {
        let ControlSocket { path, listener } = self;
        let (sender, requests) = channel();
        let (runner, jobs) = JobRunner::new();
        let handle = ControlHandle { requests: sender, jobs, cluster };
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept_loop(&listener, &handle))
            .context("starting the control thread")?;
        Ok(ControlServer { path, requests, jobs: runner })
    }
}

impl ControlServer {
    /// The next request, if one waits.
    pub(super) fn next_request(&self) -> Option<PendingRequest> {
        self.requests.try_recv().ok().inspect(|_| self.jobs.mark_active())
    }

    /// A bounded part of what client threads want of the router: entries read and changed, events handed on.
    pub(super) fn run_jobs(&self, router: &mut Router, turns: &TurnTimes, now: Instant) -> FinishedJobs {
        self.jobs.run_jobs(router, turns, now)
    }

    /// The jobs that client threads send.
    pub(super) fn jobs(&self) -> &JobRunner {
        &self.jobs
    }

    /// How long the router may wait for packets, in milliseconds, if it usually waits `usual`.
    pub(super) fn poll_timeout(&self, usual: i32) -> i32 {
        self.jobs.poll_timeout(usual)
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // It may have been removed already.
        let _ = fs::remove_file(&self.path);
    }
}

/// The client threads' way to the main loop.
#[derive(Clone)]
pub(super) struct ControlHandle {
    pub(super) requests: Sender<PendingRequest>,
    pub(super) jobs: JobSender,
    /// The cluster's shard, if this gateway is one of a cluster.
    pub(super) cluster: Option<ClusterHandle>,
}

/// Accepts connections; each is served by a thread of its own.
fn accept_loop(listener: &UnixListener, handle: &ControlHandle) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            // A line fits into the socket's buffer, whether it is read or not.
            let _ = stream.set_nonblocking(true);
            let _ = write_reply(&stream, Err(format!("too many control connections ({MAX_CONNECTIONS}); retry later")));
            continue;
        }
        let (handle, closed) = (handle.clone(), open.clone());
        let spawned = std::thread::Builder::new().name("control-client".into()).spawn(move || {
            priority::ordinary_thread();
            if let Err(error) = serve(&stream, &handle) {
                tracing::trace!("control: {error:#}");
            }
            closed.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One client, from its first line to its last answer.
pub(super) fn serve(mut stream: &UnixStream, handle: &ControlHandle) -> Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    // Who may connect is decided by the mode, owner and group of the socket file: the kernel checks it, supplementary groups included.
    let peer = PeerCred::of(stream)?;
    let request = match parse_request_line(&read_line(stream)?) {
        Ok(ClientHello::Request(request)) => request,
        Ok(ClientHello::Ctnetlink) => {
            write_reply_line(&mut stream, None)?;
            // From here on the client may be idle.
            stream.set_read_timeout(None)?;
            return ctnl_session::serve(stream, &handle.jobs, peer);
        }
        Err(error) => return write_reply(stream, Err(error)),
    };
    if let Some(result) = streaming::serve_streaming(&request, stream, &handle.jobs, peer, handle.cluster.as_ref()) {
        return result;
    }
    if let Some(answer) = control_cluster::answer(&request, handle.cluster.as_ref()) {
        return write_reply(stream, answer);
    }
    let (reply, answer) = sync_channel(1);
    handle.requests.send(PendingRequest { request, reply }).ok().context("the gateway has ended")?;
    write_reply(stream, answer.recv().context("the gateway has ended")?)
}

/// The first line, and not a byte more: what follows is read elsewhere. One that is too long or never ends is cut, and refused by the parser.
fn read_line(mut stream: &UnixStream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_REQUEST_LEN {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend(byte),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(line)
}

fn write_reply(mut stream: &UnixStream, answer: Result<Vec<u8>, String>) -> Result<()> {
    let (text, error) = match answer {
        Ok(text) => (text, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    write_reply_line(&mut stream, error)?;
    Ok(stream.write_all(&text)?)
}
