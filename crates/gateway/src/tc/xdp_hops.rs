//! The neighbours to which packets are sent on at XDP: the kernel's own, followed by a thread. It tells the programs of those that can be sent to, and the kernel of those that are, so that it confirms them as
//! it does when it sends itself.
use super::xdp_interfaces::may_leave_by;
use crate::route_follower::Seen;
use anyhow::{Context, Result};
use keepstate_linux::netdev::{XdpFeatureQuery, XdpFeatures};
use keepstate_linux::rtnetlink::{NeighbourResolver, RtLink, RtMessage, RtNeighbour, dump_links, dump_neighbours};
use keepstate_linux::tc::{Hop, HopKey, HopTable};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant as Clock};

/// Between two times that the kernel is told which neighbours are sent to, and is asked again what drivers can do and how interfaces queue.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// One that was sent to within so long is in use.
const IN_USE_MS: u32 = 3000;
/// Neighbours that the kernel is told of in one turn.
const MAX_TOLD: usize = 64;

/// Tells the thread what the kernel has told.
#[derive(Clone)]
pub(super) struct HopNews(Sender<HopMessage>);

enum HopMessage {
    /// Everything that there is.
    All(Vec<RtMessage>),
    Change(RtMessage),
}

impl HopNews {
    /// Takes note of what the kernel tells of links and neighbours.
    pub(super) fn observe(&self, seen: &Seen<'_>) {
        let is_wanted = |message: &RtMessage| {
            matches!(message, RtMessage::Link(_) | RtMessage::LinkGone(_) | RtMessage::Neighbour(_))
        };
        let news = match seen {
            Seen::All(messages) => {
                HopMessage::All(messages.iter().filter(|message| is_wanted(message)).cloned().collect())
            }
            Seen::Change(message) if is_wanted(message) => HopMessage::Change((*message).clone()),
            Seen::Change(_) => return,
        };
        // Without a receiver the gateway ends.
        let _ = self.0.send(news);
    }
}

/// Starts the thread; it ends with the last [`HopNews`]. Nothing is done while `is_used` is not set.
///
/// # Errors
/// There is no thread, or no socket.
pub(super) fn start(table: HopTable, is_used: Arc<AtomicBool>) -> Result<HopNews> {
    let (sender, news) = channel();
    let resolver = NeighbourResolver::open().context("opening a route socket")?;
    let mut hops = XdpHops {
        table,
        resolver,
        is_used,
        links: BTreeMap::new(),
        query: None,
        features: HashMap::new(),
        neighbours: HashMap::new(),
    };
    std::thread::Builder::new()
        .name("neighbours".into())
        .spawn(move || hops.run(&news))
        .context("starting the thread that follows neighbours")?;
    Ok(HopNews(sender))
}

struct XdpHops {
    table: HopTable,
    resolver: NeighbourResolver,
    is_used: Arc<AtomicBool>,
    links: BTreeMap<u32, RtLink>,
    /// Asks drivers; `None` before it is first needed, and where the kernel does not tell.
    query: Option<XdpFeatureQuery>,
    features: HashMap<u32, XdpFeatures>,
    neighbours: HashMap<HopKey, KnownNeighbour>,
}

struct KnownNeighbour {
    mac: [u8; 6],
    is_confirmed: bool,
}

