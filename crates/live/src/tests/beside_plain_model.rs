//! Any mixture of events and dumps, delivered late: in the end the model holds what the owner holds.
use super::{flow, tcp, translated};
use crate::{FlowKey, FlowState, GroupBy, LiveTable};
use keepstate_linux::ctnetlink::{CtFlow, EventKind};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// What happens next, to the owner's table or on the way from it.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A connection is created with this state, or changes to it.
    Set(u8, u8),
    End(u8),
    /// So many queued events arrive.
    DeliverEvents(u8),
    /// The dump's reader looks at so many more connections.
    ReadDump(u8),
    /// So many queued connections of the dump arrive.
    DeliverDump(u8),
    /// Queued events are lost, and that is told.
    Lose,
}

/// The owner, and what is on the way.
#[derive(Default)]
struct Owner {
    table: BTreeMap<u8, (u32, u8)>,
    created: u32,
    events: VecDeque<(EventKind, CtFlow)>,
    dump_from: Option<u8>,
    dumped: VecDeque<CtFlow>,
}

fn connection(number: u8, id: u32, state: u8) -> CtFlow {
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    let plain = tcp(flow(6, (ip(number % 4), u16::from(number)), (ip(100 + number % 3), 80)), state);
    let plain = CtFlow { id: Some(id), ..plain };
    if number.is_multiple_of(2) { translated(plain, (ip(250), 5000 + u16::from(number))) } else { plain }
}

impl Owner {
    fn set(&mut self, number: u8, state: u8) {
        let kind = match self.table.get_mut(&number) {
            Some((_, there)) => {
                *there = state;
                EventKind::Update
            }
            None => {
                self.created += 1;
                self.table.insert(number, (self.created, state));
                EventKind::New
            }
        };
        let (id, state) = self.table[&number];
        self.events.push_back((kind, connection(number, id, state)));
    }

    fn end(&mut self, number: u8) {
        if let Some((id, state)) = self.table.remove(&number) {
            self.events.push_back((EventKind::Destroy, connection(number, id, state)));
        }
    }

    fn read_dump(&mut self, count: u8) {
        for _ in 0..count {
            let Some(from) = self.dump_from else { return };
            let next = self.table.range(from..).next().map(|(number, held)| (*number, *held));
            let Some((number, (id, state))) = next else {
                self.dump_from = None;
                return;
            };
            self.dumped.push_back(connection(number, id, state));
            self.dump_from = number.checked_add(1);
        }
    }

    fn step(&mut self, step: Step, table: &mut LiveTable, now: Duration) {
        match step {
            Step::Set(number, state) => self.set(number, state),
            Step::End(number) => self.end(number),
            Step::DeliverEvents(count) => {
                for (kind, flow) in self.events.drain(..self.events.len().min(count.into())) {
                    table.event(kind, &flow, now);
                }
            }
            Step::ReadDump(count) => self.read_dump(count),
            Step::DeliverDump(count) => {
                for flow in self.dumped.drain(..self.dumped.len().min(count.into())) {
                    table.dump_flow(&flow, now);
                }
                if self.dump_from.is_none() && self.dumped.is_empty() && table.state().dumped.is_some() {
                    table.end_dump(now);
                }
            }
            Step::Lose => {
                self.events.clear();
                table.events_lost(now);
            }
        }
    }

    fn begin_dump(&mut self, table: &mut LiveTable) {
        if table.state().dumped.is_none() {
            (self.dump_from, self.dumped) = (Some(0), VecDeque::new());
            table.begin_dump();
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..12_u8, 1..9_u8).prop_map(|(number, state)| Step::Set(number, state)),
        3 => (0..12_u8).prop_map(Step::End),
        4 => (1..4_u8).prop_map(Step::DeliverEvents),
        3 => (1..4_u8).prop_map(Step::ReadDump),
        3 => (1..4_u8).prop_map(Step::DeliverDump),
        1 => Just(Step::Lose),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn model_and_owner_agree_once_everything_has_arrived(steps in steps(), dump_at in 0..100_usize) {
        let (mut owner, mut table, now) = (Owner::default(), LiveTable::new(1000), Duration::from_secs(1));
        for (count, step) in steps.into_iter().enumerate() {
            if count == dump_at || !table.state().is_complete {
                owner.begin_dump(&mut table);
            }
            owner.step(step, &mut table, now);
        }
        // What is still on the way arrives, and lost events lead to one more dump.
        for _ in 0..3 {
            owner.begin_dump(&mut table);
            for step in [Step::DeliverEvents(255), Step::ReadDump(255), Step::DeliverDump(255)] {
                owner.step(step, &mut table, now);
            }
        }
        prop_assert!(table.state().is_complete);
        prop_assert_eq!(table.len(), owner.table.len());
        let mut states: BTreeMap<FlowState, u64> = BTreeMap::new();
        let mut sources: BTreeMap<u8, u64> = BTreeMap::new();
        for (&number, &(id, state)) in &owner.table {
            let row = table.find(&FlowKey::of(&connection(number, id, state)).unwrap(), now);
            prop_assert_eq!(row.map(|row| (row.state, row.flow.id)), Some((FlowState::Tcp(state), Some(id))));
            *states.entry(FlowState::Tcp(state)).or_default() += 1;
            *sources.entry(number % 4).or_default() += 1;
        }
        let counted: BTreeMap<FlowState, u64> = table.states().map(|(_, state, count)| (state, count)).collect();
        prop_assert_eq!(counted, states);
        let largest = table.groups(GroupBy::Source, 100, now);
        prop_assert_eq!(largest.len(), sources.len());
        prop_assert_eq!(largest.first().map(|row| row.entries), sources.values().max().copied());
        let translated = owner.table.keys().filter(|number| *number % 2 == 0).count() as u64;
        prop_assert_eq!(table.nat_ports().first().map_or(0, |used| used.connections), translated);
    }
}
