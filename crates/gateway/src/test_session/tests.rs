//! Visits: what is asked is answered, and whoever is slow, or many, holds up nobody.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
use super::*;
use keepstate_engine::{ConnUpdate, NewConnection, Tuple, Zone};
use keepstate_linux::ctnetlink::consts::{group, message};
use keepstate_linux::ctnetlink::{CtClient, CtDumpKind, CtEventSocket, CtFlow, DumpFilter, EventKind};
use keepstate_linux::netlink::NetlinkSocket;
use keepstate_linux::netlink::message::flag;
use keepstate_linux::netlink::{NlMessages, NlRequest, stream_frame};
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant as Clock;

const CTNETLINK_REQUEST: &[u8] = b"{\"v\":1,\"speak\":\"ctnetlink\"}\n";

/// So many connections of TCP, each of another address and port.
fn fill_table(router: &mut Router, count: u32) {
    router.engine_mut().set_sysctl(keepstate_engine::Sysctl::Max, 0).unwrap();
    for number in 0..count {
        let original = Tuple {
            source: std::net::Ipv4Addr::from_bits(0x0a00_0000 | number >> 8).into(),
            destination: [192, 0, 2, 1].into(),
            protocol: 6,
            source_key: (number & 0xff) as u16 + 1024,
            destination_key: 443,
        };
        let wish = ConnUpdate { timeout: Some(1000), ..ConnUpdate::default() };
        let reply = original.invert().unwrap();
        let draft =
            NewConnection { original, reply, zone: Zone::default(), attributes: wish, dst_nat: None, src_nat: None };
        router.engine_mut().create(&draft, NOW).unwrap();
    }
}

/// Speaks, and reads the first line of the answer.
fn open_ctnetlink(outside: &mut UnixStream) {
    outside.write_all(CTNETLINK_REQUEST).unwrap();
    let mut head = Vec::new();
    let mut octet = [0];
    while head.last() != Some(&b'\n') {
        outside.read_exact(&mut octet).unwrap();
        head.extend(octet);
    }
    assert_eq!(head, b"{\"v\":1}\n");
}

#[test]
fn large_dump_is_complete_and_jobs_stay_short() {
    const COUNT: u32 = 200_000;
    let mut rehearsal = TestGateway::new();
    fill_table(&mut rehearsal.router, COUNT);
    let (mut outside, attending) = rehearsal.connect().unwrap();
    open_ctnetlink(&mut outside);
    let mut dump = NlRequest::new(message::CT_GET, flag::DUMP, 0);
    stream_frame::write_frame(&mut outside, dump.finish(1)).unwrap();
    // He does not read: after what fits on the way, nothing more is taken from the table for him.
    let until = Clock::now() + Duration::from_millis(300);
    let mut errands = 0;
    while Clock::now() < until {
        errands += rehearsal.tick();
        thread::sleep(Duration::from_micros(100));
    }
    assert!((1..=4).contains(&errands), "{errands} pieces for who does not read");
    // Now he reads; the turns go on.
    let reading = thread::spawn(move || {
        let (mut ports, mut piece) = (std::collections::HashSet::new(), Vec::new());
        loop {
            assert!(stream_frame::read_frame(&mut outside, &mut piece).unwrap());
            for message in NlMessages::new(&piece) {
                let message = message.unwrap();
                match keepstate_linux::ctnetlink::decode::flow(&message).unwrap() {
                    Some(CtFlow { original, .. }) => assert!(ports.insert(original), "told twice: {original:?}"),
                    None => return ports.len(),
                }
            }
        }
    });
    let mut most = 0;
    while !reading.is_finished() {
        most = most.max(rehearsal.tick());
        thread::sleep(Duration::from_micros(50));
    }
    assert_eq!(reading.join().unwrap(), COUNT as usize);
    assert!(most as u32 * crate::jobs::SLOTS_PER_JOB < COUNT / 2, "{most} pieces in one turn");
    assert!(attending.join().is_ok());
}

