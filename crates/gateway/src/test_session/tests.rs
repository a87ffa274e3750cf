//! Control connections: requests are answered, and clients that are slow or many delay nobody.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
use super::*;
use keepstate_engine::{AdmissionPolicy, ConnUpdate, NewConnection, Tuple, Zone};
use keepstate_linux::ctnetlink::consts::{group, message};
use keepstate_linux::ctnetlink::{CtClient, CtDumpKind, CtEventSocket, CtFlow, DumpFilter, EventKind};
use keepstate_linux::netlink::NetlinkSocket;
use keepstate_linux::netlink::message::flag;
use keepstate_linux::netlink::{NlMessages, NlRequest, stream_frame};
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant as Clock;

const CTNETLINK_REQUEST: &[u8] = b"{\"v\":2,\"speak\":\"ctnetlink\"}\n";

/// Creates TCP connections, each of another address and port.
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
        let attributes = ConnUpdate { timeout: Some(1000), ..ConnUpdate::default() };
        let reply = original.invert().unwrap();
        let new = NewConnection { original, reply, zone: Zone::default(), attributes, dst_nat: None, src_nat: None };
        router.engine_mut().create(&new, NOW).unwrap();
    }
}

/// Asks for ctnetlink and reads the first line of the answer.
fn open_ctnetlink(client: &mut UnixStream) {
    client.write_all(CTNETLINK_REQUEST).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while head.last() != Some(&b'\n') {
        client.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert_eq!(head, b"{\"v\":2}\n");
}

#[test]
fn large_dump_is_complete_and_jobs_stay_short() {
    const COUNT: u32 = 200_000;
    let mut gateway = TestGateway::new();
    fill_table(&mut gateway.router, COUNT);
    let (mut client, serving) = gateway.connect().unwrap();
    open_ctnetlink(&mut client);
    let mut dump = NlRequest::new(message::CT_GET, flag::DUMP, 0);
    stream_frame::write_frame(&mut client, dump.finish(1)).unwrap();
    // The client does not read: after what fits into the socket, nothing more is read from the table for it.
    let until = Clock::now() + Duration::from_millis(300);
    let mut jobs = 0;
    while Clock::now() < until {
        jobs += gateway.tick();
        thread::sleep(Duration::from_micros(100));
    }
    assert!((1..=4).contains(&jobs), "{jobs} jobs for a client that does not read");
    // Now it reads; the turns go on.
    let reading = thread::spawn(move || {
        let (mut tuples, mut frame) = (std::collections::HashSet::new(), Vec::new());
        loop {
            assert!(stream_frame::read_frame(&mut client, &mut frame).unwrap());
            for message in NlMessages::new(&frame) {
                let message = message.unwrap();
                match keepstate_linux::ctnetlink::decode::flow(&message).unwrap() {
                    Some(CtFlow { original, .. }) => assert!(tuples.insert(original), "dumped twice: {original:?}"),
                    None => return tuples.len(),
                }
            }
        }
    });
    let mut most = 0;
    while !reading.is_finished() {
        most = most.max(gateway.tick());
        thread::sleep(Duration::from_micros(50));
    }
    assert_eq!(reading.join().unwrap(), COUNT as usize);
    assert!(most as u32 * crate::jobs::SLOTS_PER_JOB < COUNT / 2, "{most} jobs in one turn");
    assert!(serving.join().is_ok());
}

#[test]
fn slow_subscriber_gets_enobufs_and_others_lose_nothing() {
    let mut gateway = TestGateway::new();
    let (mut slow, _serving) = gateway.connect().unwrap();
    let (mut quick, _serving_too) = gateway.connect().unwrap();
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
        gateway.tick();
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
        // The quick one keeps up: it is never more than a few thousand events behind, however busy this machine is.
        while heard_so_far.load(Ordering::Relaxed) + 8000 < step * 2000 {
            thread::sleep(Duration::from_millis(1));
        }
        fill_table(&mut gateway.router, 1000);
        gateway.tick();
        let _ = gateway.router.engine_mut().flush_range(0, u32::MAX, None, NOW);
        let begun = Clock::now();
        gateway.tick();
        assert!(begun.elapsed() < Duration::from_secs(30), "a slow subscriber delays the main loop");
        thread::sleep(Duration::from_millis(1));
    }
    let (heard, lost) = listening.join().unwrap();
    assert_eq!((heard, lost), (COUNT as usize * 2, 0));
    let (heard, lost) = count(&mut slow, &AtomicUsize::new(0));
    assert!(heard < COUNT as usize * 2 && lost >= 1, "{heard} received, {lost} overruns");
}

