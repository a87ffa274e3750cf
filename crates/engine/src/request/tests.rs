//! Requests: what they make is what packets would find, and what is refused changes nothing.
use super::*;
use crate::{EventMask, Knob, Knobs, ProtocolInfo, Secret};
use alloc::vec::Vec;
use core::net::IpAddr;

const NOW: Instant = Instant::from_secs(1_000);

fn engine() -> Engine {
    Engine::new(Knobs::default(), Secret([7; 16]), NOW)
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

fn draft(number: u8, port: u16) -> Draft {
    let original = tuple(number, port);
    let wish = Wish { timeout: Some(100), ..Wish::default() };
    let reply = original.invert().unwrap();
    Draft { original, reply, zone: Zone::default(), wish, destination: None, source: None }
}

#[test]
fn what_was_made_is_found_by_both_its_tuples_and_expires() {
    let mut engine = engine();
    let mut wanted = draft(6, 1000);
    wanted.wish = Wish {
        status: Some(Status::ASSURED | Status::SEEN_REPLY),
        mark: Some(7),
        labels: Some([[3; 16], [1; 16]]),
        protocol: Some(Knowledge::Tcp {
            state: Some(TcpState::Established),
            scales: Some([3, 5]),
            flags: [Some([0x01, 0x01]); 2],
        }),
        ..wanted.wish
    };
    let handle = engine.create(&wanted, NOW).unwrap();
    let entry = engine.entry(handle, NOW).unwrap();
    assert_eq!(entry.status, Status::ASSURED | Status::SEEN_REPLY | Status::CONFIRMED);
    assert_eq!((entry.timeout, entry.mark, entry.labels), (100, 7, Some([1; 16])));
    let ProtocolInfo::Tcp { state, sides } = entry.protocol else { panic!("{entry:?}") };
    assert_eq!((state, sides.map(|side| (side.flags, side.scale))), (TcpState::Established, [(1, 3), (1, 5)]));
    for known in [wanted.original, wanted.reply] {
        assert_eq!(engine.find(&known, Zone::default(), NOW).map(|(found, _)| found), Some(handle));
    }
    assert_eq!(engine.create(&wanted, NOW), Err(Refusal::Exists));
    assert_eq!(engine.counters().insert, 1);
    engine.check().unwrap();
    let later = Instant::from_secs(1_101);
    assert_eq!(engine.change(handle, &Wish { mark: Some(1), ..Wish::default() }, later), Err(Refusal::Gone));
    assert!(engine.create(&wanted, later).is_ok(), "one that is over is in nobody's way");
    engine.check().unwrap();
}

#[test]
fn what_cannot_be_is_refused() {
    let mut engine = engine();
    let good = draft(17, 1);
    let v6: IpAddr = "::1".parse().unwrap();
    let without_timeout = Draft { wish: Wish::default(), ..good.clone() };
    let mixed = Draft { reply: Tuple { source: v6, ..good.reply }, ..good.clone() };
    let two_protocols = Draft { reply: Tuple { protocol: 6, ..good.reply }, ..good.clone() };
    let unanswerable =
        Draft { original: Tuple { protocol: 1, destination_key: 3 << 8, ..good.original }, ..good.clone() };
    for wrong in [without_timeout, mixed, two_protocols, unanswerable] {
        assert_eq!(engine.create(&wrong, NOW), Err(Refusal::Impossible), "{wrong:?}");
    }
    let expected = Wish { status: Some(Status::EXPECTED), ..good.wish };
    assert_eq!(engine.create(&Draft { wish: expected, ..good.clone() }, NOW), Err(Refusal::Unchangeable));
    let scales = Knowledge::Tcp { state: None, scales: Some([15, 0]), flags: [None; 2] };
    let wide = Draft { wish: Wish { protocol: Some(scales), ..good.wish }, ..draft(6, 1) };
    assert_eq!(engine.create(&wide, NOW), Err(Refusal::Impossible));
    assert_eq!(engine.count(), 0);
    engine.set(Knob::Max, 1).unwrap();
    let assured = Wish { status: Some(Status::ASSURED | Status::SEEN_REPLY), ..good.wish };
    engine.create(&Draft { wish: assured, ..good.clone() }, NOW).unwrap();
    assert_eq!(engine.create(&draft(17, 2), NOW), Err(Refusal::Full));
}

#[test]
fn a_change_is_whole_or_not_at_all() {
    let mut engine = engine();
    engine.listen(EventMask::ALL, 10);
    let handle = engine.create(&draft(17, 1), NOW).unwrap();
    let fixed = Status::CONFIRMED | Status::SEEN_REPLY | Status::FIXED_TIMEOUT;
    engine.change(handle, &Wish { status: Some(fixed), ..Wish::default() }, NOW).unwrap();
    for (wish, refusal) in [
        (Wish { timeout: Some(1), ..Wish::default() }, Refusal::Fixed),
        (Wish { status: Some(Status::CONFIRMED), ..Wish::default() }, Refusal::Unchangeable),
        (Wish { status: Some(Status::SEEN_REPLY), ..Wish::default() }, Refusal::Unchangeable),
        (Wish { status: Some(fixed | Status::DYING), ..Wish::default() }, Refusal::Unchangeable),
    ] {
        let before = engine.entry(handle, NOW);
        assert_eq!(engine.change(handle, &Wish { mark: Some(9), ..wish }, NOW), Err(refusal));
        assert_eq!(engine.entry(handle, NOW), before);
    }
    // Bits that are nobody's to choose are passed over.
    engine
        .change(handle, &Wish { status: Some(fixed | Status::SRC_NAT | Status::OFFLOAD), ..Wish::default() }, NOW)
        .unwrap();
    assert_eq!(engine.entry(handle, NOW).unwrap().status, fixed);
    let kinds: Vec<EventKind> = core::iter::from_fn(|| engine.poll_event()).map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::New, EventKind::Update, EventKind::Update]);
}

