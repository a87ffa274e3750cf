//! FTP through the engine's public API: announced connections are expected, and an arriving one becomes a child of the master.
//! The behaviour of Linux 6.18 is described in `docs/kernel-facts/ftp-and-expectations.md`.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::ftp_session::{ACK, RST, SYN, SYN_ACK, Sender, TestEngine};
use common::{Segment, tcp_with, udp};
use keepstate_engine::{CtInfo, CtVerdict, Helper, Instant, Reason, Status, Sysctl, Zone};
use keepstate_wire::Packet;
use std::time::Duration;

const CLIENT: &str = "10.1.0.2:40000";
const SERVER: &str = "10.2.0.9:21";
/// Port 7 · 256 + 208.
const PORT_2000: &str = "PORT 10,1,0,2,7,208\r\n";
const PORT_2001: &str = "PORT 10,1,0,2,7,209\r\n";

#[test]
fn active_port_command_creates_expectation() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    let outcome = control.send_line(&mut world, Sender::Client, PORT_2000);
    assert_eq!((outcome.info, outcome.verdict), (CtInfo::Established, CtVerdict::Accept));
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2000"]);

    let begun = world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN);
    assert_eq!(begun.info, CtInfo::Related);
    assert_eq!(world.expectations(), [""; 0], "used up");
    assert_eq!(world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN).info, CtInfo::Related, "not answered yet");
    assert_eq!(world.send_empty_segment("10.1.0.2:2000", "10.2.0.9:20", SYN_ACK).info, CtInfo::Established);
    assert_eq!(world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", ACK).info, CtInfo::Established);

    let child = world.entry(begun.connection.unwrap());
    let master = world.entry(control.conn_id(&world));
    assert!(child.status.contains(Status::EXPECTED) && !child.status.contains(Status::HELPER));
    assert_eq!((child.helper, child.master, child.uses), (None, Some(master.original), 1));
    assert!(master.status.contains(Status::HELPER) && !master.status.contains(Status::EXPECTED));
    assert_eq!((master.helper, master.master, master.uses), (Some("ftp"), None, 2));

    assert!(world.engine.remove(child.conn_id, world.now));
    assert_eq!(world.entry(master.conn_id).uses, 1);
    let counters = world.engine.counters();
    assert_eq!((counters.expect_new, counters.expect_create, counters.expect_delete), (1, 1, 1));
    assert_eq!(counters.drop, 0);
}

#[test]
fn passive_reply_creates_expectation() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Client, "PASV\r\n");
    control.send_line(&mut world, Sender::Server, "227 Entering Passive Mode (10,2,0,9,7,208).\r\n");
    assert_eq!(world.expectations(), ["10.1.0.2 → 10.2.0.9:2000"]);
    assert_eq!(world.send_empty_segment("10.1.0.3:40001", "10.2.0.9:2000", SYN).info, CtInfo::New, "somebody else");
    assert_eq!(world.send_empty_segment("10.1.0.2:40001", "10.2.0.9:2000", SYN).info, CtInfo::Related);
}

#[test]
fn epsv_reply_creates_expectation() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Server, "229 Entering Extended Passive Mode (|||2000|)\r\n");
    assert_eq!(world.expectations(), ["10.1.0.2 → 10.2.0.9:2000"]);
    assert_eq!(
        world.send_empty_segment("10.1.0.2:40001", "10.2.0.9:2000", ACK).info,
        CtInfo::Related,
        "no SYN is needed"
    );
}

#[test]
fn eprt_over_ipv6_creates_expectation() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in("[2001:db8::2]:40000", "[2001:db8::9]:21");
    control.send_line(&mut world, Sender::Client, "EPRT |2|2001:db8::2|2000|\r\n");
    assert_eq!(world.expectations(), ["2001:db8::9 → [2001:db8::2]:2000"]);
    let begun = world.send_empty_segment("[2001:db8::9]:20", "[2001:db8::2]:2000", SYN);
    assert_eq!(begun.info, CtInfo::Related);
    let master = world.entry(control.conn_id(&world));
    assert_eq!(world.entry(begun.connection.unwrap()).master, Some(master.original));
}

#[test]
fn expectation_lists_as_proc_nf_conntrack_expect() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    world.advance_ms(10_500);
    let all: Vec<_> = world.engine.expectations(world.now).collect();
    let [one] = all[..] else { unreachable!("{all:?}") };
    assert_eq!((one.helper, one.class, one.zone, one.timeout), (Some(Helper::Ftp), 0, 0, 289));
    assert_eq!((one.tuple.protocol, one.tuple.source_key, one.source_key_mask), (6, 0, 0));
    assert_eq!(one.source_mask.to_string(), "255.255.255.255");
    assert_eq!(one.master, world.entry(control.conn_id(&world)).original);
}

