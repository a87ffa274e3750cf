//! The codec: what is encoded is decoded to the same again, whatever it is; and nothing that is read can panic.
use keepstate_linux::ctnetlink::{
    CtCounters, CtCpuStats, CtEvent, CtExpectCpuStats, CtExpectation, CtFamily, CtFlow, CtObject, CtProtoInfo,
    CtSctpInfo, CtSeqAdj, CtSynproxy, CtTcpInfo, CtTuple, EventKind, SctpState, Status, consts::message, decode,
    encode, protocol,
};
use keepstate_linux::netlink::message::{NlBody, flag};
use keepstate_linux::netlink::{NlMessages, NlRequest};
use proptest::prelude::*;
use std::net::IpAddr;

fn address(family: CtFamily) -> BoxedStrategy<Option<IpAddr>> {
    match family {
        CtFamily::V4 => any::<Option<[u8; 4]>>().prop_map(|bytes| bytes.map(IpAddr::from)).boxed(),
        CtFamily::V6 => any::<Option<[u8; 16]>>().prop_map(|bytes| bytes.map(IpAddr::from)).boxed(),
    }
}

prop_compose! {
    fn tuple(family: CtFamily)(
        source in address(family),
        destination in address(family),
        number in prop_oneof![Just(None), Just(Some(protocol::ICMP)), Just(Some(protocol::ICMPV6)), any::<u8>().prop_map(Some)],
        ports in any::<[Option<u16>; 3]>(),
        icmp in any::<[Option<u8>; 2]>(),
        zone in any::<Option<u16>>(),
    ) -> CtTuple {
        CtTuple {
            source, destination, protocol: number, source_port: ports[0], destination_port: ports[1], icmp_id: ports[2],
            icmp_type: icmp[0], icmp_code: icmp[1], zone,
        }
    }
}

fn protocol_info() -> impl Strategy<Value = CtProtoInfo> {
    let tcp = (any::<Option<u8>>(), any::<[Option<u8>; 2]>(), any::<[Option<[u8; 2]>; 2]>())
        .prop_map(|(state, scales, flags)| CtProtoInfo::Tcp(CtTcpInfo { state, wscale: scales, flags }));
    let sctp = (prop::option::of(0_u8..9), any::<[Option<u32>; 2]>()).prop_map(|(state, tags)| {
        CtProtoInfo::Sctp(CtSctpInfo { state: state.and_then(SctpState::from_number), vtags: tags })
    });
    prop_oneof![Just(CtProtoInfo::Empty), tcp, sctp]
}

prop_compose! {
    /// Everything that the kernel tells of a connection.
    fn flow_unboxed()(family in prop_oneof![Just(CtFamily::V4), Just(CtFamily::V6)])(
        family in Just(family),
        tuples in (tuple(family), tuple(family), prop::option::of(tuple(family))),
        words in any::<[Option<u32>; 5]>(),
        zone in any::<Option<u16>>(),
        protoinfo in protocol_info(),
        counts in any::<[Option<(u64, u64)>; 2]>(),
        times in any::<[Option<u64>; 3]>(),
        labels in any::<[Option<[u8; 16]>; 2]>(),
        names in prop::array::uniform2(prop::option::of("[a-z0-9_-]{0,30}")),
        corrections in any::<[Option<[u32; 3]>; 2]>(),
        synproxy in any::<Option<[u32; 3]>>(),
    ) -> CtFlow {
        let [status, timeout, mark, use_count, id] = words;
        let [helper, secctx] = names.map(|name| name.map(String::into_boxed_str));
        CtFlow {
            family: Some(family), original: tuples.0, reply: tuples.1, master: tuples.2, status: status.map(Status::from_bits_retain), timeout, mark, use_count, id, zone,
            protoinfo, counters: counts.map(|counts| counts.map(|(packets, bytes)| CtCounters { packets, bytes })),
            start: times[0], stop: times[1], event_timestamp: times[2], labels: labels[0], labels_mask: labels[1], helper, secctx,
            seqadj: corrections.map(|decoded| decoded.map(|[correction_pos, offset_before, offset_after]| CtSeqAdj { correction_pos, offset_before, offset_after })),
            synproxy: synproxy.map(|[isn, its, tsoff]| CtSynproxy { isn, its, tsoff }),
            ..CtFlow::default()
        }
    }
}

/// Boxed: without optimisation its parts by value are more than a test's stack holds.
fn flow() -> BoxedStrategy<CtFlow> {
    flow_unboxed().boxed()
}

