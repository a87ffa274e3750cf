//! What all workers share beside the router: neighbours, the TUN interface to the host, drop counters.
use super::neighbours::{Neighbours, Resolution};
use crate::gso;
use crate::route_follower::Seen;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::rtnetlink::{NeighbourResolver, RtMessage};
use keepstate_linux::tun::Tun;
use keepstate_wire::gso::GsoPacket;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The TUN interface through which the kernel gets packets for the host.
pub(super) const HOST_TUN: &str = "keepstate0";

/// Shared by all workers.
pub(super) struct XdpShared {
    state: Mutex<XdpSharedState>,
    host: Tun,
    pub(super) drops: TxDrops,
}

pub(super) struct XdpSharedState {
    pub(super) neighbours: Neighbours,
    /// To the thread that asks the kernel for neighbours.
    resolver: Option<SyncSender<(u32, IpAddr)>>,
}

/// Neighbours that the kernel is still to be asked for, at most; asked again later.
const MAX_QUEUED_QUESTIONS: usize = 1024;

/// Packets that the driver dropped.
#[derive(Default)]
pub(super) struct TxDrops {
    /// The tx ring was full.
    ring_full: AtomicU64,
    /// The neighbour did not answer, or too many packets waited for it.
    unresolved: AtomicU64,
}

impl TxDrops {
    pub(super) fn add_ring_full(&self, packets: u64) {
        self.ring_full.fetch_add(packets, Ordering::Relaxed);
    }

    pub(super) fn add_unresolved(&self, packets: u64) {
        self.unresolved.fetch_add(packets, Ordering::Relaxed);
    }

    /// By reason, for the closing line.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("tx ring full", self.ring_full.load(Ordering::Relaxed)),
            ("neighbour unresolved", self.unresolved.load(Ordering::Relaxed)),
        ]
    }
}

impl XdpShared {
    pub(super) fn new(neighbours: Neighbours, host: Tun) -> XdpShared {
        XdpShared { state: Mutex::new(XdpSharedState { neighbours, resolver: None }), host, drops: TxDrops::default() }
    }

    /// Starts the thread that asks the kernel for neighbours: it may wait for whoever changes an interface.
    ///
    /// # Errors
    /// There is no thread or no socket.
    pub(super) fn start_resolver(&self) -> Result<()> {
        let mut resolver = NeighbourResolver::open().context("opening a route socket")?;
        let (questions, asked) = sync_channel::<(u32, IpAddr)>(MAX_QUEUED_QUESTIONS);
        let ask = move || {
            while let Ok((ifindex, address)) = asked.recv() {
                // This fails if the interface is gone; a message about that is on its way.
                let _ = resolver.resolve(ifindex, address);
            }
        };
        std::thread::Builder::new().name("neighbours".into()).spawn(ask).context("starting the neighbour thread")?;
        self.lock().resolver = Some(questions);
        Ok(())
    }

    /// Takes over what the kernel tells of neighbours.
    pub(super) fn observe(&self, seen: &Seen<'_>) {
        match seen {
            Seen::All(messages) => self.lock().neighbours.replace_all(messages),
            Seen::Change(RtMessage::Neighbour(neighbour)) => self.lock().neighbours.update(neighbour),
            Seen::Change(_) => (),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, XdpSharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The MAC address of a neighbour. If it is unknown, the packet waits for it, a GSO packet as single segments.
    pub(super) fn resolve(
        &self,
        (ifindex, to): (u32, IpAddr),
        bytes: &[u8],
        gso: Option<&GsoPacket>,
        now: Instant,
    ) -> Option<[u8; 6]> {
        let mut state = self.lock();
        let XdpSharedState { neighbours, resolver } = &mut *state;
        // One that is not asked now is asked later.
        let ask = || _ = resolver.as_ref().map(|resolver| resolver.try_send((ifindex, to)));
        if let Resolution::Resolved(mac) = neighbours.resolve(ifindex, to, now, ask) {
            return Some(mac);
        }
        let mut enqueue = |bytes| {
            if !neighbours.enqueue(ifindex, to, bytes) {
                self.drops.add_unresolved(1);
            }
        };
        match gso.filter(|gso| bytes.len() > gso.max_segment_len()) {
            None => enqueue(bytes.to_vec()),
            Some(gso) => gso.segments(bytes).for_each(enqueue),
        }
        None
    }

    /// Hands a packet to the kernel: for the host itself, or for an interface that the driver does not have (if the kernel forwards).
    ///
    /// # Errors
    /// The TUN interface is gone.
    pub(super) fn to_kernel(&self, bytes: &mut [u8], gso: Option<&GsoPacket>) -> Result<()> {
        let offload = gso::tx_offload(gso, bytes);
        let written = self.host.write(bytes, offload).with_context(|| format!("{HOST_TUN} is gone"))?;
        self.drops.add_ring_full(u64::from(!written));
        Ok(())
    }
}