#[test]
fn no_helper_is_attached_by_default() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, "10.2.0.9:2121");
    control.send_line(&mut world, Sender::Client, PORT_2000);
    assert_eq!(world.expectations(), [""; 0]);
    let entry = world.entry(control.conn_id(&world));
    assert_eq!((entry.helper, entry.uses, entry.status.contains(Status::HELPER)), (None, 1, false));
}

#[test]
fn commands_not_at_a_known_line_start_are_ignored() {
    let mut world = TestEngine::new();
    let mut control = world.open_control(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    assert_eq!(world.expectations(), [""; 0], "nobody knows that a line begins here");
    control.send_line(&mut world, Sender::Client, "NOOP ");
    control.send_line(&mut world, Sender::Client, PORT_2000);
    assert_eq!(world.expectations(), [""; 0]);
    control.send_line(&mut world, Sender::Server, "220 ready\r\n");
    control.send_line(&mut world, Sender::Server, PORT_2000);
    assert_eq!(world.expectations(), [""; 0], "the server does not say PORT");
}

#[test]
fn port_with_foreign_address_creates_no_expectation() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    let outcome = control.send_line(&mut world, Sender::Client, "PORT 10,1,0,77,7,208\r\n");
    assert_eq!((outcome.verdict, outcome.reason), (CtVerdict::Accept, None));
    assert_eq!(world.expectations(), [""; 0]);
}

#[test]
fn partial_command_is_dropped_and_parsed_when_complete() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    let half = "PORT 10,1,0,";
    let outcome = control.send_line(&mut world, Sender::Client, half);
    assert_eq!((outcome.verdict, outcome.reason), (CtVerdict::Drop, Some(Reason::HelperPartial)));
    assert_eq!((outcome.info, outcome.connection), (CtInfo::Established, Some(control.conn_id(&world))));
    assert_eq!((world.reason_count("helper_partial"), world.engine.counters().drop), (1, 0));
    control.mark_lost(Sender::Client, half);
    assert_eq!(control.send_line(&mut world, Sender::Client, PORT_2000).verdict, CtVerdict::Accept);
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2000"]);
}

#[test]
fn truncated_capture_is_not_parsed() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    let segment = control.segment(Sender::Client, ACK, PORT_2000.as_bytes());
    let snapped = Packet::parse_snapped(&segment[..52], segment.len()).unwrap();
    let outcome = world.engine.handle(&snapped, Zone::default(), world.now);
    assert_eq!((outcome.info, outcome.verdict), (CtInfo::Established, CtVerdict::Accept));
    assert_eq!(world.expectations(), [""; 0]);
}

#[test]
fn new_announcement_replaces_the_old_expectation() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    control.send_line(&mut world, Sender::Client, PORT_2001);
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2001"]);
    control.send_line(&mut world, Sender::Server, "229 (|||3000|)\r\n");
    assert_eq!(world.expectations(), ["10.1.0.2 → 10.2.0.9:3000"], "be it the other side's");
    let counters = world.engine.counters();
    assert_eq!((counters.expect_create, counters.expect_delete), (3, 2));
    assert_eq!(world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2001", SYN).info, CtInfo::New);
}

#[test]
fn repeated_announcement_restarts_the_timeout() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    world.advance_ms(200_000);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    world.advance_ms(200_000);
    world.engine.poll(world.now);
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2000"]);
    assert_eq!(world.engine.counters().expect_delete, 1);
}

#[test]
fn clashing_expectation_of_another_master_is_rejected() {
    let mut world = TestEngine::new();
    let mut first = world.open_logged_in(CLIENT, SERVER);
    let mut second = world.open_logged_in("10.1.0.2:40001", SERVER);
    first.send_line(&mut world, Sender::Client, PORT_2000);
    second.send_line(&mut world, Sender::Client, PORT_2001);
    let outcome = second.send_line(&mut world, Sender::Client, PORT_2000);
    assert_eq!((outcome.verdict, outcome.reason), (CtVerdict::Drop, Some(Reason::ExpectClash)));
    assert_eq!((world.reason_count("expect_clash"), world.engine.counters().drop), (1, 0));
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2000", "10.2.0.9 → 10.1.0.2:2001"], "what it had stays");
    world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN);
    assert_eq!(world.entry(first.conn_id(&world)).uses, 2);
    assert_eq!(world.entry(second.conn_id(&world)).uses, 1);
}

