//! FTP through the engine's public face: what is announced is expected, and what comes is a child of who announced it.
//! `docs/kernel-facts/ftp-and-expectations.md` says what Linux 6.18 was seen to do.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::conversation::{ACK, RST, SYN, SYN_ACK, Side, World};
use common::{Segment, tcp_with, udp};
use keepstate_engine::{Helper, Info, Instant, Knob, Status, Verdict, Why, Zone};
use keepstate_wire::Packet;
use std::time::Duration;

const CLIENT: &str = "10.1.0.2:40000";
const SERVER: &str = "10.2.0.9:21";
/// Port 7 · 256 + 208.
const PORT_2000: &str = "PORT 10,1,0,2,7,208\r\n";
const PORT_2001: &str = "PORT 10,1,0,2,7,209\r\n";

#[test]
fn active() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    let outcome = control.say(&mut world, Side::Client, PORT_2000);
    assert_eq!((outcome.info, outcome.verdict), (Info::Established, Verdict::Accept));
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2000"]);

    let begun = world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN);
    assert_eq!(begun.info, Info::Related);
    assert_eq!(world.expected(), [""; 0], "used up");
    assert_eq!(world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN).info, Info::Related, "not answered yet");
    assert_eq!(world.bare("10.1.0.2:2000", "10.2.0.9:20", SYN_ACK).info, Info::Established);
    assert_eq!(world.bare("10.2.0.9:20", "10.1.0.2:2000", ACK).info, Info::Established);

    let child = world.entry(begun.connection.unwrap());
    let master = world.entry(control.handle(&world));
    assert!(child.status.has(Status::EXPECTED) && !child.status.has(Status::HELPER));
    assert_eq!((child.helper, child.master, child.uses), (None, Some(master.original), 1));
    assert!(master.status.has(Status::HELPER) && !master.status.has(Status::EXPECTED));
    assert_eq!((master.helper, master.master, master.uses), (Some("ftp"), None, 2));

    assert!(world.engine.remove(child.handle, world.now));
    assert_eq!(world.entry(master.handle).uses, 1);
    let counters = world.engine.counters();
    assert_eq!((counters.expect_new, counters.expect_create, counters.expect_delete), (1, 1, 1));
    assert_eq!(counters.drop, 0);
}

#[test]
fn passive() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    control.say(&mut world, Side::Client, "PASV\r\n");
    control.say(&mut world, Side::Server, "227 Entering Passive Mode (10,2,0,9,7,208).\r\n");
    assert_eq!(world.expected(), ["10.1.0.2 → 10.2.0.9:2000"]);
    assert_eq!(world.bare("10.1.0.3:40001", "10.2.0.9:2000", SYN).info, Info::New, "somebody else");
    assert_eq!(world.bare("10.1.0.2:40001", "10.2.0.9:2000", SYN).info, Info::Related);
}

#[test]
fn extended_passive() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    control.say(&mut world, Side::Server, "229 Entering Extended Passive Mode (|||2000|)\r\n");
    assert_eq!(world.expected(), ["10.1.0.2 → 10.2.0.9:2000"]);
    assert_eq!(world.bare("10.1.0.2:40001", "10.2.0.9:2000", ACK).info, Info::Related, "no SYN is needed");
}

#[test]
fn extended_active_over_ipv6() {
    let mut world = World::new();
    let mut control = world.control("[2001:db8::2]:40000", "[2001:db8::9]:21");
    control.say(&mut world, Side::Client, "EPRT |2|2001:db8::2|2000|\r\n");
    assert_eq!(world.expected(), ["2001:db8::9 → [2001:db8::2]:2000"]);
    let begun = world.bare("[2001:db8::9]:20", "[2001:db8::2]:2000", SYN);
    assert_eq!(begun.info, Info::Related);
    let master = world.entry(control.handle(&world));
    assert_eq!(world.entry(begun.connection.unwrap()).master, Some(master.original));
}

#[test]
fn as_it_is_listed() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    control.say(&mut world, Side::Client, PORT_2000);
    world.wait(10_500);
    let all: Vec<_> = world.engine.expectations(world.now).collect();
    let [one] = all[..] else { unreachable!("{all:?}") };
    assert_eq!((one.helper, one.class, one.zone, one.timeout), (Helper::Ftp, 0, 0, 289));
    assert_eq!((one.tuple.protocol, one.tuple.source_key, one.source_key_mask), (6, 0, 0));
    assert_eq!(one.source_mask.to_string(), "255.255.255.255");
    assert_eq!(one.master, world.entry(control.handle(&world)).original);
}

