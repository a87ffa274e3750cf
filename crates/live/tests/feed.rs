//! A feed beside an owner that does what it is told, and beside the kernel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use keepstate_linux::ctnetlink::{CtClient, CtFamily, CtFlow, CtTuple, Status, consts, encode};
use keepstate_linux::netlink::message::{flag, push_error, push_overrun};
use keepstate_linux::netlink::stream_frame::{read_frame, write_frame};
use keepstate_linux::netlink::{NetlinkSocket, NlMessages, NlRequest, socket};
use keepstate_linux::netns::AnonNetns;
use keepstate_live::{FeedOptions, LiveFeed, SourceSettings, TableSource};
use keepstate_test_support::report_skipped;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn connection(port: u16) -> CtFlow {
    let tuple = |from: [u8; 4], to: [u8; 4], ports: [u16; 2]| CtTuple {
        source: Some(IpAddr::from(from)),
        destination: Some(IpAddr::from(to)),
        protocol: Some(17),
        source_port: Some(ports[0]),
        destination_port: Some(ports[1]),
        ..CtTuple::default()
    };
    CtFlow {
        family: Some(CtFamily::V4),
        original: tuple([10, 0, 0, 1], [10, 0, 0, 2], [port, 53]),
        reply: tuple([10, 0, 0, 2], [10, 0, 0, 1], [53, port]),
        status: Some(Status::CONFIRMED),
        timeout: Some(1000),
        ..CtFlow::default()
    }
}

/// What the owner of a table does next.
enum Act {
    Event(u16, u16),
    Overrun,
    HangUp,
}

/// An owner that speaks frames, as a gateway does: it answers each dump with the connections that it has now.
#[derive(Default)]
struct Owner {
    ports: Mutex<Vec<u16>>,
    subscribers: Mutex<Vec<Sender<Act>>>,
}

impl Owner {
    fn source(self: &Arc<Owner>) -> TableSource {
        let owner = Arc::clone(self);
        let open = move || {
            let (ours, theirs) = UnixStream::pair()?;
            let owner = Arc::clone(&owner);
            std::thread::spawn(move || owner.serve(ours));
            Ok(NetlinkSocket::over_stream(theirs))
        };
        let reasons = || Ok(vec![("table_full".to_owned(), 7)]);
        TableSource::other("owner".into(), open, SourceSettings::default, reasons)
    }

    fn act(&self, act: impl Fn() -> Act) {
        self.subscribers.lock().unwrap().retain(|subscriber| subscriber.send(act()).is_ok());
    }

    /// Answers requests until the other end hangs up; a subscriber gets what the test does.
    fn serve(&self, mut stream: UnixStream) {
        let mut frame = Vec::new();
        while read_frame(&mut stream, &mut frame).is_ok_and(|more| more) {
            let Some(Ok(request)) = NlMessages::new(&frame).next() else { return };
            let (kind, sequence) = (request.kind, request.sequence);
            let mut answer = Vec::new();
            if kind == consts::message::CT_GET {
                for port in self.ports.lock().unwrap().iter() {
                    answer.extend(message(consts::message::CT_NEW, flag::MULTI, *port, sequence));
                }
            }
            // The end of a dump, and the acknowledgement of anything else.
            push_error(&mut answer, sequence, 0);
            if write_frame(&mut stream, &answer).is_err() {
                return;
            }
            if kind == socket::JOIN_GROUPS {
                let (sender, acts) = channel();
                self.subscribers.lock().unwrap().push(sender);
                return play(stream, acts);
            }
        }
    }
}

fn play(mut stream: UnixStream, acts: Receiver<Act>) {
    for act in acts {
        let mut bytes = Vec::new();
        match act {
            Act::Event(kind, port) => bytes = message(kind, flag::CREATE | flag::EXCLUSIVE, port, 0),
            Act::Overrun => push_overrun(&mut bytes),
            Act::HangUp => return,
        }
        if write_frame(&mut stream, &bytes).is_err() {
            return;
        }
    }
}

fn message(kind: u16, flags: u16, port: u16, sequence: u32) -> Vec<u8> {
    let mut request = NlRequest::new(kind, flags, 2);
    encode::flow(&mut request, &connection(port));
    request.finish(sequence).to_vec()
}

