//! A flow log of a whole gateway under load: every record is in the file, or the log says how many are not.
//!
//! `KEEPSTATE_FLOWLOG_RECORDS=1000000` makes so many records, instead of 200,000.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use super::test_packets::udp_packet;
use super::*;
use crate::clock::SystemTimeSource;
use crate::flow_log::{FlowLogConfig, FlowLogTarget, LogBackends};
use crate::flow_log_counters::FlowLogCounters;
use crate::load::LoadedConfig;
use crate::packet_batch::PacketBatch;
use crate::ruleset::RulesetOptions;
use keepstate_engine::{Engine, Instant, NatPolicy, Secret, Sysctl, Sysctls};
use keepstate_flowlog::{LogEvent, LogRecord, parse_json_line};
use keepstate_router::{FibTable, Interface};
use keepstate_rules::Program;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

const RULES: &str = "
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 snat to 10.2.0.100-10.2.0.109
	}
}
";
const RX_BATCH: u32 = 64;
/// Records that may wait: fewer than the log's queue holds.
const MAX_WAITING: u64 = 20_000;

/// Opens connections, not faster than the log is written, and stops once all have expired.
struct PacedDriver {
    batch: PacketBatch,
    connections: u32,
    sent: u32,
    counters: Vec<Arc<FlowLogCounters>>,
    signals: Arc<SignalFlags>,
}

impl Driver for PacedDriver {
    fn wait(&mut self, _: i32) -> Result<()> {
        std::thread::yield_now();
        Ok(())
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        let mut turn = gateway.lock(TurnKind::Packets);
        if self.sent == self.connections {
            if turn.router.engine().count() == 0 {
                self.signals.stop.store(true, Ordering::Relaxed);
            }
            return Ok(0);
        }
        let is_behind = |log: &Arc<FlowLogCounters>| log.written() + MAX_WAITING < u64::from(self.sent);
        if self.counters.iter().any(is_behind) {
            return Ok(0);
        }
        for _ in 0..RX_BATCH.min(self.connections - self.sent) {
            self.batch.push(&packet_of(self.sent), 1, 0);
            self.sent += 1;
        }
        self.batch.route(&mut turn.router, now);
        drop(turn);
        let outputs = self.batch.take_outputs();
        self.batch.return_outputs(outputs);
        Ok(1)
    }
}

/// A UDP packet of this connection to 10.2.0.9:53.
fn packet_of(connection: u32) -> [u8; 29] {
    let [_, high, middle, low] = (connection / 40_000 + 2).to_be_bytes();
    let [.., port_high, port_low] = (10_000 + connection % 40_000).to_be_bytes();
    udp_packet([10, 128 | high, middle, low], u16::from_be_bytes([port_high, port_low]))
}

fn router(folder: &Path, nat: &NatPolicy, max: u32) -> Router {
    let ruleset = folder.join("rules.nft");
    std::fs::write(&ruleset, RULES).unwrap();
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    for (sysctl, value) in
        [(Sysctl::Max, max.into()), (Sysctl::UdpTimeout, 1), (Sysctl::Acct, 1), (Sysctl::Timestamp, 1)]
    {
        engine.set_sysctl(sysctl, value).unwrap();
    }
    engine.set_nat_policy(nat.clone(), Instant(0));
    let lan = Interface::new(1, "lan0", 1500).with_address([10, 128, 0, 1].into(), 9);
    let wan = Interface::new(2, "wan0", 1500).with_address([10, 2, 0, 1].into(), 24);
    let mut router = Router::new(engine, Program::default(), FibTable::new(vec![lan, wan], Vec::new()), (1, 2));
    router.set_wall_clock(SystemTimeSource.wall_clock());
    LoadedConfig::read(&RulesetOptions::default(), &ruleset, None)
        .unwrap()
        .apply(&mut router, SystemTimeSource.now())
        .log();
    router
}

/// Runs so many connections through a gateway with these logs.
fn run_gateway(router: Router, connections: u32, logs: &[FlowLogConfig]) -> Vec<Arc<FlowLogCounters>> {
    let gateway = SharedGateway::new(router, None, Arc::new(SystemTimeSource));
    let signals = Arc::new(SignalFlags::none());
    let mut flow_logs = FlowLogs::start(logs, &LogBackends::default()).unwrap();
    let counters = flow_logs.counters();
    let mut driver = PacedDriver {
        batch: PacketBatch::default(),
        connections,
        sent: 0,
        counters: counters.clone(),
        signals: Arc::clone(&signals),
    };
    flow_logs.attach(&gateway, None);
    let reloader = Reloader::new(Arc::new(|| anyhow::bail!("nothing to read")), None);
    let background = BackgroundWork::alone(reloader, &mut flow_logs);
    control_loop(&gateway, &mut driver, None, Duration::ZERO, &signals, background).unwrap();
    flush_log(&gateway, &flow_logs);
    flow_logs.finish(&gateway, None);
    counters
}