#[test]
fn nobody_listens_unless_asked() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, "10.2.0.9:2121");
    control.say(&mut world, Side::Client, PORT_2000);
    assert_eq!(world.expected(), [""; 0]);
    let entry = world.entry(control.handle(&world));
    assert_eq!((entry.helper, entry.uses, entry.status.has(Status::HELPER)), (None, 1, false));
}

#[test]
fn neither_the_first_line_nor_a_word_in_the_middle_is_heard() {
    let mut world = World::new();
    let mut control = world.opened(CLIENT, SERVER);
    control.say(&mut world, Side::Client, PORT_2000);
    assert_eq!(world.expected(), [""; 0], "nobody knows that a line begins here");
    control.say(&mut world, Side::Client, "NOOP ");
    control.say(&mut world, Side::Client, PORT_2000);
    assert_eq!(world.expected(), [""; 0]);
    control.say(&mut world, Side::Server, "220 ready\r\n");
    control.say(&mut world, Side::Server, PORT_2000);
    assert_eq!(world.expected(), [""; 0], "the server does not say PORT");
}

#[test]
fn somebody_elses_address_passes_and_is_not_expected() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    let outcome = control.say(&mut world, Side::Client, "PORT 10,1,0,77,7,208\r\n");
    assert_eq!((outcome.verdict, outcome.why), (Verdict::Accept, None));
    assert_eq!(world.expected(), [""; 0]);
}

#[test]
fn half_a_command_is_dropped_and_heard_when_it_comes_whole() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    let half = "PORT 10,1,0,";
    let outcome = control.say(&mut world, Side::Client, half);
    assert_eq!((outcome.verdict, outcome.why), (Verdict::Drop, Some(Why::HelperPartial)));
    assert_eq!((outcome.info, outcome.connection), (Info::Established, Some(control.handle(&world))));
    assert_eq!((world.reason("helper_partial"), world.engine.counters().drop), (1, 0));
    control.forget(Side::Client, half);
    assert_eq!(control.say(&mut world, Side::Client, PORT_2000).verdict, Verdict::Accept);
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2000"]);
}

#[test]
fn a_capture_that_kept_half_a_command_says_nothing() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    let segment = control.segment(Side::Client, ACK, PORT_2000.as_bytes());
    let snapped = Packet::parse_snapped(&segment[..52], segment.len()).unwrap();
    let outcome = world.engine.handle(&snapped, Zone::default(), world.now);
    assert_eq!((outcome.info, outcome.verdict), (Info::Established, Verdict::Accept));
    assert_eq!(world.expected(), [""; 0]);
}

#[test]
fn another_announcement_replaces_the_first() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    control.say(&mut world, Side::Client, PORT_2000);
    control.say(&mut world, Side::Client, PORT_2001);
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2001"]);
    control.say(&mut world, Side::Server, "229 (|||3000|)\r\n");
    assert_eq!(world.expected(), ["10.1.0.2 → 10.2.0.9:3000"], "be it the other side's");
    let counters = world.engine.counters();
    assert_eq!((counters.expect_create, counters.expect_delete), (3, 2));
    assert_eq!(world.bare("10.2.0.9:20", "10.1.0.2:2001", SYN).info, Info::New);
}

#[test]
fn the_same_again_begins_anew() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    control.say(&mut world, Side::Client, PORT_2000);
    world.wait(200_000);
    control.say(&mut world, Side::Client, PORT_2000);
    world.wait(200_000);
    world.engine.poll(world.now);
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2000"]);
    assert_eq!(world.engine.counters().expect_delete, 1);
}

#[test]
fn what_another_expects_is_not_expected_twice() {
    let mut world = World::new();
    let mut first = world.control(CLIENT, SERVER);
    let mut second = world.control("10.1.0.2:40001", SERVER);
    first.say(&mut world, Side::Client, PORT_2000);
    second.say(&mut world, Side::Client, PORT_2001);
    let outcome = second.say(&mut world, Side::Client, PORT_2000);
    assert_eq!((outcome.verdict, outcome.why), (Verdict::Drop, Some(Why::ExpectClash)));
    assert_eq!((world.reason("expect_clash"), world.engine.counters().drop), (1, 0));
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2000", "10.2.0.9 → 10.1.0.2:2001"], "what it had stays");
    world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN);
    assert_eq!(world.entry(first.handle(&world)).uses, 2);
    assert_eq!(world.entry(second.handle(&world)).uses, 1);
}

