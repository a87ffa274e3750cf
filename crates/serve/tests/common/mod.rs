//! A served table in a network namespace, and plain HTTP.
#![allow(dead_code, reason = "each test file uses its own part of this")]
use keepstate_linux::ctnetlink::{CtClient, CtFamily, CtFlow, CtProtoInfo, CtTcpInfo, CtTuple, Status};
use keepstate_linux::netlink::NetlinkSocket;
use keepstate_linux::netns::AnonNetns;
use keepstate_live::{FeedOptions, FleetBoard, LiveFeed, SourceSettings, TableSource};
use keepstate_serve::{Exporter, ExporterOptions, FactBoard, MetricNames};
use keepstate_test_support::report_skipped;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A server over the table of a namespace with ten TCP and twenty UDP connections.
pub struct Served {
    pub exporter: Exporter,
    pub feed: Arc<LiveFeed>,
    pub facts: Arc<FactBoard>,
    pub fleet: Arc<FleetBoard>,
    pub client: CtClient,
}

/// A connection to port 53.
pub fn connection(protocol: u8, port: u16) -> CtFlow {
    let last = if protocol == 6 { 1 } else { 9 };
    let tuple = |from: u8, to: u8, ports: [u16; 2]| CtTuple {
        source: Some(IpAddr::from([10, 0, 0, from])),
        destination: Some(IpAddr::from([10, 0, 0, to])),
        protocol: Some(protocol),
        source_port: Some(ports[0]),
        destination_port: Some(ports[1]),
        ..CtTuple::default()
    };
    let tcp = CtProtoInfo::Tcp(CtTcpInfo { state: Some(3), ..CtTcpInfo::default() });
    CtFlow {
        family: Some(CtFamily::V4),
        original: tuple(last, 2, [port, 53]),
        reply: tuple(2, last, [53, port]),
        status: Some(Status::CONFIRMED),
        timeout: Some(1000),
        protoinfo: if protocol == 6 { tcp } else { CtProtoInfo::Empty },
        ..CtFlow::default()
    }
}

impl Served {
    /// `None` where there is no root; that is reported.
    pub fn start(names: MetricNames) -> Option<Served> {
        let Ok(namespace) = AnonNetns::create() else {
            report_skipped("making a network namespace needs root");
            return None;
        };
        let Ok(Ok(mut client)) = namespace.enter(CtClient::open) else {
            report_skipped("this kernel has no ctnetlink");
            return None;
        };
        (0..10).for_each(|port| client.create(&connection(6, 1000 + port)).unwrap());
        (0..20).for_each(|port| client.create(&connection(17, 1000 + port)).unwrap());
        let source = TableSource::other(
            "a <b>namespace</b>".into(),
            move || namespace.enter(NetlinkSocket::open_netfilter)?,
            SourceSettings::default,
            || Ok(Vec::new()),
        );
        let options = FeedOptions { refresh_share: u32::MAX, ..FeedOptions::default() };
        let feed = Arc::new(LiveFeed::open(source, options).unwrap());
        let whole = |table: &keepstate_live::LiveTable| {
            table.state().is_complete && table.len() == 30 && table.latest().is_some_and(|sample| sample.entries == 30)
        };
        assert!(feed.wait_until(Duration::from_secs(60), whole));
        let facts = Arc::new(FactBoard::default());
        let fleet = Arc::new(FleetBoard::default());
        let listen = "127.0.0.1:0".parse().unwrap();
        let options = ExporterOptions { listen, hosts: vec!["allowed.example".into()], names };
        let exporter =
            Exporter::start(&options, Arc::clone(&feed), Arc::clone(&facts), Some(Arc::clone(&fleet))).unwrap();
        Some(Served { exporter, feed, facts, fleet, client })
    }
}

/// Sends a request and returns the whole answer, headers included.
pub fn request(served: &Served, verb: &str, path: &str, host: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(served.exporter.address()).unwrap();
    write!(stream, "{verb} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The body of a page that is there.
pub fn get(served: &Served, path: &str) -> String {
    let answer = request(served, "GET", path, "127.0.0.1", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