#[test]
fn a_translated_one_is_found_by_its_answer() {
    let mut engine = engine();
    let wanted = Draft { source: Some(Range::to_port([9, 9, 9, 9].into(), 5000)), ..draft(6, 1000) };
    let handle = engine.create(&wanted, NOW).unwrap();
    let entry = engine.entry(handle, NOW).unwrap();
    assert_eq!((entry.reply.destination, entry.reply.destination_key), ([9, 9, 9, 9].into(), 5000));
    assert!(entry.status.has(Status::SRC_NAT | Status::SRC_NAT_DONE | Status::DST_NAT_DONE));
    assert!(!entry.status.has(Status::DST_NAT));
    // The same end for another connection of another source: taken.
    let mut other = Draft { original: Tuple { source: [10, 0, 0, 7].into(), ..wanted.original }, ..wanted };
    other.reply = other.original.invert().unwrap();
    assert_eq!(engine.create(&other, NOW), Err(Refusal::Exists));
    engine.check().unwrap();
    assert!(engine.remove(handle, NOW));
    engine.check().unwrap();
}

#[test]
fn pieces_tell_of_each_once_and_a_flush_in_pieces_takes_all() {
    let mut engine = engine();
    for port in 0..1000 {
        engine.create(&draft(17, port), NOW).unwrap();
    }
    let v6 = |octets: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, octets]);
    let original = Tuple { source: v6(1), destination: v6(2), ..tuple(6, 1) };
    engine.create(&Draft { original, reply: original.invert().unwrap(), ..draft(6, 1) }, NOW).unwrap();
    let mut met = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        from = engine.piece(at, 64, NOW, |entry| met.push(entry.handle));
    }
    assert_eq!(met.len(), 1001);
    met.sort_unstable_by_key(|handle| handle.slot);
    met.dedup();
    assert_eq!(met.len(), 1001);
    for (family, left) in [(Some(Family::V6), 1000), (None, 0)] {
        let mut from = Some(0);
        while let Some(at) = from {
            from = engine.flush_piece(at, 64, family, NOW);
        }
        assert_eq!(engine.count(), left);
    }
    engine.check().unwrap();
}

#[test]
fn counts_can_be_zeroed() {
    let mut engine = engine();
    engine.set(Knob::Acct, 1).unwrap();
    let handle = engine.create(&draft(17, 1), NOW).unwrap();
    *engine.table.records.counts_mut(handle.slot).unwrap() = [1, 2, 3, 4];
    engine.zero(handle, NOW);
    assert!(
        engine.entry(handle, NOW).unwrap().accounting.unwrap().iter().all(|counts| counts.packets + counts.bytes == 0)
    );
}