fn read_log(path: &Path) -> Vec<(u64, LogRecord)> {
    let text = std::fs::read(path).unwrap();
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| parse_json_line(line).unwrap())
        .collect()
}

#[test]
fn every_session_of_many_begins_and_ends_in_the_log() {
    let records: u32 =
        std::env::var("KEEPSTATE_FLOWLOG_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.jsonl");
    let log = FlowLogConfig::to(FlowLogTarget::File(path.clone()));
    let router = router(folder.path(), &NatPolicy::default(), 2_000_000);
    let counters = run_gateway(router, records / 2, &[log]);
    assert_eq!((counters[0].written(), counters[0].lost()), (u64::from(records) + 2, 0));
    let mut began = BTreeMap::new();
    let found = read_log(&path);
    assert!(matches!(found[0].1.event, LogEvent::LogStart { connections: 0, .. }));
    assert_eq!(found.last().unwrap().1.event, LogEvent::LogEnd);
    for ((seq, record), number) in found.iter().zip(1..) {
        assert_eq!(*seq, number, "no record is missing");
        match record.event {
            LogEvent::SessionBegin(session) => {
                assert_eq!((session.protocol, session.peer()), (17, None), "peers are not logged");
                assert!(began.insert((session.inside(), session.outside()), record.at).is_none());
            }
            LogEvent::SessionEnd(end) => {
                let began = began.remove(&(end.session.inside(), end.session.outside())).unwrap();
                assert_eq!(end.start, Some(began));
                let [there, back] = end.counters.unwrap();
                assert_eq!((there.packets, there.bytes, back.packets), (1, 29, 0));
            }
            _ => (),
        }
    }
    assert!(began.is_empty(), "{} sessions without end", began.len());
    assert_eq!(found.len(), usize::try_from(records).unwrap() + 2);
}

#[test]
fn port_blocks_and_a_full_table_are_logged_without_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.jsonl");
    let sessions = crate::flow_log::LoggedSessions::None;
    let log = FlowLogConfig { sessions, ..FlowLogConfig::to(FlowLogTarget::File(path.clone())) };
    let nat = NatPolicy { port_block_size: Some(128), ..NatPolicy::default() };
    // Two more than the table holds; 100 of one inside address.
    let counters = run_gateway(router(folder.path(), &nat, 100), 102, &[log]);
    assert_eq!(counters[0].lost(), 0);
    let events: Vec<LogEvent> = read_log(&path).into_iter().map(|(_, record)| record.event).collect();
    let inside: IpAddr = [10, 128, 0, 2].into();
    let blocks = |taken: bool| {
        events
            .iter()
            .filter_map(|event| match event {
                LogEvent::PortBlockTaken(block) if taken => Some(*block),
                LogEvent::PortBlockReturned(block) if !taken => Some(*block),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let taken = blocks(true);
    assert_eq!(taken.len(), 1, "{events:?}");
    assert_eq!((taken[0].inside, taken[0].last_port - taken[0].first_port), (Some(inside), 127));
    assert_eq!(blocks(false), taken);
    assert!(events.contains(&LogEvent::LimitReached { limit: 100, refused: 2 }), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, LogEvent::SessionBegin(_))));
}

#[test]
fn what_a_log_cannot_hold_is_counted_and_told_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.jsonl");
    let gateway =
        SharedGateway::new(router(folder.path(), &NatPolicy::default(), 1_000_000), None, Arc::new(SystemTimeSource));
    let mut flow_logs =
        FlowLogs::start(&[FlowLogConfig::to(FlowLogTarget::File(path.clone()))], &LogBackends::default()).unwrap();
    let counters = flow_logs.counters();
    flow_logs.attach(&gateway, None);
    // Far more than the engine's queue of events holds, before anybody may take them.
    let connections = 70_000;
    let mut batch = PacketBatch::default();
    let mut turn = gateway.lock(TurnKind::Packets);
    for connection in 0..connections {
        batch.push(&packet_of(connection), 1, 0);
        if connection % RX_BATCH == RX_BATCH - 1 || connection == connections - 1 {
            batch.route(&mut turn.router, gateway.now());
            let outputs = batch.take_outputs();
            batch.return_outputs(outputs);
        }
    }
    drop(turn);
    flow_logs.finish(&gateway, None);
    let found = read_log(&path);
    let lost = found.iter().map(|(_, record)| match record.event {
        LogEvent::RecordsLost { lost, .. } => lost,
        _ => 0,
    });
    let lost: u64 = lost.sum();
    let begins = found.iter().filter(|(_, record)| matches!(record.event, LogEvent::SessionBegin(_))).count();
    assert!(lost > 0 && counters[0].lost() == lost, "{lost} told, {} counted", counters[0].lost());
    assert_eq!(begins + usize::try_from(lost).unwrap(), usize::try_from(connections).unwrap());
}