#[test]
fn expect_max_is_enforced() {
    let mut world = TestEngine::with(&[(Sysctl::ExpectMax, 1)]);
    let mut first = world.open_logged_in(CLIENT, SERVER);
    let mut second = world.open_logged_in("10.1.0.2:40001", SERVER);
    first.send_line(&mut world, Sender::Client, PORT_2000);
    let outcome = second.send_line(&mut world, Sender::Client, PORT_2001);
    assert_eq!((outcome.verdict, outcome.reason), (CtVerdict::Drop, Some(Reason::ExpectFull)));
    assert_eq!(world.reason_count("expect_full"), 1);
    assert_eq!(world.engine.poll_log().as_deref(), Some("nf_conntrack: expectation table full"));
    assert_eq!(first.send_line(&mut world, Sender::Client, "PORT 10,1,0,2,7,210\r\n").verdict, CtVerdict::Accept);
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2002"], "in the place of its own");
    world.engine.set_sysctl(Sysctl::ExpectMax, 2).unwrap();
    assert_eq!(second.send_line(&mut world, Sender::Client, PORT_2001).verdict, CtVerdict::Accept);
    assert_eq!(world.engine.poll_log(), None);
}

#[test]
fn master_end_removes_expectations_but_not_children() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    let child = world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN).connection.unwrap();
    control.send_line(&mut world, Sender::Client, PORT_2001);
    let master = world.entry(control.conn_id(&world));
    control.send(&mut world, Sender::Client, RST, b"");
    world.advance_ms(10_000);
    world.engine.poll(world.now);
    world.engine.check_invariants().unwrap();
    assert_eq!(world.engine.entry(master.conn_id, world.now), None, "CLOSE lasts ten seconds");
    assert_eq!(world.expectations(), [""; 0]);
    assert_eq!(world.engine.counters().expect_delete, 2);
    assert_eq!(world.entry(child).master, Some(master.original), "its name outlives it");
    assert_eq!(world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2001", SYN).info, CtInfo::New);

    // A later connection with the same tuple is not the child's master.
    let again = world.open_logged_in(CLIENT, SERVER);
    assert_eq!(world.entry(again.conn_id(&world)).uses, 1);
    assert!(world.engine.remove(child, world.now));
    world.engine.check_invariants().unwrap();
    assert_eq!(world.entry(again.conn_id(&world)).uses, 1);
}

#[test]
fn expired_master_matches_no_expectation() {
    let mut world = TestEngine::with(&[(Sysctl::TcpTimeoutEstablished, 100)]);
    let mut control = world.open_logged_in(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    // The engine was not polled, so the expired master is still in the table.
    world.advance_ms(150_000);
    let outcome = world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN);
    assert_eq!((outcome.info, world.engine.count()), (CtInfo::New, 1));
}

#[test]
fn remove_and_flush_remove_expectations() {
    let mut world = TestEngine::new();
    let mut first = world.open_logged_in(CLIENT, SERVER);
    let mut second = world.open_logged_in("10.1.0.2:40001", SERVER);
    first.send_line(&mut world, Sender::Client, PORT_2000);
    second.send_line(&mut world, Sender::Client, PORT_2001);
    let conn_id = first.conn_id(&world);
    assert!(world.engine.remove(conn_id, world.now));
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2001"]);
    world.engine.flush(world.now);
    world.engine.check_invariants().unwrap();
    assert_eq!((world.expectations().len(), world.engine.counters().expect_delete), (0, 2));
    assert_eq!(world.engine.next_wake(world.now), None);
}

#[test]
fn expectation_expires_after_five_minutes() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    let before = world.engine.next_wake(world.now).unwrap();
    control.send_line(&mut world, Sender::Client, PORT_2000);
    // Acknowledge all data, otherwise the master expires first.
    control.send(&mut world, Sender::Server, ACK, b"");
    let over = world.now.after(Duration::from_secs(300));
    assert_eq!(world.engine.next_wake(world.now), Some(over.min(before)));
    world.now = Instant(over.0 - 4_000_000);
    world.engine.poll(world.now);
    assert_eq!((world.expectations().len(), world.engine.counters().expect_delete), (1, 0));
    assert_eq!(world.engine.next_wake(world.now), Some(over));
    world.now = over;
    assert_eq!(world.expectations(), [""; 0], "though nobody has polled");
    world.engine.poll(world.now);
    assert_eq!(world.engine.counters().expect_delete, 1);
    assert!(world.engine.next_wake(world.now).is_some_and(|wake| wake > over), "the master stays");
    assert_eq!(world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN).info, CtInfo::New);
}

