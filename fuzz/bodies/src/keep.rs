//! Target `keep`: any octets as the file that a gateway's table is kept in, and as one connection's description.

use keepstate_engine::{Description, Engine, Instant, Knob, Knobs, Secret, Trust};
use keepstate_gateway::keep::file::{Image, Moment};
use keepstate_gateway::keep::import;
use std::time::Duration;

/// Reads `data` whole or not at all; what it holds enters a table that stays sound, or does not.
pub fn keep(data: &[u8]) {
    let now = Instant::from_secs(1_000_000);
    let mut knobs = Knobs::default();
    knobs.set(Knob::Max, 64).expect("a limit");
    let mut engine = Engine::new(knobs, Secret([6; 16]), Instant(0));
    match Image::read(data) {
        Ok(image) => {
            let here = Moment { boot: [1; 16], since_boot: 1_000_000_000, wall: now.0 };
            let gap = image.died.until(&here).length();
            let restored = import(&image, &mut engine, gap, now);
            let refused: usize = restored.refused.iter().map(|(_, count)| count).sum();
            let held = image.descriptions().count();
            assert_eq!(
                restored.connections + restored.expired + refused,
                held,
                "each is entered, or there is a reason"
            );
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty(), "a refusal says why"),
    }
    if let Ok(described) = Description::decode(data) {
        let mut octets = Vec::new();
        described.encode(&mut octets);
        assert_eq!(Description::decode(&octets), Ok(described.clone()), "what was read is written and read again");
        let _ = engine.import(&described, Duration::ZERO, Trust::Lenient, now);
    }
    assert!(engine.count() <= 64, "the limit holds");
    engine.check().expect("the table is sound");
}
