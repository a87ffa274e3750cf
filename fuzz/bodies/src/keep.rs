//! Target `keep`: any bytes as a gateway's state file, and as the snapshot of one connection.

use keepstate_engine::{ConnSnapshot, Engine, Instant, Secret, Sysctl, Sysctls, WindowTrust};
use keepstate_gateway::state_store::import_snapshot;
use keepstate_gateway::state_store::state_file::{ClockPair, Snapshot};
use std::time::Duration;

/// Reads `data` completely or not at all; imports its connections, after which the table must be consistent.
pub fn keep(data: &[u8]) {
    let now = Instant::from_secs(1_000_000);
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Max, 64).expect("a limit");
    let mut engine = Engine::new(sysctls, Secret([6; 16]));
    match Snapshot::parse(data) {
        Ok(image) => {
            let here = ClockPair { boot: [1; 16], since_boot: 1_000_000_000, wall: now.0 };
            let gap = image.last_alive.gap_to(&here).duration();
            let restored = import_snapshot(&image, &mut engine, gap, now);
            let refused: usize = restored.refused.iter().map(|(_, count)| count).sum();
            let held = image.connections().count();
            assert_eq!(
                restored.connections + restored.expired + refused,
                held,
                "each is entered, or there is a reason"
            );
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty(), "a refusal says why"),
    }
    if let Ok(described) = ConnSnapshot::decode(data) {
        let mut bytes = Vec::new();
        described.encode(&mut bytes);
        assert_eq!(ConnSnapshot::decode(&bytes), Ok(described.clone()), "what was read is written and read again");
        let _ = engine.import(&described, Duration::ZERO, WindowTrust::Lenient, now);
    }
    assert!(engine.count() <= 64, "the limit holds");
    engine.check_invariants().expect("the table is sound");
}