#[test]
fn a_feed_reads_the_table_once_and_then_follows_events() {
    let owner = Arc::new(Owner { ports: Mutex::new((0..500).collect()), ..Owner::default() });
    let feed =
        LiveFeed::open(owner.source(), FeedOptions { refresh_share: u32::MAX, ..FeedOptions::default() }).unwrap();
    assert!(feed.wait_until(PATIENCE, |table| table.state().is_complete && table.len() == 500));
    owner.ports.lock().unwrap().push(900);
    owner.act(|| Act::Event(consts::message::CT_NEW, 900));
    assert!(feed.wait_until(PATIENCE, |table| table.len() == 501));
    owner.act(|| Act::Event(consts::message::CT_DELETE, 7));
    assert!(feed.wait_until(PATIENCE, |table| table.len() == 500 && table.event_counts() == [1, 0, 1]));
    assert_eq!(feed.table().state().dumps, 1, "events are enough");
    assert!(feed.wait_until(PATIENCE, |table| table.reasons.total("table_full") == Some(7)));
}

#[test]
fn lost_events_lead_to_another_dump() {
    let owner = Arc::new(Owner { ports: Mutex::new(vec![1, 2, 3]), ..Owner::default() });
    let feed =
        LiveFeed::open(owner.source(), FeedOptions { refresh_share: u32::MAX, ..FeedOptions::default() }).unwrap();
    assert!(feed.wait_until(PATIENCE, |table| table.state().is_complete && table.len() == 3));
    *owner.ports.lock().unwrap() = vec![2, 4, 5, 6];
    owner.act(|| Act::Overrun);
    assert!(
        feed.wait_until(PATIENCE, |table| table.state().overruns == 1 && table.state().is_complete && table.len() == 4)
    );
}

#[test]
fn an_owner_that_goes_away_is_followed_again_when_it_is_back() {
    let owner = Arc::new(Owner { ports: Mutex::new(vec![1]), ..Owner::default() });
    let feed = LiveFeed::open(owner.source(), FeedOptions::default()).unwrap();
    assert!(feed.wait_until(PATIENCE, |table| table.state().is_complete && table.len() == 1));
    *owner.ports.lock().unwrap() = vec![1, 2];
    owner.act(|| Act::HangUp);
    assert!(feed.wait_until(PATIENCE, |table| table.state().error.is_some()), "it is said");
    assert!(feed.wait_until(PATIENCE, |table| table.state().is_complete && table.len() == 2));
}

#[test]
fn a_feed_follows_the_kernel_in_a_network_namespace() {
    let Ok(namespace) = AnonNetns::create() else {
        return report_skipped("making a network namespace needs root");
    };
    let Ok(Ok(mut client)) = namespace.enter(CtClient::open) else {
        return report_skipped("this kernel has no ctnetlink");
    };
    client.create(&connection(1)).unwrap();
    let opener = Arc::new(namespace);
    let source = TableSource::other(
        "namespace".into(),
        move || opener.enter(NetlinkSocket::open_netfilter)?,
        SourceSettings::default,
        || Ok(Vec::new()),
    );
    let feed = LiveFeed::open(source, FeedOptions::default()).unwrap();
    assert!(feed.wait_until(PATIENCE, |table| table.state().is_complete && table.len() == 1));
    for port in 2..=200 {
        client.create(&connection(port)).unwrap();
    }
    assert!(feed.wait_until(PATIENCE, |table| table.len() == 200));
    client.delete(&connection(2)).unwrap();
    assert!(feed.wait_until(PATIENCE, |table| table.len() == 199));
    assert!(feed.wait_until(PATIENCE, |table| {
        table.latest().is_some_and(|sample| sample.entries == 199 && sample.limit > Some(0))
    }));
    // The first was there before anybody listened: its end may come without an event, and the count shows it.
    client.flush(&keepstate_linux::ctnetlink::DumpFilter::default()).unwrap();
    assert!(feed.wait_until(PATIENCE, |table| table.len() <= 1));
    assert!(feed.wait_until(PATIENCE, |table| table.is_empty()), "a dump corrects what events did not tell");
    assert!(feed.table().counters.total("insert_failed").is_some());
}
