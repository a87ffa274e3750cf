//! One machine: its shard, the kernel's table, and what passes between them, turn by turn. Time is an argument; nothing here waits but [`SyncNode::wait`].
use crate::held_table::HeldTable;
use crate::kernel_sender::KernelTableSender;
use crate::restoring::{RestoreCounts, Restoring};
use crate::table_reading::TableReading;
use keepstate_cluster::{
    Decider, Epoch, Greeting, NodeInstance, NodeName, RoleChangeError, Shard, ShardAction, ShardName, ShardRole,
    ShardStatus, StateTransport, TransportEvent,
};
use keepstate_linux::ctnetlink::{CtClient, CtEvent, CtEventSocket, CtObject, EventKind};
use keepstate_linux::netlink::{MalformedNetlink, NetlinkError, NetlinkSocket, NlMessages};
use keepstate_linux::poll::poll_readable;
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Events of the transport, and reads of the kernel's events, taken in one turn.
const MAX_EVENTS_PER_TURN: usize = 256;

/// Writes an epoch to this machine's disk.
pub type StoreEpoch = Box<dyn FnMut(Epoch) -> io::Result<()> + Send>;

/// Who this machine is, and who decides.
#[derive(Clone, Debug)]
pub struct SyncOptions {
    /// What is shared.
    pub shard: ShardName,
    /// This machine.
    pub node: NodeName,
    /// This run of the program.
    pub instance: NodeInstance,
    /// Who decides which machine is active.
    pub decider: Decider,
    /// Entries to or from these addresses are not carried.
    pub ignored: HashSet<IpAddr>,
    /// The epoch on this machine's disk.
    pub stored_epoch: Epoch,
    /// How often the active machine reads its whole table. Linux tells nothing of entries that were made while nobody listened (`nf_conntrack_events` = 2, its default); by this, they are followed too.
    pub read_interval: Duration,
    /// Bytes of events that the kernel keeps until they are read.
    pub event_buffer: usize,
}

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The kernel's table.
    #[error("the kernel's connection table: {0}")]
    Table(#[from] NetlinkError),
    /// A socket.
    #[error("the kernel's connection table cannot be opened: {0}")]
    Open(#[from] io::Error),
    /// What the kernel told.
    #[error("the kernel's connection table: {0}")]
    Malformed(#[from] MalformedNetlink),
}

/// What an operator wants to know beside the shard's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncCounters {
    /// Standby: entries held for the active machine.
    pub held: usize,
    /// Active: entries known, and of these, those that wait to be sent.
    pub known: usize,
    /// Active: entries that wait to be sent.
    pub waiting: usize,
    /// Times that the kernel had lost events, and the table was read again.
    pub overruns: u64,
    /// Times that the whole table was read.
    pub readings: u64,
    /// Records that were none.
    pub malformed: u64,
    /// Why the cluster cannot be reached.
    pub unreachable: Option<String>,
    /// What has come of the entries held, when this machine became active last.
    pub restored: RestoreCounts,
}

/// One machine; see the module.
pub struct SyncNode {
    shard: Shard,
    ignored: HashSet<IpAddr>,
    transport: Box<dyn StateTransport>,
    store_epoch: StoreEpoch,
    table: CtClient,
    /// While this machine sends.
    sending: Option<Sending>,
    held: HeldTable,
    restoring: Option<Restoring>,
    restored: RestoreCounts,
    unreachable: Option<String>,
    overruns: u64,
    readings: u64,
    read_interval: Duration,
    event_buffer: usize,
}

struct Sending {
    events: CtEventSocket,
    sender: KernelTableSender,
    reading: Option<TableReading>,
    /// When the next one begins.
    next_reading: Duration,
    /// The first one is complete.
    is_complete: bool,
}

impl SyncNode {
    /// A standby over the table of this thread's network namespace.
    ///
    /// # Errors
    /// The table cannot be opened.
    pub fn new(
        options: SyncOptions,
        transport: Box<dyn StateTransport>,
        store_epoch: StoreEpoch,
        now: Duration,
    ) -> Result<SyncNode, SyncError> {
        let greeting = Greeting::of_linux_table(env!("CARGO_PKG_VERSION"));
        Ok(SyncNode {
            shard: Shard::new((options.shard, options.node), options.decider, greeting, options.stored_epoch, now)
                .with_instance(options.instance),
            ignored: options.ignored,
            transport,
            store_epoch,
            table: CtClient::open()?,
            sending: None,
            held: HeldTable::default(),
            restoring: None,
            restored: RestoreCounts::default(),
            unreachable: None,
            overruns: 0,
            readings: 0,
            read_interval: options.read_interval,
            event_buffer: options.event_buffer,
        })
    }

    /// Does what there is to do, a bounded part of it; true if there is more.
    ///
    /// # Errors
    /// The kernel's table cannot be read any more.
    pub fn turn(&mut self, now: Duration) -> Result<bool, SyncError> {
        for _ in 0..MAX_EVENTS_PER_TURN {
            let Some(event) = self.transport.poll() else { break };
            self.note_connection(&event);
            self.shard.handle_event(event, now);
            self.take_actions(now)?;
        }
        self.shard.handle_time(now);
        self.take_actions(now)?;
        self.read_events()?;
        let restores = self.restore();
        let mut more = restores;
        self.read_table(now)?;
        // What was held is part of what is sent, and so is what was there before.
        if !restores && let Some(sending) = self.sending.as_mut().filter(|sending| sending.is_complete) {
            more = sending.sender.poll(&mut self.shard, &mut self.table, now)?;
        }
        self.take_actions(now)?;
        while let Some(frame) = self.shard.poll_frame() {
            if self.transport.publish(frame.clone()).is_err() {
                self.shard.frame_refused(frame);
                break;
            }
        }
        Ok(restores || more && self.shard.has_room())
    }

    /// Waits until something has happened, or for so many milliseconds.
    ///
    /// # Errors
    /// The system's.
    pub fn wait<'a>(&'a self, others: impl IntoIterator<Item = BorrowedFd<'a>>, limit: i32) -> io::Result<()> {
        let events = self.sending.as_ref().map(|sending| sending.events.as_fd());
        poll_readable(self.transport.wake_fd().into_iter().chain(events).chain(others), limit).map(drop)
    }

    fn note_connection(&mut self, event: &TransportEvent) {
        match event {
            TransportEvent::Connected => self.unreachable = None,
            TransportEvent::Disconnected { reason } if self.unreachable.as_ref() != Some(reason) => {
                tracing::warn!("the cluster cannot be reached: {reason}");
                self.unreachable = Some(reason.clone());
            }
            _ => {}
        }
    }

    fn take_actions(&mut self, now: Duration) -> Result<(), SyncError> {
        while let Some(action) = self.shard.poll_action() {
            match action {
                ShardAction::StoreEpoch(epoch) => match (self.store_epoch)(epoch) {
                    Ok(()) => self.shard.epoch_stored(epoch, now),
                    Err(error) => tracing::error!("shard {}: the epoch cannot be written: {error}", self.shard.name()),
                },
                ShardAction::RequestLease(request) => self.transport.request_lease(request),
                ShardAction::Table(change) => self.held.apply(&change),
                ShardAction::Role(role, epoch) => self.set_role(role, epoch)?,
                ShardAction::Note(text) => tracing::warn!("{text}"),
            }
        }
        Ok(())
    }

    fn set_role(&mut self, role: ShardRole, epoch: Epoch) -> Result<(), SyncError> {
        tracing::info!("shard {}: {} in epoch {epoch}", self.shard.name(), role.name());
        match role {
            ShardRole::Active => {
                // Events first: what changes while the table is read is told.
                let mut socket = NetlinkSocket::open_netfilter()?;
                if let Err(error) = socket.set_recv_buffer_size(self.event_buffer) {
                    tracing::debug!("the buffer for events stays small: {error}");
                }
                let events = [EventKind::New, EventKind::Update, EventKind::Destroy];
                let events = CtEventSocket::subscribe_connections(socket, events)?;
                self.sending = Some(Sending {
                    events,
                    sender: KernelTableSender::new(self.ignored.clone()),
                    reading: None,
                    next_reading: Duration::ZERO,
                    is_complete: false,
                });
                self.restoring = Some(Restoring::new(self.held.take()));
            }
            ShardRole::Standby => self.sending = None,
            ShardRole::Demoting | ShardRole::Fenced => {}
        }
        Ok(())
    }

    fn read_events(&mut self) -> Result<(), SyncError> {
        let Some(Sending { events, sender, next_reading, .. }) = &mut self.sending else { return Ok(()) };
        for _ in 0..MAX_EVENTS_PER_TURN {
            match events.receive(Duration::ZERO) {
                Ok(None) => break,
                Ok(Some(bytes)) => {
                    for message in NlMessages::new(bytes) {
                        if let Some(CtEvent { event_type, object: CtObject::Connection(flow), .. }) =
                            CtEvent::decode(&message?)?
                        {
                            sender.handle_event(event_type, &flow);
                        }
                    }
                }
                Err(error) if error.errno() == Some(libc::ENOBUFS) => {
                    self.overruns += 1;
                    tracing::warn!("the kernel has lost events: the table is read again");
                    *next_reading = Duration::ZERO;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Goes on with a reading of the whole table, or begins one that is due.
    fn read_table(&mut self, now: Duration) -> Result<(), SyncError> {
        let Some(Sending { sender, reading, next_reading, is_complete, .. }) = &mut self.sending else { return Ok(()) };
        if let Some(under_way) = reading {
            if under_way.poll(sender)? {
                *reading = None;
                *is_complete = true;
                self.readings += 1;
            }
        } else if now >= *next_reading {
            *next_reading = now.saturating_add(self.read_interval);
            *reading = Some(TableReading::start()?);
        }
        Ok(())
    }

    /// Enters some of what was held; true if there is more.
    fn restore(&mut self) -> bool {
        let Some(restoring) = &mut self.restoring else { return false };
        if !restoring.poll(&mut self.table) {
            return true;
        }
        self.restored = restoring.counts().clone();
        self.restoring = None;
        let RestoreCounts { restored, incomplete, refused, last_refusal } = &self.restored;
        let why = last_refusal.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        tracing::info!("restored {restored} incomplete {incomplete} refused {refused}{why}");
        false
    }

    /// Makes this machine active.
    ///
    /// # Errors
    /// It is being demoted.
    pub fn promote(&mut self, now: Duration) -> Result<(), RoleChangeError> {
        self.shard.promote(now)
    }

    /// Hands over to another machine.
    ///
    /// # Errors
    /// It is not active here.
    pub fn demote(&mut self, now: Duration) -> Result<(), RoleChangeError> {
        self.shard.demote(now)
    }

    /// Are the entries that were held in the kernel's table, and is this machine active?
    pub fn is_ready(&self) -> bool {
        self.shard.role() == ShardRole::Active && self.restoring.is_none()
    }

    /// The shard's status.
    pub fn status(&self) -> ShardStatus {
        self.shard.status()
    }

    /// What was carried.
    pub fn counters(&self) -> SyncCounters {
        let sender = self.sending.as_ref().map(|sending| &sending.sender);
        SyncCounters {
            held: self.held.len(),
            known: sender.map_or(0, KernelTableSender::len),
            waiting: sender.map_or(0, KernelTableSender::waiting),
            overruns: self.overruns,
            readings: self.readings,
            malformed: self.held.refused(),
            unreachable: self.unreachable.clone(),
            restored: self.restored.clone(),
        }
    }
}
