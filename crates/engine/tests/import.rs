//! What may enter a table from outside and what may not; how a connection goes on whose windows are not known any more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]
mod common;

use common::conversation::{ACK, RST, SYN, SYN_ACK, Side, World};
use common::{CLIENT, SERVER, Segment, tcp, udp};
use keepstate_engine::{
    Description, Engine, Handle, Helper, Info, Instant, Knob, Knobs, Outcome, ProtocolInfo, Refused, Secret, Status,
    TcpState, Trust, Undecodable, Zone,
};
use keepstate_wire::Packet;
use std::time::Duration;

const NOW: Instant = Instant::from_secs(1_000);

fn engine() -> Engine {
    Engine::new(Knobs::default(), Secret([5; 16]), Instant(0))
}

fn pass(engine: &mut Engine, packet: &[u8], now: Instant) -> Outcome {
    // The longer way, as with rules.
    let passage = engine.track(&Packet::parse(packet).unwrap(), Zone::default(), now);
    engine.confirm(passage, now)
}

fn out(flags: u8, seq: u32, ack: u32, data: usize) -> Vec<u8> {
    tcp((CLIENT, 4000), (SERVER, 80), &Segment { flags, seq, ack, window: 1000, data, ..Segment::default() })
}

fn back(flags: u8, seq: u32, ack: u32, data: usize) -> Vec<u8> {
    tcp((SERVER, 80), (CLIENT, 4000), &Segment { flags, seq, ack, window: 1000, data, ..Segment::default() })
}

/// An engine with one established TCP connection, and the connection described.
fn established() -> (Engine, Description) {
    let mut first = engine();
    for packet in
        [out(SYN, 1000, 0, 0), back(SYN_ACK, 5000, 1001, 0), out(ACK, 1001, 5001, 0), back(ACK, 5001, 1001, 10)]
    {
        assert_ne!(pass(&mut first, &packet, NOW).info, Info::Invalid);
    }
    let described = first.exports(NOW).next().unwrap();
    (first, described)
}

fn datagram() -> Description {
    let mut first = engine();
    pass(&mut first, &udp((CLIENT, 4000), (SERVER, 53), b"?"), NOW);
    first.exports(NOW).next().unwrap()
}

fn with(described: &Description, change: impl FnOnce(&mut Description)) -> Description {
    let mut changed = described.clone();
    change(&mut changed);
    changed
}