#[test]
fn no_more_than_the_knob_allows() {
    let mut world = World::with(&[(Knob::ExpectMax, 1)]);
    let mut first = world.control(CLIENT, SERVER);
    let mut second = world.control("10.1.0.2:40001", SERVER);
    first.say(&mut world, Side::Client, PORT_2000);
    let outcome = second.say(&mut world, Side::Client, PORT_2001);
    assert_eq!((outcome.verdict, outcome.why), (Verdict::Drop, Some(Why::ExpectFull)));
    assert_eq!(world.reason("expect_full"), 1);
    assert_eq!(world.engine.poll_log().as_deref(), Some("nf_conntrack: expectation table full"));
    assert_eq!(first.say(&mut world, Side::Client, "PORT 10,1,0,2,7,210\r\n").verdict, Verdict::Accept);
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2002"], "in the place of its own");
    world.engine.set(Knob::ExpectMax, 2).unwrap();
    assert_eq!(second.say(&mut world, Side::Client, PORT_2001).verdict, Verdict::Accept);
    assert_eq!(world.engine.poll_log(), None);
}

#[test]
fn an_expectation_ends_with_its_master_and_a_child_does_not() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    control.say(&mut world, Side::Client, PORT_2000);
    let child = world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN).connection.unwrap();
    control.say(&mut world, Side::Client, PORT_2001);
    let master = world.entry(control.handle(&world));
    control.send(&mut world, Side::Client, RST, b"");
    world.wait(10_000);
    world.engine.poll(world.now);
    world.engine.check().unwrap();
    assert_eq!(world.engine.entry(master.handle, world.now), None, "CLOSE lasts ten seconds");
    assert_eq!(world.expected(), [""; 0]);
    assert_eq!(world.engine.counters().expect_delete, 2);
    assert_eq!(world.entry(child).master, Some(master.original), "its name outlives it");
    assert_eq!(world.bare("10.2.0.9:20", "10.1.0.2:2001", SYN).info, Info::New);

    // Another connection in the same place is not the child's master.
    let again = world.control(CLIENT, SERVER);
    assert_eq!(world.entry(again.handle(&world)).uses, 1);
    assert!(world.engine.remove(child, world.now));
    world.engine.check().unwrap();
    assert_eq!(world.entry(again.handle(&world)).uses, 1);
}

#[test]
fn a_master_whose_time_is_over_expects_nothing() {
    let mut world = World::with(&[(Knob::TcpTimeoutEstablished, 100)]);
    let mut control = world.control(CLIENT, SERVER);
    control.say(&mut world, Side::Client, PORT_2000);
    // Nobody has polled, so that it still stands in the table.
    world.wait(150_000);
    let outcome = world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN);
    assert_eq!((outcome.info, world.engine.count()), (Info::New, 1));
}

#[test]
fn removing_and_flushing_leave_no_expectation() {
    let mut world = World::new();
    let mut first = world.control(CLIENT, SERVER);
    let mut second = world.control("10.1.0.2:40001", SERVER);
    first.say(&mut world, Side::Client, PORT_2000);
    second.say(&mut world, Side::Client, PORT_2001);
    let handle = first.handle(&world);
    assert!(world.engine.remove(handle, world.now));
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2001"]);
    world.engine.flush(world.now);
    world.engine.check().unwrap();
    assert_eq!((world.expected().len(), world.engine.counters().expect_delete), (0, 2));
    assert_eq!(world.engine.next_wake(world.now), None);
}

#[test]
fn it_expires_after_five_minutes() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    let before = world.engine.next_wake(world.now).unwrap();
    control.say(&mut world, Side::Client, PORT_2000);
    // All data acknowledged, or the master would last no longer.
    control.send(&mut world, Side::Server, ACK, b"");
    let over = world.now.after(Duration::from_secs(300));
    assert_eq!(world.engine.next_wake(world.now), Some(over.min(before)));
    world.now = Instant(over.0 - 4_000_000);
    world.engine.poll(world.now);
    assert_eq!((world.expected().len(), world.engine.counters().expect_delete), (1, 0));
    assert_eq!(world.engine.next_wake(world.now), Some(over));
    world.now = over;
    assert_eq!(world.expected(), [""; 0], "though nobody has polled");
    world.engine.poll(world.now);
    assert_eq!(world.engine.counters().expect_delete, 1);
    assert!(world.engine.next_wake(world.now).is_some_and(|wake| wake > over), "the master stays");
    assert_eq!(world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN).info, Info::New);
}

