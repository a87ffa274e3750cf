//! The codec: what is encoded is decoded to the same again, whatever it is; and nothing that is read can panic.
use keepstate_linux::ctnetlink::{
    Correction, Counts, Event, Expectation, ExpectationStatistics, Family, Flow, Happening, Protocol, SctpInfo,
    SctpState, Statistics, Subject, Synproxy, TcpInfo, Tuple, decode, encode, number::message, protocol,
};
use keepstate_linux::netlink::message::{Body, flag};
use keepstate_linux::netlink::{Messages, Request};
use proptest::prelude::*;
use std::net::IpAddr;

fn address(family: Family) -> BoxedStrategy<Option<IpAddr>> {
    match family {
        Family::V4 => any::<Option<[u8; 4]>>().prop_map(|octets| octets.map(IpAddr::from)).boxed(),
        Family::V6 => any::<Option<[u8; 16]>>().prop_map(|octets| octets.map(IpAddr::from)).boxed(),
    }
}

prop_compose! {
    fn tuple(family: Family)(
        source in address(family),
        destination in address(family),
        number in prop_oneof![Just(None), Just(Some(protocol::ICMP)), Just(Some(protocol::ICMPV6)), any::<u8>().prop_map(Some)],
        ports in any::<[Option<u16>; 3]>(),
        icmp in any::<[Option<u8>; 2]>(),
        zone in any::<Option<u16>>(),
    ) -> Tuple {
        Tuple {
            source, destination, protocol: number, source_port: ports[0], destination_port: ports[1], icmp_id: ports[2],
            icmp_type: icmp[0], icmp_code: icmp[1], zone,
        }
    }
}

fn protocol_info() -> impl Strategy<Value = Protocol> {
    let tcp = (any::<Option<u8>>(), any::<[Option<u8>; 2]>(), any::<[Option<[u8; 2]>; 2]>())
        .prop_map(|(state, scales, flags)| Protocol::Tcp(TcpInfo { state, scales, flags }));
    let sctp = (prop::option::of(0_u8..9), any::<[Option<u32>; 2]>())
        .prop_map(|(state, tags)| Protocol::Sctp(SctpInfo { state: state.and_then(SctpState::numbered), tags }));
    prop_oneof![Just(Protocol::Nothing), tcp, sctp]
}

prop_compose! {
    /// Everything that the kernel tells of a connection.
    fn flow()(family in prop_oneof![Just(Family::V4), Just(Family::V6)])(
        family in Just(family),
        tuples in (tuple(family), tuple(family), prop::option::of(tuple(family))),
        words in any::<[Option<u32>; 5]>(),
        zone in any::<Option<u16>>(),
        protocol in protocol_info(),
        counts in any::<[Option<(u64, u64)>; 2]>(),
        times in any::<[Option<u64>; 3]>(),
        labels in any::<[Option<[u8; 16]>; 2]>(),
        names in prop::array::uniform2(prop::option::of("[a-z0-9_-]{0,30}")),
        corrections in any::<[Option<[u32; 3]>; 2]>(),
        synproxy in any::<Option<[u32; 3]>>(),
    ) -> Flow {
        let [status, timeout, mark, uses, id] = words;
        let [helper, context] = names.map(|name| name.map(String::into_boxed_str));
        Flow {
            family: Some(family), original: tuples.0, reply: tuples.1, master: tuples.2, status, timeout, mark, uses, id, zone,
            protocol, counts: counts.map(|counts| counts.map(|(packets, bytes)| Counts { packets, bytes })),
            start: times[0], stop: times[1], happened: times[2], labels: labels[0], labels_mask: labels[1], helper, context,
            corrections: corrections.map(|told| told.map(|[position, before, after]| Correction { position, before, after })),
            synproxy: synproxy.map(|[isn, its, tsoff]| Synproxy { isn, its, tsoff }),
            ..Flow::default()
        }
    }
}

fn octets_of(flow: &Flow, kind: u16, flags: u16) -> Vec<u8> {
    let mut request = Request::new(kind, flags, flow.family.map_or(0, Family::number));
    encode::flow(&mut request, flow);
    request.octets(7).to_vec()
}

