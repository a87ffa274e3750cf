//! The way to the thread of a gateway's shards: promote, demote, and what it last reported.
use super::report::ClusterReport;
use keepstate_cluster::ConfigDigest;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What the thread is asked.
pub(super) enum ClusterCommand {
    /// Of a shard; answered when it is active, or cannot become so.
    Promote(usize, ClusterReply),
    /// Of a shard; answered when it is handed over.
    Demote(usize, ClusterReply),
    /// Take over what other gateways have too many of; answered when that is done.
    Rebalance(ClusterReply),
    /// The ruleset and the services in use.
    Reloaded([ConfigDigest; 2]),
}

/// Where an answer goes: a line for the user, or why not.
pub(super) type ClusterReply = SyncSender<Result<String, String>>;

/// A way to the thread.
#[derive(Clone)]
pub(crate) struct ClusterHandle {
    /// The shards' names.
    shards: Arc<[String]>,
    /// Of several shards, all their addresses.
    addresses: Option<Arc<[RangeInclusive<IpAddr>]>>,
    commands: Sender<ClusterCommand>,
    reports: Arc<Mutex<Vec<ClusterReport>>>,
}

impl ClusterHandle {
    /// `addresses`: those of several shards.
    pub(super) fn new(
        reports: Vec<ClusterReport>,
        addresses: Option<Vec<RangeInclusive<IpAddr>>>,
    ) -> (ClusterHandle, Receiver<ClusterCommand>) {
        let (commands, received) = channel();
        let shards = reports.iter().map(|report| report.shard.clone()).collect();
        let addresses = addresses.map(Arc::from);
        (ClusterHandle { shards, addresses, commands, reports: Arc::new(Mutex::new(reports)) }, received)
    }

    /// Of several shards: the addresses that source NAT may go to. `None`: all.
    pub(crate) fn assigned_addresses(&self) -> Option<&[RangeInclusive<IpAddr>]> {
        self.addresses.as_deref()
    }

    /// What was last reported of each shard.
    pub(crate) fn reports(&self) -> Vec<ClusterReport> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`ClusterHandle::reports`], of the shard of this name alone if one is given.
    pub(crate) fn reports_of(&self, shard: Option<&str>) -> Result<Vec<ClusterReport>, String> {
        let mut reports = self.reports();
        if shard.is_some() {
            let at = self.find(shard)?;
            reports = reports.drain(..).skip(at).take(1).collect();
        }
        Ok(reports)
    }

    /// Changes what is reported of a shard.
    pub(super) fn update_report(&self, shard: usize, update: impl FnOnce(&mut ClusterReport)) {
        if let Some(report) = self.reports.lock().unwrap_or_else(PoisonError::into_inner).get_mut(shard) {
            update(report);
        }
    }

    /// Makes this gateway active for a shard; waits until it is.
    pub(crate) fn promote(&self, shard: Option<&str>) -> Result<String, String> {
        self.ask(shard, ClusterCommand::Promote)
    }

    /// Hands a shard over; waits until all is with the cluster.
    pub(crate) fn demote(&self, shard: Option<&str>) -> Result<String, String> {
        self.ask(shard, ClusterCommand::Demote)
    }

    /// Has this gateway take over shards until none has two more than it; waits for that.
    pub(crate) fn rebalance(&self) -> Result<String, String> {
        let (reply, answer) = sync_channel(1);
        let ended = || "the gateway has ended".to_owned();
        self.commands.send(ClusterCommand::Rebalance(reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }

    /// Another ruleset or other services are in use.
    pub(crate) fn reloaded(&self, digests: [ConfigDigest; 2]) {
        // A thread that has ended compares nothing.
        let _ = self.commands.send(ClusterCommand::Reloaded(digests));
    }

    fn ask(
        &self,
        shard: Option<&str>,
        command: impl FnOnce(usize, ClusterReply) -> ClusterCommand,
    ) -> Result<String, String> {
        let shard = self.find(shard)?;
        let (reply, answer) = sync_channel(1);
        let ended = || "the gateway has ended".to_owned();
        self.commands.send(command(shard, reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }

    /// The shard of this name; without one, the only one.
    fn find(&self, shard: Option<&str>) -> Result<usize, String> {
        let quoted = || self.shards.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        match (shard, &*self.shards) {
            (None, [_]) => Ok(0),
            (None, _) => Err(format!("which shard? This gateway's are {}", quoted())),
            (Some(shard), shards) => shards.iter().position(|name| name == shard).ok_or_else(|| match shards {
                [only] => format!("there is no shard {shard:?} here; this gateway's is {only:?}"),
                _ => format!("there is no shard {shard:?} here; this gateway's are {}", quoted()),
            }),
        }
    }
}
