//! Requests: packets find what they create, and a failed request changes nothing.
use super::*;
use crate::{EventMask, ProtocolInfo, Secret, Sysctl, Sysctls};
use alloc::vec::Vec;
use core::net::IpAddr;

const NOW: Instant = Instant::from_secs(1_000);

fn engine() -> Engine {
    Engine::new(Sysctls::default(), Secret([7; 16]))
}

fn tuple(number: u8, port: u16) -> Tuple {
    Tuple {
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        protocol: number,
        source_key: port,
        destination_key: 80,
    }
}

fn new_connection(number: u8, port: u16) -> NewConnection {
    let original = tuple(number, port);
    let changes = ConnUpdate { timeout: Some(100), ..ConnUpdate::default() };
    let reply = original.invert().unwrap();
    NewConnection { original, reply, zone: Zone::default(), attributes: changes, dst_nat: None, src_nat: None }
}

#[test]
fn created_connection_is_found_by_both_tuples_and_expires() {
    let mut engine = engine();
    let mut wanted = new_connection(6, 1000);
    wanted.attributes = ConnUpdate {
        status: Some(Status::ASSURED | Status::SEEN_REPLY),
        mark: Some(7),
        labels: Some([[3; 16], [1; 16]]),
        protocol: Some(ProtocolUpdate::Tcp {
            state: Some(TcpState::Established),
            scales: Some([3, 5]),
            flags: [Some([0x01, 0x01]); 2],
        }),
        ..wanted.attributes
    };
    let conn_id = engine.create(&wanted, NOW).unwrap();
    let entry = engine.entry(conn_id, NOW).unwrap();
    assert_eq!(entry.status, Status::ASSURED | Status::SEEN_REPLY | Status::CONFIRMED);
    assert_eq!((entry.timeout, entry.mark, entry.labels), (100, 7, Some([1; 16])));
    let ProtocolInfo::Tcp { state, sides } = entry.protocol else { panic!("{entry:?}") };
    assert_eq!((state, sides.map(|side| (side.flags, side.scale))), (TcpState::Established, [(1, 3), (1, 5)]));
    for known in [wanted.original, wanted.reply] {
        assert_eq!(engine.find(&known, Zone::default(), NOW).map(|(found, _)| found), Some(conn_id));
    }
    assert_eq!(engine.create(&wanted, NOW), Err(UpdateError::Exists));
    assert_eq!(engine.counters().insert, 1);
    engine.check_invariants().unwrap();
    let later = Instant::from_secs(1_101);
    assert_eq!(
        engine.update(conn_id, &ConnUpdate { mark: Some(1), ..ConnUpdate::default() }, later),
        Err(UpdateError::NotFound)
    );
    assert!(engine.create(&wanted, later).is_ok(), "an expired connection does not block its tuple");
    engine.check_invariants().unwrap();
}

#[test]
fn create_rejects_invalid_connections() {
    let mut engine = engine();
    let good = new_connection(17, 1);
    let v6: IpAddr = "::1".parse().unwrap();
    let without_timeout = NewConnection { attributes: ConnUpdate::default(), ..good.clone() };
    let mixed = NewConnection { reply: Tuple { source: v6, ..good.reply }, ..good.clone() };
    let two_protocols = NewConnection { reply: Tuple { protocol: 6, ..good.reply }, ..good.clone() };
    let unanswerable =
        NewConnection { original: Tuple { protocol: 1, destination_key: 3 << 8, ..good.original }, ..good.clone() };
    for wrong in [without_timeout, mixed, two_protocols, unanswerable] {
        assert_eq!(engine.create(&wrong, NOW), Err(UpdateError::Invalid), "{wrong:?}");
    }
    let expected = ConnUpdate { status: Some(Status::EXPECTED), ..good.attributes };
    assert_eq!(
        engine.create(&NewConnection { attributes: expected, ..good.clone() }, NOW),
        Err(UpdateError::StatusUnchangeable)
    );
    let scales = ProtocolUpdate::Tcp { state: None, scales: Some([15, 0]), flags: [None; 2] };
    let wide =
        NewConnection { attributes: ConnUpdate { protocol: Some(scales), ..good.attributes }, ..new_connection(6, 1) };
    assert_eq!(engine.create(&wide, NOW), Err(UpdateError::Invalid));
    assert_eq!(engine.count(), 0);
    engine.set_sysctl(Sysctl::Max, 1).unwrap();
    let assured = ConnUpdate { status: Some(Status::ASSURED | Status::SEEN_REPLY), ..good.attributes };
    engine.create(&NewConnection { attributes: assured, ..good.clone() }, NOW).unwrap();
    assert_eq!(engine.create(&new_connection(17, 2), NOW), Err(UpdateError::TableFull));
}