impl XdpHops {
    fn run(&mut self, news: &Receiver<HopMessage>) {
        // What has changed since is told.
        match dump_neighbours() {
            Ok(messages) => messages.into_iter().for_each(|message| self.apply(message)),
            Err(error) => tracing::debug!("reading the neighbours: {error}"),
        }
        let mut upkeep = Clock::now();
        loop {
            match news.recv_timeout(upkeep.saturating_duration_since(Clock::now())) {
                Ok(HopMessage::All(messages)) => {
                    self.links.clear();
                    self.neighbours.clear();
                    // An interface may be another one that has its index now.
                    self.tell_of(|_| true);
                    self.table.forget_interfaces(|_| true);
                    messages.into_iter().for_each(|message| self.apply(message));
                    self.tell_of(|_| true);
                }
                Ok(HopMessage::Change(message)) => self.apply(message),
                Err(RecvTimeoutError::Timeout) => {
                    upkeep = Clock::now() + UPKEEP_INTERVAL;
                    self.look_after();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn apply(&mut self, message: RtMessage) {
        match message {
            RtMessage::Link(link) => {
                let index = link.index;
                if self.links.insert(index, link.clone()) != Some(link) {
                    self.tell_of_link(index);
                }
            }
            RtMessage::LinkGone(index) => {
                self.links.remove(&index);
                self.neighbours.retain(|key, _| u32::from(key.oif) != index);
                self.tell_of_link(index);
                self.table.forget_interfaces(|oif| u32::from(oif) == index);
            }
            RtMessage::Neighbour(RtNeighbour { ifindex, address, mac, is_confirmed, .. }) => {
                // The programs know no others.
                let Ok(oif) = u16::try_from(ifindex) else { return };
                let key = HopKey { oif, address };
                match mac {
                    Some(mac) => _ = self.neighbours.insert(key, KnownNeighbour { mac, is_confirmed }),
                    None => _ = self.neighbours.remove(&key),
                }
                self.tell(key);
            }
            _ => (),
        }
    }

    /// Tells the programs of one neighbour.
    fn tell(&mut self, key: HopKey) {
        match self.hop(&key) {
            Some(hop) => _ = self.table.set(key, hop),
            None => self.table.remove(&key),
        }
    }

    /// How frames to a neighbour look; `None` if XDP cannot send to it.
    fn hop(&self, key: &HopKey) -> Option<Hop> {
        let ifindex = u32::from(key.oif);
        let link = self.links.get(&ifindex).filter(|_| self.is_used.load(Ordering::Relaxed))?;
        let features = self.features.get(&ifindex).copied().unwrap_or_default();
        let neighbour = self.neighbours.get(key).filter(|_| may_leave_by(link, features))?;
        // Groups are no neighbours that flows are sent to.
        let is_group = neighbour.mac.first().is_some_and(|byte| byte & 1 != 0);
        Some(Hop { to: neighbour.mac, from: link.mac?, mtu: link.mtu }).filter(|hop| hop.mtu > 0 && !is_group)
    }

    fn tell_of_link(&mut self, index: u32) {
        self.tell_of(|key| u32::from(key.oif) == index);
    }

    /// Tells the programs of these neighbours, known now or told before.
    fn tell_of(&mut self, is_meant: impl Fn(&HopKey) -> bool) {
        let all = self.neighbours.keys().chain(self.table.keys()).filter(|key| is_meant(key));
        all.copied().collect::<Vec<_>>().into_iter().for_each(|key| self.tell(key));
    }

    /// Asks drivers again, and has the kernel confirm neighbours that are in use.
    fn look_after(&mut self) {
        if self.is_used.load(Ordering::Relaxed) {
            let features = self.read_features();
            let is_new = features != self.features;
            self.features = features;
            // The kernel's news of links say nothing of a new queueing discipline.
            match dump_links() {
                Ok(links) => links.into_iter().for_each(|link| self.apply(RtMessage::Link(link))),
                Err(error) => tracing::debug!("reading the interfaces: {error}"),
            }
            if is_new {
                self.tell_of(|_| true);
            }
        } else if self.table.keys().next().is_some() {
            self.tell_of(|_| true);
        }
        let is_old = |key: &&HopKey| {
            self.neighbours.get(*key).is_some_and(|neighbour| !neighbour.is_confirmed)
                && self.table.age_ms(key).is_some_and(|age| age < IN_USE_MS)
        };
        let old: Vec<HopKey> = self.table.keys().filter(is_old).take(MAX_TOLD).copied().collect();
        for key in old {
            if let Err(error) = self.resolver.resolve(u32::from(key.oif), key.address) {
                tracing::debug!("neighbour {}: {error}", key.address);
            }
        }
    }

    /// What the drivers can do; nothing where the kernel does not tell.
    fn read_features(&mut self) -> HashMap<u32, XdpFeatures> {
        let query = self.query.take().map_or_else(XdpFeatureQuery::open, Ok);
        let read = query.and_then(|mut query| query.read().map(|features| (query, features)));
        match read {
            Ok((query, features)) => {
                self.query = Some(query);
                features
            }
            Err(error) => {
                tracing::debug!("what drivers can do with XDP is not known: {error}");
                HashMap::new()
            }
        }
    }
}
