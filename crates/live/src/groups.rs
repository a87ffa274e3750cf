//! Who fills the table: connections by source, by service, by state, by zone and by translated address, counted as they come and go.
//!
//! A group lives as long as one of its connections: there are never more groups than connections.
use crate::flow_key::endpoint_text;
use crate::flow_record::{FlowRecord, FlowState};
use crate::rate::FadingRate;
use keepstate_conntrack::format::protocol_name;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

/// What connections are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The address that opened them.
    Source,
    /// Protocol, destination address and port of the original direction.
    Service,
    /// Protocol and state.
    State,
    /// The zone of the original direction.
    Zone,
    /// The address that their source is translated to.
    Outside,
    /// The network namespace that an end of them is in.
    Namespace,
    /// The container, pod or service that an end of them belongs to.
    Container,
}

impl GroupBy {
    /// All, in the order in which they are offered.
    pub const ALL: [GroupBy; 7] = [
        GroupBy::Source,
        GroupBy::Service,
        GroupBy::State,
        GroupBy::Zone,
        GroupBy::Outside,
        GroupBy::Namespace,
        GroupBy::Container,
    ];

    /// Its name for a heading.
    pub fn name(self) -> &'static str {
        match self {
            GroupBy::Source => "source",
            GroupBy::Service => "service",
            GroupBy::State => "state",
            GroupBy::Zone => "zone",
            GroupBy::Outside => "NAT address",
            GroupBy::Namespace => "namespace",
            GroupBy::Container => "container",
        }
    }

    /// Is it counted when it is asked for, by a picture of this machine's sockets? The others are counted as connections come and go.
    pub fn is_owner(self) -> bool {
        matches!(self, GroupBy::Namespace | GroupBy::Container)
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRow {
    /// What its connections have in common.
    pub label: String,
    /// The words of `conntrack -L` that select them; empty if there are none.
    pub words: String,
    /// How many there are.
    pub entries: u64,
    /// New ones a second, over the last ten seconds.
    pub new_per_second: f64,
    /// Bytes a second of all of them, if they are counted.
    pub bytes_per_second: u64,
}

/// The counts of one group.
#[derive(Clone, Copy, Debug, Default)]
struct GroupTally {
    entries: u64,
    new: FadingRate,
    bytes_per_second: u64,
}

type Service = (u8, IpAddr, u16);

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct FlowGroups {
    source: HashMap<IpAddr, GroupTally>,
    service: HashMap<Service, GroupTally>,
    state: HashMap<(u8, FlowState), GroupTally>,
    zone: HashMap<u16, GroupTally>,
    outside: HashMap<IpAddr, GroupTally>,
}

/// What of a connection decides its groups, and may change while it lives.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct GroupFacts {
    state: FlowState,
    bytes_per_second: u64,
    outside: Option<IpAddr>,
}

impl GroupFacts {
    pub(crate) fn of(record: &FlowRecord) -> GroupFacts {
        GroupFacts {
            state: record.state,
            bytes_per_second: record.bytes_per_second(),
            outside: record.source_nat().map(|reply| reply.destination),
        }
    }
}

/// What a connection did.
#[derive(Clone, Copy)]
pub(crate) enum GroupChange {
    /// It was created now.
    Created,
    /// It was there already when it was first seen.
    Found,
    /// It has gone.
    Gone,
}

impl FlowGroups {
    /// Counts a connection in or out.
    pub(crate) fn count(&mut self, record: &FlowRecord, change: GroupChange, now: Duration) {
        let key = &record.key;
        let bytes = record.bytes_per_second();
        tally(&mut self.source, key.source, change, bytes, now);
        tally(&mut self.service, service_of(record), change, bytes, now);
        tally(&mut self.state, (key.protocol, record.state), change, bytes, now);
        tally(&mut self.zone, key.zone, change, bytes, now);
        if let Some(reply) = record.source_nat() {
            tally(&mut self.outside, reply.destination, change, bytes, now);
        }
    }

    /// Counts a connection that has changed: `before` is what it was.
    pub(crate) fn change(&mut self, record: &FlowRecord, before: GroupFacts, now: Duration) {
        let after = GroupFacts::of(record);
        if after == before {
            return;
        }
        let (key, bytes) = (&record.key, [before.bytes_per_second, after.bytes_per_second]);
        move_bytes(&mut self.source, &key.source, bytes);
        move_bytes(&mut self.service, &service_of(record), bytes);
        move_bytes(&mut self.zone, &key.zone, bytes);
        tally(&mut self.state, (key.protocol, before.state), GroupChange::Gone, before.bytes_per_second, now);
        tally(&mut self.state, (key.protocol, after.state), GroupChange::Found, after.bytes_per_second, now);
        if before.outside == after.outside {
            after.outside.inspect(|address| move_bytes(&mut self.outside, address, bytes));
            return;
        }
        if let Some(address) = before.outside {
            tally(&mut self.outside, address, GroupChange::Gone, before.bytes_per_second, now);
        }
        if let Some(address) = after.outside {
            tally(&mut self.outside, address, GroupChange::Found, after.bytes_per_second, now);
        }
    }