#[test]
fn update_is_atomic() {
    let mut engine = engine();
    engine.subscribe(EventMask::ALL, 10);
    let conn_id = engine.create(&new_connection(17, 1), NOW).unwrap();
    let fixed = Status::CONFIRMED | Status::SEEN_REPLY | Status::FIXED_TIMEOUT;
    engine.update(conn_id, &ConnUpdate { status: Some(fixed), ..ConnUpdate::default() }, NOW).unwrap();
    for (changes, error) in [
        (ConnUpdate { timeout: Some(1), ..ConnUpdate::default() }, UpdateError::FixedTimeout),
        (ConnUpdate { status: Some(Status::CONFIRMED), ..ConnUpdate::default() }, UpdateError::StatusUnchangeable),
        (ConnUpdate { status: Some(Status::SEEN_REPLY), ..ConnUpdate::default() }, UpdateError::StatusUnchangeable),
        (ConnUpdate { status: Some(fixed | Status::DYING), ..ConnUpdate::default() }, UpdateError::StatusUnchangeable),
    ] {
        let before = engine.entry(conn_id, NOW);
        assert_eq!(engine.update(conn_id, &ConnUpdate { mark: Some(9), ..changes }, NOW), Err(error));
        assert_eq!(engine.entry(conn_id, NOW), before);
    }
    // Bits that cannot be requested are ignored.
    engine
        .update(
            conn_id,
            &ConnUpdate { status: Some(fixed | Status::SRC_NAT | Status::OFFLOAD), ..ConnUpdate::default() },
            NOW,
        )
        .unwrap();
    assert_eq!(engine.entry(conn_id, NOW).unwrap().status, fixed);
    let kinds: Vec<EventKind> = core::iter::from_fn(|| engine.poll_event()).map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::New, EventKind::Update, EventKind::Update]);
}

#[test]
fn created_nat_connection_is_found_by_its_reply_tuple() {
    let mut engine = engine();
    let wanted =
        NewConnection { src_nat: Some(NatRange::to_port([9, 9, 9, 9].into(), 5000)), ..new_connection(6, 1000) };
    let conn_id = engine.create(&wanted, NOW).unwrap();
    let entry = engine.entry(conn_id, NOW).unwrap();
    assert_eq!((entry.reply.destination, entry.reply.destination_key), ([9, 9, 9, 9].into(), 5000));
    assert!(entry.status.contains(Status::SRC_NAT | Status::SRC_NAT_DONE | Status::DST_NAT_DONE));
    assert!(!entry.status.contains(Status::DST_NAT));
    // The same translated endpoint for a connection of another source is taken.
    let mut other = NewConnection { original: Tuple { source: [10, 0, 0, 7].into(), ..wanted.original }, ..wanted };
    other.reply = other.original.invert().unwrap();
    assert_eq!(engine.create(&other, NOW), Err(UpdateError::Exists));
    engine.check_invariants().unwrap();
    assert!(engine.remove(conn_id, NOW));
    engine.check_invariants().unwrap();
}

#[test]
fn dump_range_visits_each_once_and_flush_range_removes_all() {
    let mut engine = engine();
    for port in 0..1000 {
        engine.create(&new_connection(17, port), NOW).unwrap();
    }
    let v6 = |bytes: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, bytes]);
    let original = Tuple { source: v6(1), destination: v6(2), ..tuple(6, 1) };
    engine.create(&NewConnection { original, reply: original.invert().unwrap(), ..new_connection(6, 1) }, NOW).unwrap();
    let mut visited = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        from = engine.dump_range(at, 64, NOW, |entry| visited.push(entry.conn_id));
    }
    assert_eq!(visited.len(), 1001);
    visited.sort_unstable_by_key(|conn_id| conn_id.slot);
    visited.dedup();
    assert_eq!(visited.len(), 1001);
    for (family, left) in [(Some(Family::V6), 1000), (None, 0)] {
        let mut from = Some(0);
        while let Some(at) = from {
            from = engine.flush_range(at, 64, family, NOW);
        }
        assert_eq!(engine.count(), left);
    }
    engine.check_invariants().unwrap();
}

#[test]
fn zero_counters_resets_accounting() {
    let mut engine = engine();
    engine.set_sysctl(Sysctl::Acct, 1).unwrap();
    let conn_id = engine.create(&new_connection(17, 1), NOW).unwrap();
    *engine.table.records.counts_mut(conn_id.slot).unwrap() = [1, 2, 3, 4];
    engine.zero_counters(conn_id, NOW);
    assert!(
        engine.entry(conn_id, NOW).unwrap().accounting.unwrap().iter().all(|counts| counts.packets + counts.bytes == 0)
    );
}
