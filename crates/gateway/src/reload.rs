//! Ruleset and services read again while packets go on: on a thread of its own, since a large ruleset takes seconds to parse.
//!
//! One load runs at a time. Requests that come meanwhile wait for the next, since the files may have changed after the running one read them.
use super::control_server::PendingRequest;
use super::load::LoadedConfig;
use anyhow::{Context, Result, anyhow};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

/// Reads and checks the files.
pub(super) type LoadConfig = dyn Fn() -> Result<LoadedConfig> + Send + Sync;

/// Who asked for a reload.
pub(super) enum ReloadOrigin {
    /// SIGHUP.
    Signal,
    /// A control client, who waits for the answer.
    Request(Box<PendingRequest>),
}

/// Loads the files, never on the caller's thread.
pub(super) struct Reloader {
    load: Arc<LoadConfig>,
    running: Option<(Vec<ReloadOrigin>, Receiver<Result<LoadedConfig>>)>,
    waiting: Vec<ReloadOrigin>,
}

impl Reloader {
    pub(super) fn new(load: Arc<LoadConfig>) -> Reloader {
        Reloader { load, running: None, waiting: Vec::new() }
    }

    /// Asks for a load.
    pub(super) fn request(&mut self, origin: ReloadOrigin) {
        self.waiting.push(origin);
    }

    /// Starts what was asked for, and gives a finished load with those who asked for it. Never waits.
    pub(super) fn poll(&mut self) -> Option<(Vec<ReloadOrigin>, Result<LoadedConfig>)> {
        if let Some((_, result)) = &self.running {
            let loaded = match result.try_recv() {
                Ok(loaded) => loaded,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => Err(anyhow!("the thread that reads the files ended")),
            };
            return self.running.take().map(|(origins, _)| (origins, loaded));
        }
        if self.waiting.is_empty() {
            return None;
        }
        let (sender, result) = sync_channel(1);
        let load = Arc::clone(&self.load);
        let origins = std::mem::take(&mut self.waiting);
        let thread = std::thread::Builder::new().name("reload".into());
        // The gateway may have ended meanwhile.
        match thread.spawn(move || drop(sender.send(load()))).context("starting a thread to read the files") {
            Ok(_) => self.running = Some((origins, result)),
            Err(error) => return Some((origins, Err(error))),
        }
        None
    }
}