#[test]
fn ctnetlink_over_control_socket_works_as_kernel_table() {
    let mut gateway = TestGateway::new();
    fill_table(&mut gateway.router, 3);
    let (mut client, serving) = gateway.connect().unwrap();
    open_ctnetlink(&mut client);
    let asking = thread::spawn(move || {
        let mut table = CtClient::from_socket(NetlinkSocket::over_stream(client));
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
        gateway.tick();
        thread::sleep(Duration::from_micros(50));
    }
    asking.join().unwrap();
    while !serving.is_finished() {
        gateway.tick();
    }
}

#[test]
fn invalid_requests_get_an_error_reply() {
    let cases: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\n", "invalid request"),
        (b"{\"v\":1,\"words\":[\"count\"]}\n", "use the keepstate version that it was started with"),
        (b"{\"v\":2,\"speak\":\"grpc\"}\n", "speaks \\\"ctnetlink\\\""),
        (b"{\"v\":2,\"request\":\"cuont\"}\n", "count"),
        (b"{\"v\":2,\"request\":{\"get\":{\"sysctl\":\"nf_conntrack_mox\"}}}\n", "unknown sysctl nf_conntrack_mox"),
        (b"{\"v\":2,\"request\":{\"set\":{\"sysctl\":\"nf_conntrack_max\",\"value\":\"x\"}}}\n", "whole number"),
    ];
    for (input, expected) in cases {
        let (answer, _) = run_control_session(input).unwrap();
        let mut lines = BufReader::new(&answer[..]).lines();
        let head = lines.next().unwrap().unwrap();
        assert!(head.starts_with("{\"v\":2,\"error\":") && head.contains(expected), "{head}");
    }
    // A malformed message ends the connection, and nothing else.
    let (answer, router) = run_control_session(&[CTNETLINK_REQUEST, &[0, 0, 0, 4, 1, 2, 3, 4]].concat()).unwrap();
    assert_eq!(answer, b"{\"v\":2}\n");
    router.engine().check_invariants().unwrap();
}

/// The words of a command line are the program's affair: a request is structured, and answered in text.
#[test]
fn requests_are_answered() {
    let ask = |request: &str| {
        let (answer, router) = run_control_session(format!("{{\"v\":2,\"request\":{request}}}\n").as_bytes()).unwrap();
        (String::from_utf8(answer).unwrap(), router)
    };
    assert_eq!(ask("\"count\"").0, "{\"v\":2}\n0\n");
    assert_eq!(ask("{\"get\":{\"sysctl\":\"net.netfilter.nf_conntrack_tcp_loose\"}}").0, "{\"v\":2}\n1\n");
    let (answer, router) = ask("{\"set\":{\"sysctl\":\"net/netfilter/nf_conntrack_max\",\"value\":\"0x10\"}}");
    assert_eq!(answer, "{\"v\":2}\nnf_conntrack_max = 16\n");
    assert_eq!(router.engine().sysctls()[keepstate_engine::Sysctl::Max], 16);
    let (answer, _) = ask("{\"stats\":{\"json\":true}}");
    let stats: serde_json::Value = serde_json::from_str(answer.split_once('\n').unwrap().1).unwrap();
    assert_eq!(
        (&stats["received"], &stats["found"], &stats["reasons"]),
        (&0.into(), &0.into(), &serde_json::json!({}))
    );
    assert!(answer.starts_with("{\"v\":2}\n{\"received\":0,\"forwarded\":0,"), "in the order of the text: {answer}");
    assert!(ask("\"reload\"").0.contains("this gateway has no files to read"));
    assert!(
        ask("{\"drain\":{\"address\":\"10.0.0.1\",\"port\":80}}").0.contains("no service has a backend 10.0.0.1:80")
    );
}

/// What was chosen for a full table, and what it refused, is in the statistics; without a choice there is no word of it.
#[test]
fn stats_show_what_a_full_table_has_refused() {
    const STATS: &[u8] = b"{\"v\":2,\"request\":{\"stats\":{\"json\":false}}}\n";
    let mut gateway = TestGateway::new();
    let policy = AdmissionPolicy {
        reserves: vec!["10 for udp 53".parse().unwrap()],
        source_limits: vec!["2 connections".parse().unwrap()],
        ..AdmissionPolicy::default()
    };
    gateway.router.engine_mut().set_admission(policy, NOW).unwrap();
    for number in 0..3 {
        let [high, low] = (4000_u16 + number).to_be_bytes();
        let mut ip = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 2, 0, 9];
        let check = keepstate_wire::checksum::internet(&ip).to_be_bytes();
        ip[10..12].copy_from_slice(&check);
        // A UDP checksum of 0 is none.
        let bytes = [&ip[..], &[high, low, 0, 53, 0, 8, 0, 0]].concat();
        let packet = keepstate_wire::Packet::parse(&bytes).unwrap();
        gateway.router.engine_mut().handle(&packet, Zone::default(), NOW);
    }
    let (answer, _) = run_session_with(gateway, STATS).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let row = "reserved=10 reserved_in_use=2 sources=1 timeout_percent=100 timeouts_cut=0 limit_raised=0";
    assert!(text.contains(row) && text.contains("\nsource_connections=1\n"), "{text}");
    let (answer, _) = run_control_session(STATS).unwrap();
    assert!(!String::from_utf8(answer).unwrap().contains("reserved"));
}
