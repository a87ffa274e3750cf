//! The way to a shard's thread: promote, demote, and what it last reported.
use super::report::ClusterReport;
use keepstate_cluster::ConfigDigest;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What the thread is asked.
pub(super) enum ClusterCommand {
    /// Answered when it is active, or cannot become so.
    Promote(ClusterReply),
    /// Answered when it is handed over.
    Demote(ClusterReply),
    /// The ruleset and the services in use.
    Reloaded([ConfigDigest; 2]),
}

/// Where an answer goes: a line for the user, or why not.
pub(super) type ClusterReply = SyncSender<Result<String, String>>;

/// A way to a shard's thread.
#[derive(Clone)]
pub(crate) struct ClusterHandle {
    shard: String,
    commands: Sender<ClusterCommand>,
    report: Arc<Mutex<ClusterReport>>,
}

impl ClusterHandle {
    pub(super) fn new(report: ClusterReport) -> (ClusterHandle, Receiver<ClusterCommand>) {
        let (commands, received) = channel();
        let shard = report.shard.clone();
        (ClusterHandle { shard, commands, report: Arc::new(Mutex::new(report)) }, received)
    }

    /// What was last reported.
    pub(crate) fn report(&self) -> ClusterReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_report(&self, report: ClusterReport) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    /// Makes this gateway active; waits until it is.
    pub(crate) fn promote(&self, shard: Option<&str>) -> Result<String, String> {
        self.ask(shard, ClusterCommand::Promote)
    }

    /// Hands the shard over; waits until all is with the cluster.
    pub(crate) fn demote(&self, shard: Option<&str>) -> Result<String, String> {
        self.ask(shard, ClusterCommand::Demote)
    }

    /// Another ruleset or other services are in use.
    pub(crate) fn reloaded(&self, digests: [ConfigDigest; 2]) {
        // A thread that has ended compares nothing.
        let _ = self.commands.send(ClusterCommand::Reloaded(digests));
    }

    fn ask(&self, shard: Option<&str>, command: impl FnOnce(ClusterReply) -> ClusterCommand) -> Result<String, String> {
        if let Some(shard) = shard.filter(|shard| *shard != self.shard) {
            return Err(format!("there is no shard {shard:?} here; this gateway's is {:?}", self.shard));
        }
        let (reply, answer) = sync_channel(1);
        let ended = || "the gateway has ended".to_owned();
        self.commands.send(command(reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }
}