fn encode_message(flow: &CtFlow, kind: u16, flags: u16) -> Vec<u8> {
    let mut request = NlRequest::new(kind, flags, flow.family.map_or(0, CtFamily::number));
    encode::flow(&mut request, flow);
    request.finish(7).to_vec()
}

proptest! {
    #[test]
    fn flow_round_trips(flow in flow()) {
        let bytes = encode_message(&flow, message::CT_NEW, 0);
        let message = NlMessages::new(&bytes).next().unwrap().unwrap();
        prop_assert_eq!(message.sequence, 7);
        prop_assert_eq!(decode::flow(&message).unwrap(), Some(flow));
    }

    #[test]
    fn expectation_round_trips(
        tuples in (tuple(CtFamily::V4), tuple(CtFamily::V4), tuple(CtFamily::V4), tuple(CtFamily::V4)),
        words in any::<[Option<u32>; 4]>(),
        zone in any::<Option<u16>>(),
        names in prop::array::uniform2(prop::option::of("[a-z]{1,15}")),
        direction in any::<Option<u32>>(),
    ) {
        let [helper, expectfn] = names.map(|name| name.map(String::into_boxed_str));
        let [timeout, id, flags, class] = words;
        let decoded = CtExpectation {
            family: Some(CtFamily::V4), master: tuples.0, expected: tuples.1, mask: tuples.2, timeout, id, flags, class, zone, helper, expectfn,
            nat: direction.map(|direction| (direction, tuples.3)),
        };
        let mut request = NlRequest::new(message::EXP_NEW, 0, CtFamily::V4.number());
        decoded.encode(&mut request);
        let message = NlMessages::new(request.finish(1)).next().unwrap().unwrap();
        prop_assert_eq!(CtExpectation::decode(&message).unwrap(), Some(decoded));
    }

    #[test]
    fn corrupted_messages_do_not_panic(
        flow in flow(), cut in any::<prop::sample::Index>(), changed in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = encode_message(&flow, message::CT_NEW, flag::CREATE);
        let at = changed.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        decode_as_everything(&bytes);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_as_everything(&bytes);
    }
}

/// Reads bytes as everything that they might be; ends, because each message and attribute is shorter than what is left.
fn decode_as_everything(bytes: &[u8]) {
    for message in NlMessages::new(bytes) {
        let Ok(message) = message else { return };
        let _ = decode::flow(&message);
        let _ = CtExpectation::decode(&message);
        let _ = CtEvent::decode(&message);
        let _ = CtCpuStats::decode(&message);
        let _ = CtExpectCpuStats::decode(&message);
        for attribute in message.attributes().flatten() {
            assert!(attribute.nested().count() <= bytes.len());
        }
    }
}

#[test]
fn event_type_follows_message_kind_and_flags() {
    let flow = CtFlow { family: Some(CtFamily::V4), id: Some(5), ..CtFlow::default() };
    let happening = |kind, flags| {
        let bytes = encode_message(&flow, kind, flags);
        let message = NlMessages::new(&bytes).next().unwrap().unwrap();
        CtEvent::decode(&message).unwrap().map(|event| (event.event_type, event.object))
    };
    let connection = CtObject::Connection(flow.clone());
    assert_eq!(happening(message::CT_NEW, flag::CREATE | flag::EXCLUSIVE), Some((EventKind::New, connection.clone())));
    assert_eq!(happening(message::CT_NEW, 0), Some((EventKind::Update, connection.clone())));
    assert_eq!(happening(message::CT_DELETE, 0), Some((EventKind::Destroy, connection)));
    assert_eq!(happening(message::CT_GET, 0), None);
}

#[test]
fn error_done_and_overrun_bodies_are_parsed() {
    let message = |kind: u16, number: i32| {
        let mut bytes = vec![20, 0, 0, 0];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&number.to_ne_bytes());
        bytes
    };
    let body = |bytes: &[u8]| match NlMessages::new(bytes).next() {
        Some(Ok(message)) => format!("{:?}", message.body),
        other => format!("{other:?}"),
    };
    assert_eq!(body(&message(2, -17)), "Error(17)");
    assert_eq!(body(&message(2, 0)), "Error(0)");
    assert_eq!(body(&message(3, 0)), "Done(0)");
    assert_eq!(body(&message(2, i32::MIN)), format!("Error({})", i32::MIN), "the one number without an opposite");
    assert!(body(&message(2, 0)[..18]).contains("Malformed"));
    assert!(
        matches!(NlMessages::new(&message(4, 0)).next(), Some(Ok(message)) if matches!(message.body, NlBody::Overrun))
    );
}