#[test]
fn slow_subscriber_gets_enobufs_and_others_lose_nothing() {
    let mut rehearsal = TestGateway::new();
    let (mut slow, _attending) = rehearsal.connect().unwrap();
    let (mut quick, _attending_too) = rehearsal.connect().unwrap();
    open_ctnetlink(&mut slow);
    open_ctnetlink(&mut quick);
    let over = std::sync::Arc::new(AtomicBool::new(false));
    let joining = {
        let over = std::sync::Arc::clone(&over);
        thread::spawn(move || {
            let wanted = [EventKind::New, EventKind::Destroy];
            let slow = CtEventSocket::subscribe_connections(NetlinkSocket::over_stream(slow), wanted).unwrap();
            let quick = CtEventSocket::subscribe_connections(NetlinkSocket::over_stream(quick), wanted).unwrap();
            over.store(true, Ordering::Relaxed);
            (slow, quick)
        })
    };
    while !over.load(Ordering::Relaxed) {
        rehearsal.tick();
        thread::sleep(Duration::from_micros(50));
    }
    let (mut slow, mut quick) = joining.join().unwrap();
    let count = |events: &mut CtEventSocket, so_far: &AtomicUsize| {
        let (mut heard, mut lost) = (0_usize, 0_usize);
        loop {
            match events.receive(Duration::from_millis(1500)) {
                Ok(Some(piece)) => {
                    heard += NlMessages::new(piece).count();
                    so_far.store(heard, Ordering::Relaxed);
                }
                Ok(None) => return (heard, lost),
                Err(failure) if failure.errno() == Some(libc::ENOBUFS) => lost += 1,
                Err(failure) => panic!("{failure}"),
            }
        }
    };
    let heard_so_far = std::sync::Arc::new(AtomicUsize::new(0));
    let listening = {
        let heard_so_far = std::sync::Arc::clone(&heard_so_far);
        thread::spawn(move || count(&mut quick, &heard_so_far))
    };
    const COUNT: u32 = 150_000;
    for step in 0..COUNT as usize / 1000 {
        // The quick one keeps up: she is never more than a few thousand events behind, however busy this machine is.
        while heard_so_far.load(Ordering::Relaxed) + 8000 < step * 2000 {
            thread::sleep(Duration::from_millis(1));
        }
        fill_table(&mut rehearsal.router, 1000);
        rehearsal.tick();
        let _ = rehearsal.router.engine_mut().flush_range(0, u32::MAX, None, NOW);
        let begun = Clock::now();
        rehearsal.tick();
        assert!(begun.elapsed() < Duration::from_secs(1), "a slow listener holds up the router");
        thread::sleep(Duration::from_millis(1));
    }
    let (heard, lost) = listening.join().unwrap();
    assert_eq!((heard, lost), (COUNT as usize * 2, 0));
    let (heard, lost) = count(&mut slow, &AtomicUsize::new(0));
    assert!(heard < COUNT as usize * 2 && lost >= 1, "{heard} heard, told {lost} times of losses");
}

#[test]
fn ctnetlink_over_control_socket_works_as_kernel_table() {
    let mut rehearsal = TestGateway::new();
    fill_table(&mut rehearsal.router, 3);
    let (mut outside, attending) = rehearsal.connect().unwrap();
    open_ctnetlink(&mut outside);
    let asking = thread::spawn(move || {
        let mut table = CtClient::from_socket(NetlinkSocket::over_stream(outside));
        assert_eq!(table.count().unwrap().0, 3);
        let mut all = Vec::new();
        let restriction = DumpFilter::default();
        table
            .dump(CtDumpKind::Confirmed, &restriction, |flow| {
                all.push(flow.clone());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(all.len(), 3);
        let found = table.get(&all[0]).unwrap().unwrap();
        assert_eq!((found.id, found.original), (all[0].id, all[0].original));
        table.delete(&found).unwrap();
        assert_eq!(table.delete(&found).unwrap_err().errno(), Some(libc::ENOENT));
        let mut ended = Vec::new();
        table.delete_batch(&all, |_, number| ended.push(number)).unwrap();
        assert_eq!(ended, [libc::ENOENT, 0, 0]);
        table.create(&all[0]).unwrap();
        assert_eq!(table.create(&all[0]).unwrap_err().errno(), Some(libc::EEXIST));
        table.flush(&restriction).unwrap();
        assert_eq!(table.count().unwrap().0, 0);
        assert_eq!(table.cpu_stats().unwrap().len(), 1);
        assert!(table.dump_expectations(0).unwrap().is_empty());
        assert_eq!(table.socket().join_groups(&[99]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        table.socket().join_groups(&[group::EXP_NEW]).unwrap();
    });
    while !asking.is_finished() {
        rehearsal.tick();
        thread::sleep(Duration::from_micros(50));
    }
    asking.join().unwrap();
    while !attending.is_finished() {
        rehearsal.tick();
    }
}

#[test]
fn invalid_requests_get_an_error_reply() {
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n", "this is no request"),
        (b"{\"v\":2,\"words\":[\"count\"]}\n", "use the keepstate that it was started with"),
        (b"{\"v\":1,\"speak\":\"grpc\"}\n", "it speaks ctnetlink"),
        (b"{\"v\":1,\"words\":[\"cuont\"]}\n", "count"),
        (b"{\"v\":1,\"words\":[\"get\",\"nf_conntrack_mox\"]}\n", "nf_conntrack_mox"),
    ];
    for (said, expected) in cases {
        let (heard, _) = run_control_session(said).unwrap();
        let mut lines = BufReader::new(&heard[..]).lines();
        let head = lines.next().unwrap().unwrap();
        assert!(head.starts_with("{\"v\":1,\"error\":") && head.contains(expected), "{head}");
    }
    // What is no message of the kernel's ends the visit, and nothing else.
    let (heard, router) = run_control_session(&[CTNETLINK_REQUEST, &[0, 0, 0, 4, 1, 2, 3, 4]].concat()).unwrap();
    assert_eq!(heard, b"{\"v\":1}\n");
    router.engine().check_invariants().unwrap();
}