#[test]
fn an_invalid_packet_uses_it_up() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    control.say(&mut world, Side::Client, PORT_2000);
    assert_eq!(world.bare("10.2.0.9:20", "10.1.0.2:2000", RST).info, Info::Invalid);
    assert_eq!(world.expected(), [""; 0]);
    assert_eq!(world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN).info, Info::New);
    assert_eq!(world.engine.counters().expect_new, 1);
}

#[test]
fn a_known_connection_does_not() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN);
    control.say(&mut world, Side::Client, PORT_2000);
    assert_eq!(world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN).info, Info::New);
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2000"], "it waits for the next new one");
}

#[test]
fn a_rule_attaches_and_a_child_takes_the_mark() {
    let mut world = World::new();
    let (client, server) = (CLIENT.parse().unwrap(), "10.2.0.9:2121".parse().unwrap());
    let syn = tcp_with(client, server, &Segment { flags: SYN, seq: 999, ..Segment::default() }, &[]);
    let mut passage = world.engine.track(&Packet::parse(&syn).unwrap(), Zone::default(), world.now);
    let fresh = passage.unconfirmed().unwrap();
    fresh.attach_helper(Helper::Ftp);
    fresh.mark = 7;
    world.engine.confirm(passage, world.now);
    // The segments of a fresh conversation: its SYN comes again.
    let mut control = world.control(CLIENT, "10.2.0.9:2121");
    assert_eq!(world.entry(control.handle(&world)).helper, Some("ftp"));
    control.say(&mut world, Side::Client, PORT_2000);
    let child = world.bare("10.2.0.9:20", "10.1.0.2:2000", SYN).connection.unwrap();
    assert_eq!(world.entry(child).mark, 7);
}

#[test]
fn what_a_rule_drops_nobody_hears() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    let segment = control.segment(Side::Client, ACK, PORT_2000.as_bytes());
    let passage = world.engine.track(&Packet::parse(&segment).unwrap(), Zone::default(), world.now);
    assert_eq!(passage.info(), Info::Established);
    drop(passage);
    assert_eq!(world.expected(), [""; 0]);
    control.forget(Side::Client, PORT_2000);
    control.say(&mut world, Side::Client, PORT_2000);
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2000"]);

    // A first packet that a rule drops has used it up all the same.
    let syn = tcp_with(
        "10.2.0.9:20".parse().unwrap(),
        "10.1.0.2:2000".parse().unwrap(),
        &Segment { flags: SYN, ..Segment::default() },
        &[],
    );
    let passage = world.engine.track(&Packet::parse(&syn).unwrap(), Zone::default(), world.now);
    assert_eq!(passage.info(), Info::Related);
    drop(passage);
    world.engine.check().unwrap();
    assert_eq!(world.expected(), [""; 0]);
    assert_eq!(world.entry(control.handle(&world)).uses, 1);
}

#[test]
fn a_master_that_ends_on_the_way_is_not_heard() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    let segment = control.segment(Side::Client, ACK, PORT_2000.as_bytes());
    let passage = world.engine.track(&Packet::parse(&segment).unwrap(), Zone::default(), world.now);
    world.engine.flush(world.now);
    let outcome = world.engine.confirm(passage, world.now);
    assert_eq!(outcome.verdict, Verdict::Accept);
    world.engine.check().unwrap();
    assert_eq!(world.engine.expectations(world.now).count(), 0);
}

#[test]
fn a_helper_stays_away_from_protocols_it_does_not_hear() {
    let mut world = World::new();
    world.engine.help(17, 21, Helper::Ftp);
    let outcome = world.packet(&udp(([10, 1, 0, 2], 40000), ([10, 2, 0, 9], 21), b"PORT"));
    let entry = world.entry(outcome.connection.unwrap());
    assert_eq!((entry.helper, entry.status.has(Status::HELPER)), (None, false));
}

#[test]
fn in_a_batch_as_one_by_one() {
    let mut world = World::new();
    let mut control = world.control(CLIENT, SERVER);
    let segments = [
        control.segment(Side::Client, ACK, b"NOOP\r\n"),
        control.segment(Side::Client, ACK, PORT_2000.as_bytes()),
        control.segment(Side::Server, ACK, b"200 fine\r\n"),
    ];
    let packets: Vec<_> = segments.iter().map(|bytes| Packet::parse(bytes).unwrap()).collect();
    let mut outcomes = Vec::new();
    world.engine.handle_batch(&packets, world.now, &mut outcomes);
    assert!(outcomes.iter().all(|outcome| outcome.verdict == Verdict::Accept));
    assert_eq!(world.expected(), ["10.2.0.9 → 10.1.0.2:2000"]);
}
