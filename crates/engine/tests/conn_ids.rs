//! A connection's id names that connection only: not a later one in its slot, whatever tuple a peer chooses for it.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
use keepstate_engine::{ConnUpdate, Engine, Instant, NewConnection, Secret, Sysctls, Tuple, Zone};
use std::net::Ipv4Addr;

const NOW: Instant = Instant(1_000_000_000);

fn create(engine: &mut Engine, source: u32, ports: (u16, u16)) -> keepstate_engine::ConnId {
    let original = Tuple {
        source: Ipv4Addr::from_bits(source).into(),
        destination: [10, 2, 0, 9].into(),
        protocol: 17,
        source_key: ports.0,
        destination_key: ports.1,
    };
    let new = NewConnection {
        original,
        reply: original.invert().unwrap(),
        zone: Zone::default(),
        attributes: ConnUpdate { timeout: Some(100), ..ConnUpdate::default() },
        dst_nat: None,
        src_nat: None,
    };
    engine.create(&new, NOW).unwrap()
}

#[test]
fn old_id_does_not_name_a_later_connection_with_the_same_tuple() {
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    let old = create(&mut engine, 0x0a01_0002, (4000, 53));
    assert!(engine.remove(old, NOW));
    let new = create(&mut engine, 0x0a01_0002, (4000, 53));
    assert!(engine.entry(new, NOW).is_some());
    assert!(engine.entry(old, NOW).is_none(), "{old:?} names {new:?}");
    assert!(!engine.remove(old, NOW), "nor may it end it");
}

#[test]
fn old_id_does_not_name_a_tuple_chosen_to_collide_with_it() {
    // A stamp made of `addresses ^ keys.rotate_left(20)` before the secret is equal for these two, whatever the secret: the source address is in bits 32 to 63, the keys are
    // moved to bits 20 to 51.
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    let keys = |ports: (u16, u16)| u64::from(u32::from(ports.0) << 16 | u32::from(ports.1)) << 20;
    let (first, second) = ((0x1000, 53), (0x2000, 53));
    let other_source = 0x0a01_0002_u32 ^ ((keys(first) ^ keys(second)) >> 32) as u32;
    let old = create(&mut engine, 0x0a01_0002, first);
    assert!(engine.remove(old, NOW));
    let new = create(&mut engine, other_source, second);
    assert!(engine.entry(new, NOW).is_some());
    assert!(engine.entry(old, NOW).is_none(), "{old:?} names {new:?}");
}