    /// Connections by protocol and state.
    pub(crate) fn states(&self) -> impl Iterator<Item = (u8, FlowState, u64)> {
        self.state.iter().map(|(&(protocol, state), tally)| (protocol, state, tally.entries))
    }

    /// The number of groups.
    pub(crate) fn len(&self, by: GroupBy) -> usize {
        match by {
            GroupBy::Source => self.source.len(),
            GroupBy::Service => self.service.len(),
            GroupBy::State => self.state.len(),
            GroupBy::Zone => self.zone.len(),
            GroupBy::Outside => self.outside.len(),
            // They are counted by `owner_groups`.
            GroupBy::Namespace | GroupBy::Container => 0,
        }
    }

    /// The largest groups, at most `most`.
    pub(crate) fn largest(&self, by: GroupBy, most: usize, now: Duration) -> Vec<GroupRow> {
        let address =
            |option: &'static str| move |address: &IpAddr| (address.to_string(), format!("{option} {address}"));
        match by {
            GroupBy::Source => largest(&self.source, most, now, address("-s")),
            GroupBy::Service => largest(&self.service, most, now, service_text),
            GroupBy::State => largest(&self.state, most, now, state_text),
            GroupBy::Zone => largest(&self.zone, most, now, |zone| (zone.to_string(), format!("-w {zone}"))),
            GroupBy::Outside => largest(&self.outside, most, now, address("--reply-dst")),
            GroupBy::Namespace | GroupBy::Container => Vec::new(),
        }
    }
}

fn service_of(record: &FlowRecord) -> Service {
    let key = &record.key;
    (key.protocol, key.destination, if key.has_ports() { key.ports[1] } else { 0 })
}

/// Its name, and the words that select it.
fn service_text(&(protocol, address, port): &Service) -> (String, String) {
    let name = protocol_text(protocol);
    let port_words = if port == 0 { String::new() } else { format!(" --dport {port}") };
    (
        format!("{name} {}", endpoint_text(address, (port != 0).then_some(port))),
        format!("-p {name} -d {address}{port_words}"),
    )
}

fn state_text((protocol, state): &(u8, FlowState)) -> (String, String) {
    let name = protocol_text(*protocol);
    let option = match state {
        FlowState::Tcp(_) | FlowState::Sctp(_) => format!("--state {}", state.name()),
        FlowState::Unreplied => "-u UNREPLIED".into(),
        FlowState::Replied => "-u SEEN_REPLY".into(),
        FlowState::Assured => "-u ASSURED".into(),
    };
    (format!("{name} {}", state.name()), format!("-p {name} {option}"))
}

/// A protocol's name, or its number.
pub(crate) fn protocol_text(number: u8) -> String {
    protocol_name(number).map_or_else(|| number.to_string(), str::to_owned)
}

fn tally<K: Eq + Hash>(into: &mut HashMap<K, GroupTally>, key: K, change: GroupChange, bytes: u64, now: Duration) {
    if let GroupChange::Gone = change {
        if let Some(tally) = into.get_mut(&key) {
            tally.entries = tally.entries.saturating_sub(1);
            tally.bytes_per_second = tally.bytes_per_second.saturating_sub(bytes);
            if tally.entries == 0 {
                into.remove(&key);
            }
        }
        return;
    }
    let tally = into.entry(key).or_default();
    tally.entries += 1;
    tally.bytes_per_second = tally.bytes_per_second.saturating_add(bytes);
    if let GroupChange::Created = change {
        tally.new.hit(now);
    }
}

/// The bytes a second of one connection in a group have changed.
fn move_bytes<K: Eq + Hash>(groups: &mut HashMap<K, GroupTally>, key: &K, [before, after]: [u64; 2]) {
    if let Some(tally) = groups.get_mut(key) {
        tally.bytes_per_second = tally.bytes_per_second.saturating_sub(before).saturating_add(after);
    }
}

fn largest<K: Ord>(
    groups: &HashMap<K, GroupTally>,
    most: usize,
    now: Duration,
    text: impl Fn(&K) -> (String, String),
) -> Vec<GroupRow> {
    let mut all: Vec<(&K, &GroupTally)> = groups.iter().collect();
    let order = |a: &(&K, &GroupTally), b: &(&K, &GroupTally)| b.1.entries.cmp(&a.1.entries).then(a.0.cmp(b.0));
    if all.len() > most && most > 0 {
        all.select_nth_unstable_by(most - 1, order);
    }
    all.truncate(most);
    all.sort_unstable_by(order);
    all.into_iter()
        .map(|(key, tally)| {
            let (label, words) = text(key);
            GroupRow {
                label,
                words,
                entries: tally.entries,
                new_per_second: f64::from(tally.new.at(now)),
                bytes_per_second: tally.bytes_per_second,
            }
        })
        .collect()
}
