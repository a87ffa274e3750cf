//! Two machines, each a network namespace with its own connection table, and a transport in memory: what the standby's kernel has after it became active is what the active one's had.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
use keepstate_cluster::{
    Decider, Epoch, LeaseRequest, NodeInstance, NodeName, QueueFull, ShardRole, StateFrame, StateTransport,
    TransportEvent,
};
use keepstate_linux::ctnetlink::{
    CtClient, CtDumpKind, CtFamily, CtFlow, CtNatRange, CtProtoInfo, CtTcpInfo, CtTuple, DumpFilter, Status,
};
use keepstate_linux::netns::AnonNetns;
use keepstate_sync::{SyncError, SyncNode, SyncOptions};
use keepstate_test_support::report_skipped;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Queue = Arc<Mutex<VecDeque<TransportEvent>>>;

/// Stored at once, and delivered to the other machine.
struct MemoryTransport {
    ours: Queue,
    theirs: Queue,
}

impl StateTransport for MemoryTransport {
    fn publish(&mut self, frame: StateFrame) -> Result<(), QueueFull> {
        if frame.kind.is_stored() {
            let (shard, epoch, sequence) = (frame.shard.clone(), frame.epoch, frame.sequence);
            self.ours.lock().unwrap().push_back(TransportEvent::Acknowledged { shard, epoch, sequence });
        }
        self.theirs.lock().unwrap().push_back(TransportEvent::Received(frame));
        Ok(())
    }

    fn request_lease(&mut self, _: LeaseRequest) {}

