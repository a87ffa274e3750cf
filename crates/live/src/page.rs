//! A page of the table: filtered, sorted, and as much of it as is shown.
//!
//! Sorting a million connections for thirty rows would cost more than all else, so only the best are kept while the table is read once.
use crate::flow_key::FlowKey;
use crate::flow_record::{FlowRecord, FlowState, NatPath};
use keepstate_conntrack::FlowSelection;
use keepstate_linux::ctnetlink::CtFlow;
use std::net::IpAddr;
use std::time::Duration;

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowSort {
    /// The newest first.
    Newest,
    /// The oldest first.
    Oldest,
    /// The fastest first, in bytes a second.
    Rate,
    /// The most bytes first.
    Bytes,
    /// By source address and port.
    Source,
    /// By destination address and port.
    Destination,
    /// The next to expire first.
    Timeout,
}

impl FlowSort {
    /// All, in the order in which they are offered.
    pub const ALL: [FlowSort; 7] = [
        FlowSort::Newest,
        FlowSort::Oldest,
        FlowSort::Rate,
        FlowSort::Bytes,
        FlowSort::Source,
        FlowSort::Destination,
        FlowSort::Timeout,
    ];

    /// Its name for a heading.
    pub fn name(self) -> &'static str {
        match self {
            FlowSort::Newest => "newest",
            FlowSort::Oldest => "oldest",
            FlowSort::Rate => "bytes/s",
            FlowSort::Bytes => "bytes",
            FlowSort::Source => "source",
            FlowSort::Destination => "destination",
            FlowSort::Timeout => "timeout",
        }
    }

    /// A number by which rows ascend.
    fn order(self, record: &FlowRecord, now: Duration) -> (u128, u16) {
        let falling = |number: u64| (u128::from(u64::MAX - number), 0);
        match self {
            FlowSort::Newest => falling(u64::from(record.began)),
            FlowSort::Oldest => (u128::from(record.began), 0),
            FlowSort::Rate => falling(record.bytes_per_second()),
            FlowSort::Bytes => falling(record.bytes()),
            FlowSort::Source => (address_number(record.key.source), record.key.ports[0]),
            FlowSort::Destination => (address_number(record.key.destination), record.key.ports[1]),
            FlowSort::Timeout => (u128::from(record.remaining(now)), 0),
        }
    }
}

/// IPv4 before IPv6, each in its order.
fn address_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Which rows.
#[derive(Clone, Copy, Debug)]
pub struct PageQuery<'a> {
    /// Only these; none for all.
    pub filter: Option<&'a FlowSelection>,
    /// In this order; equal ones in the order in which they were found.
    pub sort: FlowSort,
    /// The first row, from 0. Beyond 100,000 there are no rows: narrow the filter.
    pub offset: usize,
    /// How many rows.
    pub rows: usize,
}

/// One connection, ready to be shown.
#[derive(Clone, Debug)]
pub struct FlowRow {
    /// Its name in the table.
    pub key: FlowKey,
    /// The connection as a message; its timeout is what is left as far as is known.
    pub flow: CtFlow,
    /// Its state.
    pub state: FlowState,
    /// The translation, if there is one.
    pub nat: Option<NatPath>,
    /// Seconds since it was first seen.
    pub age: u32,
    /// Bytes of both directions; `None` if they are not counted.
    pub bytes: Option<u64>,
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Packets a second.
    pub packets_per_second: u64,
}

/// A page.
#[derive(Clone, Debug, Default)]
pub struct TablePage {
    /// The rows.
    pub rows: Vec<FlowRow>,
    /// How many connections match, shown or not.
    pub matched: u64,
}

/// Rows that can be reached by paging.
const MAX_OFFSET: usize = 100_000;

type Ordered = ((u128, u16), u32);

/// Selects a page of the records, which come with their slots.
pub(crate) fn select<'a>(
    records: impl Iterator<Item = (u32, &'a FlowRecord)>,
    of_slot: impl Fn(u32) -> Option<&'a FlowRecord>,
    query: &PageQuery<'_>,
    now: Duration,
) -> TablePage {
    let wanted = query.offset.min(MAX_OFFSET).saturating_add(query.rows).max(1);
    let mut best: Vec<Ordered> = Vec::with_capacity(wanted.saturating_mul(2));
    let mut worst_kept = None;
    let mut matched = 0_u64;
    let mut flow = CtFlow::default();
    for (slot, record) in records {
        if let Some(filter) = query.filter {
            record.fill(&mut flow, now);
            if !filter.matches(&flow) {
                continue;
            }
        }
        matched += 1;
        let order = (query.sort.order(record, now), slot);
        if worst_kept.is_some_and(|worst| order > worst) {
            continue;
        }
        best.push(order);
        if best.len() >= wanted.saturating_mul(2) {
            best.select_nth_unstable(wanted - 1);
            best.truncate(wanted);
            worst_kept = best.get(wanted - 1).copied();
        }
    }
    best.sort_unstable();
    let shown = best.iter().take(wanted).skip(query.offset.min(MAX_OFFSET)).take(query.rows);
    let rows = shown.filter_map(|(_, slot)| of_slot(*slot)).map(|record| row(record, now)).collect();
    TablePage { rows, matched }
}

/// A record as a row.
pub(crate) fn row(record: &FlowRecord, now: Duration) -> FlowRow {
    let mut flow = CtFlow::default();
    record.fill(&mut flow, now);
    FlowRow {
        key: record.key,
        flow,
        state: record.state,
        nat: record.nat(),
        age: crate::flow_record::seconds(now).saturating_sub(record.began),
        bytes: record.meter.as_deref().map(|_| record.bytes()),
        bytes_per_second: record.bytes_per_second(),
        packets_per_second: record.meter.as_deref().map_or(0, |meter| meter.packets_per_second),
    }
}
