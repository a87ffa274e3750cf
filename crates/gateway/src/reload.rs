//! Ruleset and services read again while packets go on: on a thread of its own, since a large ruleset takes seconds to parse.
//!
//! One load runs at a time. Requests that come meanwhile wait for the next, since the files may have changed after the running one read them.
use super::control_server::PendingRequest;
use super::load::{AppliedConfig, LoadedConfig, PreparedConfig};
use super::shared::SharedGateway;
use super::turns::TurnKind;
use anyhow::{Context, Result, anyhow};
use keepstate_engine::Sysctls;
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

/// Reads the files and prepares the change, never on the caller's thread.
pub(super) struct Reloader {
    load: Arc<LoadConfig>,
    /// The sysctls that the configuration says, as it was last applied.
    configured: Option<Sysctls>,
    running: Option<(Vec<ReloadOrigin>, Receiver<Result<PreparedConfig>>)>,
    waiting: Vec<ReloadOrigin>,
    /// How often the load in progress has begun anew, because a script was faster.
    attempts: usize,
}

/// How often a load begins anew because a script has changed the ruleset in the meantime.
const MAX_ATTEMPTS: usize = 10;

impl Reloader {
    /// `configured`: the sysctls that the configuration said at the start.
    pub(super) fn new(load: Arc<LoadConfig>, configured: Option<Sysctls>) -> Reloader {
        Reloader { load, configured, running: None, waiting: Vec::new(), attempts: 0 }
    }

    /// Asks for a load.
    pub(super) fn request(&mut self, origin: ReloadOrigin) {
        self.waiting.push(origin);
    }

    /// Starts what was asked for, and applies a finished load; then it gives those who asked for it, and the result. Never waits.
    pub(super) fn poll(&mut self, gateway: &SharedGateway) -> Option<(Vec<ReloadOrigin>, Result<AppliedConfig>)> {
        let Some((_, result)) = &self.running else {
            let origins = std::mem::take(&mut self.waiting);
            return if origins.is_empty() { None } else { self.start(origins, gateway) };
        };
        let prepared = match result.try_recv() {
            Ok(prepared) => prepared,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(anyhow!("the thread that reads the files ended")),
        };
        let (origins, _) = self.running.take()?;
        let applied = prepared.map(|prepared| {
            let now = gateway.now();
            prepared.apply(&mut gateway.lock(TurnKind::Reload).router, now, &mut self.configured)
        });
        match applied {
            Ok(None) if self.attempts < MAX_ATTEMPTS => {
                self.attempts += 1;
                self.start(origins, gateway)
            }
            Ok(None) => Some((origins, Err(anyhow!("scripts change the ruleset all the time; reload again later")))),
            Ok(Some(applied)) => Some((origins, Ok(applied))),
            Err(error) => Some((origins, Err(error))),
        }
        .inspect(|_| self.attempts = 0)
    }

    fn start(
        &mut self,
        origins: Vec<ReloadOrigin>,
        gateway: &SharedGateway,
    ) -> Option<(Vec<ReloadOrigin>, Result<AppliedConfig>)> {
        let (sender, result) = sync_channel(1);
        let (load, time) = (Arc::clone(&self.load), Arc::clone(&gateway.time));
        let in_use = gateway.lock(TurnKind::Reload).router.program().ruleset();
        let prepare = move || {
            keepstate_linux::priority::ordinary_thread();
            let prepared = load().and_then(|loaded| loaded.prepare_reload(&in_use, time.now()));
            // The gateway may have ended meanwhile.
            drop(sender.send(prepared));
        };
        let thread = std::thread::Builder::new().name("reload".into());
        match thread.spawn(prepare).context("starting a thread to read the files") {
            Ok(_) => {
                self.running = Some((origins, result));
                None
            }
            Err(error) => Some((origins, Err(error))),
        }
    }
}