    fn poll(&mut self) -> Option<TransportEvent> {
        self.ours.lock().unwrap().pop_front()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Machine {
    namespace: AnonNetns,
    node: SyncNode,
    stored: Arc<Mutex<Epoch>>,
}

impl Machine {
    fn new(name: &str, ours: &Queue, theirs: &Queue) -> Option<Machine> {
        let namespace = AnonNetns::create().ok()?;
        ours.lock().unwrap().push_back(TransportEvent::Connected);
        let transport = Box::new(MemoryTransport { ours: ours.clone(), theirs: theirs.clone() });
        let options = SyncOptions {
            shard: "main".parse().unwrap(),
            node: name.parse::<NodeName>().unwrap(),
            instance: NodeInstance::default(),
            decider: Decider::Hand,
            ignored: [IpAddr::from([10, 9, 9, 9])].into(),
            stored_epoch: Epoch(0),
            read_interval: Duration::from_millis(100),
            event_buffer: 64 << 10,
        };
        let stored = Arc::new(Mutex::new(Epoch(0)));
        let disk = Arc::clone(&stored);
        let store = Box::new(move |epoch| {
            *disk.lock().unwrap() = epoch;
            Ok(())
        });
        let node = namespace.enter(|| SyncNode::new(options, transport, store, Duration::ZERO)).ok()?.unwrap();
        Some(Machine { namespace, node, stored })
    }

    fn table(&self) -> CtClient {
        self.namespace.enter(CtClient::open).unwrap().unwrap()
    }

    fn entries(&self) -> Vec<CtFlow> {
        let mut flows = Vec::new();
        let kind = CtDumpKind::Confirmed;
        let listed = self.table().dump(kind, &DumpFilter::default(), |flow| {
            // What is another's each time, and TCP's flags, which are lenient after a takeover.
            let mut flow = CtFlow { id: None, use_count: None, timeout: None, ..flow.clone() };
            if let CtProtoInfo::Tcp(info) = &mut flow.protoinfo {
                info.flags = [None; 2];
            }
            flows.push(flow);
            ControlFlow::Continue(())
        });
        listed.unwrap();
        flows.sort_by_key(|flow| (flow.original, flow.zone, flow.reply));
        flows
    }
}

/// Two machines and their clock.
struct Pair {
    machines: [Machine; 2],
    now: Duration,
}

impl Pair {
    fn new() -> Option<Pair> {
        let queues = [Queue::default(), Queue::default()];
        let machines = [Machine::new("a", &queues[0], &queues[1])?, Machine::new("b", &queues[1], &queues[0])?];
        Some(Pair { machines, now: Duration::ZERO })
    }

    fn turn(&mut self) {
        self.now += Duration::from_millis(10);
        for machine in &mut self.machines {
            let now = self.now;
            // As a machine does that does not wait while there is more.
            let turns = || {
                for _ in 0..16 {
                    if !machine.node.turn(now)? {
                        break;
                    }
                }
                Ok::<_, SyncError>(())
            };
            machine.namespace.enter(turns).unwrap().unwrap();
        }
    }

    fn turn_until(&mut self, what: &str, done: impl Fn(&[Machine; 2]) -> bool) {
        for _ in 0..200_000 {
            self.turn();
            if done(&self.machines) {
                return;
            }
        }
        let [a, b] = &self.machines;
        panic!("{what}: {:?} {:?} {:?} {:?}", a.node.status(), a.node.counters(), b.node.status(), b.node.counters());
    }

    fn promote(&mut self, index: usize) {
        let now = self.now;
        self.machines[index].node.promote(now).unwrap();
        self.turn_until("promoted", |machines| machines[index].node.is_ready());
    }

    /// The standby holds all that the active one has, after two more readings of its table: the second begins after the last change.
    fn converge(&mut self) {
        let readings = |machines: &[Machine; 2]| machines.iter().map(|machine| machine.node.counters().readings).sum();
        let before: u64 = readings(&self.machines);
        self.turn_until("converged", |machines| {
            if readings(machines) < before + 2 {
                return false;
            }
            let [a, b] = machines;
            let (active, standby) = if a.node.status().role == ShardRole::Active { (a, b) } else { (b, a) };
            let (sent, held) = (active.node.counters(), standby.node.counters());
            active.node.status().in_step
                && standby.node.status().in_step
                && sent.waiting == 0
                && sent.known == held.held
        });
    }
}

fn flow(protocol: u8, last: u8, port: u16) -> CtFlow {
    let original = CtTuple {
        source: Some(IpAddr::from([10, 0, 0, last])),
        destination: Some(IpAddr::from([10, 0, 1, 1])),
        protocol: Some(protocol),
        source_port: Some(port),
        destination_port: Some(80),
        ..CtTuple::default()
    };
    let reply = CtTuple {
        source: original.destination,
        destination: original.source,
        source_port: Some(80),
        destination_port: Some(port),
        ..original
    };
    let tcp = CtProtoInfo::Tcp(CtTcpInfo { state: Some(3), wscale: [Some(7), Some(9)], ..CtTcpInfo::default() });
    CtFlow {
        family: Some(CtFamily::V4),
        original,
        reply,
        timeout: Some(1_000),
        status: Some(Status::CONFIRMED | Status::SEEN_REPLY | Status::ASSURED),
        protoinfo: if protocol == 6 { tcp } else { CtProtoInfo::Empty },
        mark: Some(7),
        ..CtFlow::default()
    }
}

/// Behind an outside address, each with a port of its own.
fn translated(last: u8, port: u16, outside: u16) -> CtFlow {
    let source_nat = Some(CtNatRange { address: IpAddr::from([192, 0, 2, 1]), ports: Some([outside, outside]) });
    CtFlow { source_nat, ..flow(6, last, port) }
}

fn assert_same(there: &[CtFlow], wanted: &[CtFlow]) {
    let without = |some: &[CtFlow], others: &[CtFlow]| -> Vec<CtFlow> {
        some.iter().filter(|flow| !others.contains(flow)).take(3).cloned().collect()
    };
    let (extra, missing) = (without(there, wanted), without(wanted, there));
    assert!(extra.is_empty() && missing.is_empty(), "extra {extra:?}\nmissing {missing:?}");
}

#[test]
fn a_takeover_has_every_entry_and_the_next_one_has_what_came_after() {
    let Some(mut pair) = Pair::new() else { return report_skipped("two machines: network namespaces need root") };
    let mut table = pair.machines[0].table();
    for port in 1..=300 {
        table.create(&flow(17, 1, port)).unwrap();
        table.create(&translated(2, 1000 + port, 2000 + port)).unwrap();
    }
    pair.promote(0);
    pair.converge();
    // An entry that changes, one that goes, one that comes, and two that are this machine's own.
    table.update(&CtFlow { mark: Some(99), reply: CtTuple::default(), ..flow(17, 1, 1) }).unwrap();
    table.delete(&CtFlow { reply: CtTuple::default(), ..flow(17, 1, 2) }).unwrap();
    table.create(&translated(3, 1, 3001)).unwrap();
    pair.converge();
    let wanted = pair.machines[0].entries();
    assert_eq!(wanted.len(), 600);
    for own in [[127, 0, 0, 1], [10, 9, 9, 9]] {
        let mut own_flow = flow(17, 9, 9);
        own_flow.original.source = Some(own.into());
        own_flow.reply.destination = Some(own.into());
        table.create(&own_flow).unwrap();
    }
    pair.converge();
    assert!(pair.machines[1].entries().is_empty(), "a standby's own table stays as it is");
    pair.promote(1);
    assert_eq!(pair.machines[1].node.counters().restored.restored, 600);
    assert_same(&pair.machines[1].entries(), &wanted);
    pair.turn_until("handed over", |[a, _]| a.node.status().role == ShardRole::Standby);
    let stored = |index: usize| *pair.machines[index].stored.lock().unwrap();
    assert_eq!((stored(0), stored(1)), (Epoch(2), Epoch(2)), "both disks know the last epoch");

    // Back again: what came meanwhile, and the older entries of the first machine are replaced.
    let mut table = pair.machines[1].table();
    table.update(&CtFlow { mark: Some(5), reply: CtTuple::default(), ..flow(17, 1, 3) }).unwrap();
    table.create(&flow(6, 4, 4)).unwrap();
    pair.converge();
    let wanted = pair.machines[1].entries();
    pair.promote(0);
    let own = |flow: &CtFlow| {
        [[127, 0, 0, 1], [10, 9, 9, 9]].iter().any(|own| flow.original.source == Some(IpAddr::from(*own)))
    };
    let mut there = pair.machines[0].entries();
    there.retain(|flow| !own(flow));
    assert_same(&there, &wanted);
}

#[test]
fn events_that_the_kernel_has_lost_are_made_up_for() {
    let Some(mut pair) = Pair::new() else { return report_skipped("two machines: network namespaces need root") };
    pair.promote(0);
    pair.converge();
    let mut table = pair.machines[0].table();
    // Nobody reads the events of these.
    for last in 1..=2 {
        for port in 1..=1_000 {
            table.create(&flow(17, last, port)).unwrap();
        }
    }
    table.delete(&CtFlow { reply: CtTuple::default(), ..flow(17, 2, 7) }).unwrap();
    pair.converge();
    assert!(pair.machines[0].node.counters().overruns > 0, "the test must lose events");
    let wanted = pair.machines[0].entries();
    assert_eq!(wanted.len(), 1_999);
    pair.promote(1);
    assert_same(&pair.machines[1].entries(), &wanted);
}