#[test]
fn invalid_packet_consumes_the_expectation() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    assert_eq!(world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", RST).info, CtInfo::Invalid);
    assert_eq!(world.expectations(), [""; 0]);
    assert_eq!(world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN).info, CtInfo::New);
    assert_eq!(world.engine.counters().expect_new, 1);
}

#[test]
fn packet_of_known_connection_does_not_consume_the_expectation() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    assert_eq!(world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN).info, CtInfo::New);
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2000"], "it waits for the next new one");
}

#[test]
fn helper_set_by_rule_and_child_inherits_mark() {
    let mut world = TestEngine::new();
    let (client, server) = (CLIENT.parse().unwrap(), "10.2.0.9:2121".parse().unwrap());
    let syn = tcp_with(client, server, &Segment { flags: SYN, seq: 999, ..Segment::default() }, &[]);
    let mut ctx = world.engine.track(&Packet::parse(&syn).unwrap(), Zone::default(), world.now);
    let fresh = ctx.unconfirmed().unwrap();
    fresh.attach_helper(Helper::Ftp);
    fresh.mark = 7;
    world.engine.confirm(ctx, world.now);
    // The segments of a new connection: its SYN is sent again.
    let mut control = world.open_logged_in(CLIENT, "10.2.0.9:2121");
    assert_eq!(world.entry(control.conn_id(&world)).helper, Some("ftp"));
    control.send_line(&mut world, Sender::Client, PORT_2000);
    let child = world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN).connection.unwrap();
    assert_eq!(world.entry(child).mark, 7);
}

#[test]
fn dropped_packet_does_not_run_the_helper() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    let segment = control.segment(Sender::Client, ACK, PORT_2000.as_bytes());
    let ctx = world.engine.track(&Packet::parse(&segment).unwrap(), Zone::default(), world.now);
    assert_eq!(ctx.info(), CtInfo::Established);
    drop(ctx);
    assert_eq!(world.expectations(), [""; 0]);
    control.mark_lost(Sender::Client, PORT_2000);
    control.send_line(&mut world, Sender::Client, PORT_2000);
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2000"]);

    // The first packet consumes the expectation even if a rule drops it.
    let syn = tcp_with(
        "10.2.0.9:20".parse().unwrap(),
        "10.1.0.2:2000".parse().unwrap(),
        &Segment { flags: SYN, ..Segment::default() },
        &[],
    );
    let ctx = world.engine.track(&Packet::parse(&syn).unwrap(), Zone::default(), world.now);
    assert_eq!(ctx.info(), CtInfo::Related);
    drop(ctx);
    world.engine.check_invariants().unwrap();
    assert_eq!(world.expectations(), [""; 0]);
    assert_eq!(world.entry(control.conn_id(&world)).uses, 1);
}

#[test]
fn helper_is_not_run_if_the_master_ended_before_confirm() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    let segment = control.segment(Sender::Client, ACK, PORT_2000.as_bytes());
    let ctx = world.engine.track(&Packet::parse(&segment).unwrap(), Zone::default(), world.now);
    world.engine.flush(world.now);
    let outcome = world.engine.confirm(ctx, world.now);
    assert_eq!(outcome.verdict, CtVerdict::Accept);
    world.engine.check_invariants().unwrap();
    assert_eq!(world.engine.expectations(world.now).count(), 0);
}

#[test]
fn helper_is_not_attached_to_other_protocols() {
    let mut world = TestEngine::new();
    world.engine.set_auto_helper(17, 21, Helper::Ftp);
    let outcome = world.packet(&udp(([10, 1, 0, 2], 40000), ([10, 2, 0, 9], 21), b"PORT"));
    let entry = world.entry(outcome.connection.unwrap());
    assert_eq!((entry.helper, entry.status.contains(Status::HELPER)), (None, false));
}

#[test]
fn batch_equals_single_packets() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in(CLIENT, SERVER);
    let segments = [
        control.segment(Sender::Client, ACK, b"NOOP\r\n"),
        control.segment(Sender::Client, ACK, PORT_2000.as_bytes()),
        control.segment(Sender::Server, ACK, b"200 fine\r\n"),
    ];
    let packets: Vec<_> = segments.iter().map(|bytes| Packet::parse(bytes).unwrap()).collect();
    let mut outcomes = Vec::new();
    world.engine.handle_batch(&packets, Zone::default(), world.now, &mut outcomes);
    assert!(outcomes.iter().all(|outcome| outcome.verdict == CtVerdict::Accept));
    assert_eq!(world.expectations(), ["10.2.0.9 → 10.1.0.2:2000"]);
}
