//! The whole main loop on clocks that the test moves: the wall clock is set by hours, both ways, and what the gateway remembers goes by the other clock alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use super::*;
use crate::flow_log::LogBackends;
use keepstate_engine::{Engine, Instant, Secret, Sysctl, Sysctls, UnixTime};
use keepstate_router::{FibTable, Interface};
use keepstate_rules::{NoIncludes, Program, compile, parse_with};
use std::sync::atomic::AtomicU64;

const SECOND: u64 = 1_000_000_000;
/// 2026-06-01, 12:00 UTC.
const NOON: u64 = 1_780_315_200 * SECOND;
const HOUR: i64 = 3600;

/// Clocks that only the test moves.
struct TestClocks {
    boot: AtomicU64,
    wall: AtomicU64,
}

impl TimeSource for TestClocks {
    fn now(&self) -> Instant {
        Instant(self.boot.load(Ordering::Relaxed))
    }

    fn unix_time(&self) -> UnixTime {
        UnixTime(self.wall.load(Ordering::Relaxed))
    }

    fn timezone_offset(&self, _: UnixTime) -> i64 {
        0
    }
}

impl TestClocks {
    /// Time passes.
    fn advance(&self, seconds: u64) {
        self.boot.fetch_add(seconds * SECOND, Ordering::Relaxed);
        self.wall.fetch_add(seconds * SECOND, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock.
    fn step(&self, seconds: i64) {
        let wall = self.wall.load(Ordering::Relaxed).saturating_add_signed(seconds * SECOND as i64);
        self.wall.store(wall, Ordering::Relaxed);
    }
}

/// One step of a test.
enum Step {
    /// A UDP packet from this source port: forwarded or not.
    Packet(u16, bool),
    /// Time passes, in seconds.
    Advance(u64),
    /// The wall clock is set, by seconds.
    SetWall(i64),
    /// So many connections are in the table.
    Count(usize),
    /// The start time of the newest connection, in seconds after noon.
    NewestStart(u64),
}

/// Gives the loop one step in each turn.
struct ScriptDriver {
    clocks: Arc<TestClocks>,
    steps: std::vec::IntoIter<Step>,
    stop: Arc<AtomicBool>,
    was_idle: bool,
}

impl Driver for ScriptDriver {
    fn wait(&mut self, _: i32) -> Result<()> {
        Ok(())
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        // The second call of each turn is idle, so that between two steps the loop does all the rest.
        self.was_idle = !self.was_idle;
        if !self.was_idle {
            return Ok(0);
        }
        let router = &mut gateway.lock(TurnKind::Packets).router;
        match self.steps.next() {
            None => self.stop.store(true, Ordering::Relaxed),
            Some(Step::Packet(port, passes)) => {
                let result = router.handle(&udp_packet(port), 1, now);
                assert_eq!(result.is_ok(), passes, "port {port}: {result:?}");
                while router.poll_output().is_some() {}
            }
            Some(Step::Advance(seconds)) => self.clocks.advance(seconds),
            Some(Step::SetWall(seconds)) => self.clocks.step(seconds),
            Some(Step::Count(count)) => assert_eq!(router.engine().entries(now).count(), count),
            Some(Step::NewestStart(after_noon)) => {
                let newest = router.engine().entries(now).filter_map(|entry| entry.start).max().unwrap();
                assert_eq!(newest.0, NOON + after_noon * SECOND);
            }
        }
        Ok(0)
    }
}

fn udp_packet(port: u16) -> Vec<u8> {
    let mut packet =
        vec![0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 2, 0, 9, 0, 0, 0, 53, 0, 9, 0, 0, 7];
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn program(rules: &str) -> Program {
    let (ruleset, sources) = parse_with("test.nft", rules, &NoIncludes, &[]).unwrap();
    compile(&ruleset, &sources).unwrap()
}

/// Runs the main loop through the steps; uptime is an hour at the start, and the wall clock says noon.
fn run_script(rules: &str, steps: Vec<Step>) {
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    engine.set_sysctl(Sysctl::Timestamp, 1).unwrap();
    let lan = Interface::new(1, "lan0", 1500).with_address([10, 1, 0, 1].into(), 24);
    let wan = Interface::new(2, "wan0", 1500).with_address([10, 2, 0, 1].into(), 24);
    let router = Router::new(engine, program(rules), FibTable::new(vec![lan, wan], Vec::new()), (1, 2));
    let clocks = Arc::new(TestClocks { boot: AtomicU64::new(3600 * SECOND), wall: AtomicU64::new(NOON) });
    let gateway = SharedGateway::new(router, None, clocks.clone());
    let signals = SignalFlags::none();
    let mut driver = ScriptDriver { clocks, steps: steps.into_iter(), stop: signals.stop.clone(), was_idle: false };
    let reloader = Reloader::new(Arc::new(|| anyhow::bail!("nothing is reloaded")), None);
    let mut flow_logs = FlowLogs::start(&[], &LogBackends::default()).unwrap();
    let background = BackgroundWork::alone(reloader, &mut flow_logs);
    control_loop(&gateway, &mut driver, None, Duration::ZERO, &signals, background).unwrap();
    assert!(driver.steps.next().is_none(), "not all steps ran");
}

const ACCEPT: &str =
    "table ip t { chain c { type filter hook forward priority 0; policy accept; ct state new accept; } }";

#[test]
fn wall_clock_set_forward_ends_no_connection() {
    let script =
        vec![Step::Packet(1000, true), Step::SetWall(2 * HOUR), Step::Count(1), Step::Advance(29), Step::Count(1)];
    run_script(ACCEPT, script);
}

#[test]
fn wall_clock_set_back_keeps_no_connection() {
    let script =
        vec![Step::Packet(1000, true), Step::SetWall(-24 * HOUR), Step::Count(1), Step::Advance(31), Step::Count(0)];
    run_script(ACCEPT, script);
}

#[test]
fn start_times_are_the_wall_clocks() {
    let script = vec![
        Step::Packet(1000, true),
        Step::NewestStart(0),
        Step::SetWall(2 * HOUR),
        Step::NewestStart(0),
        Step::Packet(1001, true),
        Step::NewestStart(7200),
    ];
    run_script(ACCEPT, script);
}

#[test]
fn rules_that_name_an_hour_follow_the_wall_clock() {
    let rules = "table ip t { chain c { type filter hook forward priority 0; policy drop; meta hour \"14:00\"-\"15:00\" accept; } }";
    let script = vec![
        Step::Packet(1000, false),
        Step::SetWall(2 * HOUR + 60),
        Step::Packet(1000, true),
        Step::SetWall(-2 * HOUR),
        Step::Packet(1001, false),
    ];
    run_script(rules, script);
}

#[test]
fn limits_of_rules_ignore_the_wall_clock() {
    let rules = "table ip t { chain c { type filter hook forward priority 0; policy drop; limit rate 1/hour burst 1 packets accept; } }";
    let script = vec![
        Step::Packet(1000, true),
        Step::Packet(1001, false),
        Step::SetWall(2 * HOUR),
        Step::Packet(1001, false),
        Step::SetWall(-24 * HOUR),
        Step::Advance(3600),
        Step::Packet(1001, true),
    ];
    run_script(rules, script);
}