proptest! {
    #[test]
    fn a_connection_comes_back_as_it_went(flow in flow()) {
        let octets = octets_of(&flow, message::CT_NEW, 0);
        let message = Messages::new(&octets).next().unwrap().unwrap();
        prop_assert_eq!(message.sequence, 7);
        prop_assert_eq!(decode::flow(&message).unwrap(), Some(flow));
    }

    #[test]
    fn an_expectation_comes_back_as_it_went(
        tuples in (tuple(Family::V4), tuple(Family::V4), tuple(Family::V4), tuple(Family::V4)),
        words in any::<[Option<u32>; 4]>(),
        zone in any::<Option<u16>>(),
        names in prop::array::uniform2(prop::option::of("[a-z]{1,15}")),
        direction in any::<Option<u32>>(),
    ) {
        let [helper, function] = names.map(|name| name.map(String::into_boxed_str));
        let [timeout, id, flags, class] = words;
        let told = Expectation {
            family: Some(Family::V4), master: tuples.0, expected: tuples.1, mask: tuples.2, timeout, id, flags, class, zone, helper, function,
            nat: direction.map(|direction| (direction, tuples.3)),
        };
        let mut request = Request::new(message::EXP_NEW, 0, Family::V4.number());
        told.encode(&mut request);
        let message = Messages::new(request.octets(1)).next().unwrap().unwrap();
        prop_assert_eq!(Expectation::decode(&message).unwrap(), Some(told));
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_or_read_but_never_panics(
        flow in flow(), cut in any::<prop::sample::Index>(), changed in any::<prop::sample::Index>(), octet in any::<u8>()
    ) {
        let mut octets = octets_of(&flow, message::CT_NEW, flag::CREATE);
        let at = changed.index(octets.len());
        octets[at] = octet;
        octets.truncate(cut.index(octets.len() + 1));
        read_all(&octets);
    }

    #[test]
    fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&octets);
    }
}

/// Reads octets as everything that they might be; ends, because each message and attribute is shorter than what is left.
fn read_all(octets: &[u8]) {
    for message in Messages::new(octets) {
        let Ok(message) = message else { return };
        let _ = decode::flow(&message);
        let _ = Expectation::decode(&message);
        let _ = Event::decode(&message);
        let _ = Statistics::decode(&message);
        let _ = ExpectationStatistics::decode(&message);
        for attribute in message.attributes().flatten() {
            assert!(attribute.nested().count() <= octets.len());
        }
    }
}

#[test]
fn events_say_what_happened() {
    let flow = Flow { family: Some(Family::V4), id: Some(5), ..Flow::default() };
    let happening = |kind, flags| {
        let octets = octets_of(&flow, kind, flags);
        let message = Messages::new(&octets).next().unwrap().unwrap();
        Event::decode(&message).unwrap().map(|event| (event.happening, event.subject))
    };
    let connection = Subject::Connection(flow.clone());
    assert_eq!(happening(message::CT_NEW, flag::CREATE | flag::EXCLUSIVE), Some((Happening::New, connection.clone())));
    assert_eq!(happening(message::CT_NEW, 0), Some((Happening::Update, connection.clone())));
    assert_eq!(happening(message::CT_DELETE, 0), Some((Happening::Destroy, connection)));
    assert_eq!(happening(message::CT_GET, 0), None);
}

#[test]
fn errors_and_ends_are_told_apart() {
    let message = |kind: u16, number: i32| {
        let mut octets = vec![20, 0, 0, 0];
        octets.extend_from_slice(&kind.to_ne_bytes());
        octets.extend_from_slice(&[0; 10]);
        octets.extend_from_slice(&number.to_ne_bytes());
        octets
    };
    let body = |octets: &[u8]| match Messages::new(octets).next() {
        Some(Ok(message)) => format!("{:?}", message.body),
        other => format!("{other:?}"),
    };
    assert_eq!(body(&message(2, -17)), "Error(17)");
    assert_eq!(body(&message(2, 0)), "Error(0)");
    assert_eq!(body(&message(3, 0)), "Done(0)");
    assert_eq!(body(&message(2, i32::MIN)), format!("Error({})", i32::MIN), "the one number without an opposite");
    assert!(body(&message(2, 0)[..18]).contains("Malformed"));
    assert!(matches!(Messages::new(&message(4, 0)).next(), Some(Ok(message)) if matches!(message.body, Body::Overrun)));
}