fn liberal(engine: &Engine, handle: Handle, now: Instant) -> bool {
    match engine.entry(handle, now).unwrap().protocol {
        ProtocolInfo::Tcp { sides, .. } => sides[0].flags & 8 != 0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn after_a_gap_windows_are_learned_anew_and_then_hold_again() {
    let (_, described) = established();
    let mut second = engine();
    let handle = second.import(&described, Duration::from_secs(3), Trust::Lenient, NOW).unwrap();
    let mut strict = engine();
    strict.import(&described, Duration::from_secs(3), Trust::Exact, NOW).unwrap();
    // A megabyte was sent meanwhile.
    let (mut client, mut server) = (1001u32, 1_050_000u32);
    assert_eq!(
        pass(&mut strict, &back(ACK, server, client, 500), NOW).info,
        Info::Invalid,
        "it would be beyond its window"
    );
    for round in 0..16 {
        assert!(liberal(&second, handle, NOW), "round {round}");
        for _ in 0..3 {
            assert_eq!(pass(&mut second, &back(ACK, server, client, 500), NOW).info, Info::Established);
            server += 500;
        }
        assert_eq!(pass(&mut second, &out(ACK, client, server, 7), NOW).info, Info::Established);
        client += 7;
    }
    assert!(!liberal(&second, handle, NOW));
    assert_eq!(pass(&mut second, &back(ACK, server + 900_000, client, 500), NOW).info, Info::Invalid);
    assert_eq!(pass(&mut second, &back(ACK, server, client, 500), NOW).info, Info::Established);
    second.check().unwrap();
}

#[test]
fn a_second_gap_before_the_windows_hold_again_makes_nobody_liberal_for_ever() {
    let (_, mut described) = established();
    for _ in 0..3 {
        let mut next = engine();
        let handle = next.import(&described, Duration::from_secs(1), Trust::Lenient, NOW).unwrap();
        pass(&mut next, &out(ACK, 1001, 5011, 7), NOW);
        assert!(liberal(&next, handle, NOW));
        let mut octets = Vec::new();
        next.export(handle, NOW).unwrap().encode(&mut octets);
        described = Description::decode(&octets).unwrap();
    }
    let mut last = engine();
    let handle = last.import(&described, Duration::ZERO, Trust::Lenient, NOW).unwrap();
    for round in 0..16 {
        pass(&mut last, &back(ACK, 5011, 1001 + round, 0), NOW);
        pass(&mut last, &out(ACK, 1001 + round, 5011, 1), NOW);
    }
    assert!(!liberal(&last, handle, NOW));
}

#[test]
fn a_transfer_that_has_lost_segments_meanwhile_recovers() {
    let (_, described) = established();
    let mut second = engine();
    let handle = second.import(&described, Duration::from_secs(1), Trust::Lenient, NOW).unwrap();
    // The server sends again what was lost; the client has got all behind it, and says so first by SACK, then at once.
    let sack = |ack: u32, from: u32, to: u32| {
        let options = [&[1, 1, 5, 10][..], &from.to_be_bytes(), &to.to_be_bytes()].concat();
        tcp(
            (CLIENT, 4000),
            (SERVER, 80),
            &Segment { flags: ACK, seq: 1001, ack, window: 1000, options, ..Segment::default() },
        )
    };
    for round in 0..40 {
        let lost = 20_000 + round * 500;
        assert_eq!(pass(&mut second, &back(ACK, lost, 1001, 500), NOW).info, Info::Established, "{round}");
        assert_eq!(pass(&mut second, &sack(lost + 500, 60_000, 400_000), NOW).info, Info::Established, "{round}");
    }
    assert!(liberal(&second, handle, NOW), "nothing was as expected yet");
    let (mut server, mut rounds) = (400_000u32, 0);
    assert_eq!(pass(&mut second, &out(ACK, 1001, server, 0), NOW).info, Info::Established);
    while liberal(&second, handle, NOW) {
        assert_eq!(pass(&mut second, &back(ACK, server, 1001, 500), NOW).info, Info::Established);
        server += 500;
        assert_eq!(pass(&mut second, &out(ACK, 1001, server, 0), NOW).info, Info::Established);
        rounds += 1;
        assert!(rounds < 30, "it never holds again");
    }
    assert_eq!(pass(&mut second, &back(ACK, server + 900_000, 1001, 500), NOW).info, Info::Invalid);
}

#[test]
fn a_handshake_goes_on_where_it_was() {
    let mut first = engine();
    pass(&mut first, &out(SYN, 1000, 0, 0), NOW);
    for answer in [back(SYN_ACK, 5000, 1001, 0), back(RST | ACK, 0, 1001, 0)] {
        let mut second = engine();
        let described = first.exports(NOW).next().unwrap();
        second.import(&described, Duration::from_secs(2), Trust::Lenient, NOW).unwrap();
        assert_eq!(pass(&mut second, &answer, NOW).info, Info::Established);
    }
}

#[test]
fn the_time_between_counts() {
    let described = datagram();
    let mut second = engine();
    let over = second.import(&described, Duration::from_secs(30), Trust::Lenient, NOW);
    assert_eq!(over, Err(Refused::Expired));
    let handle = second.import(&described, Duration::from_secs(29), Trust::Lenient, NOW).unwrap();
    assert_eq!(second.entry(handle, NOW).unwrap().timeout, 1);
    let later = NOW.after(Duration::from_millis(1001));
    second.poll(later);
    assert_eq!(second.count(), 0);
}

#[test]
fn what_cannot_be_is_refused() {
    let (_, tcp) = established();
    let udp = datagram();
    let dead = Status(udp.status.0 | Status::DYING.0);
    let cases = [
        (with(&udp, |one| one.reply = udp.original), "translated, and not marked so"),
        (with(&udp, |one| (one.original, one.reply) = (tcp.original, tcp.reply)), "the state of another protocol"),
        (with(&udp, |one| one.status = Status(0)), "never confirmed"),
        (with(&udp, |one| one.status = dead), "dying"),
        (with(&udp, |one| one.status = Status(udp.status.0 | Status::SRC_NAT.0)), "without a decision"),
        (with(&udp, |one| one.status = Status(udp.status.0 | Status::HELPER.0)), "helper"),
        (with(&udp, |one| one.master = Some(tcp.original)), "expected"),
        (with(&udp, |one| one.remaining = u64::MAX), "a timeout longer"),
        (with(&udp, |one| one.reply = tcp.reply), "different protocols"),
    ];
    for (described, wanted) in cases {
        let mut second = engine();
        match second.import(&described, Duration::ZERO, Trust::Exact, NOW) {
            Err(Refused::Impossible(what)) => assert!(what.contains(wanted), "{wanted}: {what}"),
            other => panic!("{wanted}: {other:?}"),
        }
        assert_eq!(second.count(), 0);
        second.check().unwrap();
    }
    let mut second = engine();
    second.import(&udp, Duration::ZERO, Trust::Exact, NOW).unwrap();
    assert_eq!(second.import(&udp, Duration::ZERO, Trust::Exact, NOW), Err(Refused::Clash));
    let turned = with(&udp, |one| (one.original, one.reply) = (udp.reply, udp.original));
    assert_eq!(second.import(&turned, Duration::ZERO, Trust::Exact, NOW), Err(Refused::Clash));
    second.set(Knob::Max, 1).unwrap();
    assert_eq!(second.import(&tcp, Duration::ZERO, Trust::Exact, NOW), Err(Refused::Full));
    second.set(Knob::Max, 2).unwrap();
    second.import(&tcp, Duration::ZERO, Trust::Exact, NOW).unwrap();
}

#[test]
fn timeouts_of_its_own_come_along() {
    let own = vec![(Knob::UdpTimeout, 5), (Knob::UdpTimeoutStream, 7)];
    let described = with(&datagram(), |one| one.timeouts = own.clone());
    let mut octets = Vec::new();
    described.encode(&mut octets);
    let mut second = engine();
    let described = Description::decode(&octets).unwrap();
    let handle = second.import(&described, Duration::ZERO, Trust::Lenient, NOW).unwrap();
    pass(&mut second, &udp((SERVER, 53), (CLIENT, 4000), b"!"), NOW);
    assert_eq!(second.entry(handle, NOW).unwrap().timeout, 5);
    assert_eq!(second.export(handle, NOW).unwrap().timeouts, own);
    let name = b"nf_conntrack_max";
    let field = [&[18, name.len() as u8 + 4, 0, 0, 0, 9][..], name].concat();
    assert_eq!(Description::decode(&[octets, field].concat()), Err(Undecodable::Value(18)), "no timeout");
}

#[test]
fn octets_that_are_no_description_are_told_apart() {
    let (_, described) = established();
    let mut octets = Vec::new();
    described.encode(&mut octets);
    assert_eq!(Description::decode(&octets), Ok(described.clone()));
    assert!(octets.len() < 100, "{} octets", octets.len());
    assert_eq!(Description::decode(&[]), Err(Undecodable::Short));
    assert_eq!(Description::decode(&octets[..octets.len() - 1]), Err(Undecodable::Short));
    assert_eq!(Description::decode(&[9]), Err(Undecodable::Version(9)));
    assert_eq!(Description::decode(&octets[..16]), Err(Undecodable::Missing(4)));
    // A field of later times: one that matters, and one that does not.
    assert_eq!(Description::decode(&[&octets[..], &[99, 1, 0]].concat()), Err(Undecodable::Unknown(99)));
    assert_eq!(Description::decode(&[&octets[..], &[200, 1, 0]].concat()), Ok(described.clone()));
    assert_eq!(Description::decode(&[&octets[..], &[6, 1, 0]].concat()), Err(Undecodable::Value(6)));
}

#[test]
fn a_child_finds_its_master_and_a_helper_goes_on_listening() {
    let mut world = World::new();
    let mut control = world.control("10.1.0.2:40000", "10.2.0.9:21");
    control.say(&mut world, Side::Client, "PORT 10,1,0,2,7,208\r\n");
    let child = world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN).connection.unwrap();
    let (master, child) = (control.handle(&world), child);
    let described = [master, child].map(|handle| world.engine.export(handle, world.now).unwrap());
    assert_eq!(described[0].helper(), Some(Helper::Ftp));

    let mut heir = World::new();
    heir.now = world.now;
    let [master, child] =
        described.clone().map(|one| heir.engine.import(&one, Duration::ZERO, Trust::Lenient, heir.now).unwrap());
    heir.engine.check().unwrap();
    assert_eq!((heir.entry(master).uses, heir.entry(child).master), (2, Some(heir.entry(master).original)));
    // Each side has begun a line before: the very next command is heard.
    control.say(&mut heir, Side::Client, "PORT 10,1,0,2,7,209\r\n");
    assert_eq!(heir.expected(), ["10.2.0.9 → 10.1.0.2:2001"]);
    heir.engine.remove(child, heir.now);
    assert_eq!(heir.entry(master).uses, 1);

    // Without its master it lives on, and keeps the name.
    let mut orphan = World::new();
    let child = orphan.engine.import(&described[1], Duration::ZERO, Trust::Lenient, world.now).unwrap();
    assert_eq!(orphan.engine.entry(child, world.now).unwrap().master, Some(described[0].original));
    orphan.engine.check().unwrap();
}

#[test]
fn a_closed_connection_may_be_opened_anew() {
    let (mut first, _) = established();
    for packet in [out(17, 1001, 5011, 0), back(17, 5011, 1002, 0), out(ACK, 1002, 5012, 0)] {
        pass(&mut first, &packet, NOW);
    }
    let described = first.exports(NOW).next().unwrap();
    let mut second = engine();
    second.import(&described, Duration::from_secs(5), Trust::Lenient, NOW).unwrap();
    let again = pass(&mut second, &out(SYN, 90_000, 0, 0), NOW);
    assert_eq!(again.info, Info::New);
    let entry = second.entries(NOW).next().unwrap();
    assert!(matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::SynSent, .. }));
}
