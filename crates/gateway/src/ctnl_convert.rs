//! What the kernel's messages mean here: which connection is meant, and how one, an announced one, and counts are told.
use keepstate_conntrack::format::engine_flow;
use keepstate_engine::Counters;
use keepstate_linux::ctnetlink::consts::{stats, stats_exp};
use keepstate_linux::ctnetlink::{CtExpectation, CtFlow, CtTuple, encode};
use keepstate_linux::netlink::NlRequest;
use std::net::IpAddr;

/// As much of what is wanted as was told; who asks looks again.
pub(super) fn flow_matches(wanted: &CtFlow, flow: &CtFlow) -> bool {
    tuple_matches(&wanted.original, &flow.original) && tuple_matches(&wanted.reply, &flow.reply)
}

pub(super) fn tuple_matches(wanted: &CtTuple, there: &CtTuple) -> bool {
    fn same<T: PartialEq>(wanted: Option<T>, there: Option<T>) -> bool {
        wanted.is_none() || wanted == there
    }
    same(wanted.source, there.source)
        && same(wanted.destination, there.destination)
        && same(wanted.protocol, there.protocol)
        && same(wanted.source_port, there.source_port)
        && same(wanted.destination_port, there.destination_port)
        && same(wanted.icmp_id, there.icmp_id)
        && same(wanted.icmp_type, there.icmp_type)
        && same(wanted.icmp_code, there.icmp_code)
}

/// Appends a connection as a message.
pub(super) fn encode_flow(octets: &mut Vec<u8>, flow: &CtFlow, kind: u16, flags: u16, port: u32, sequence: u32) {
    let number = flow.family.map_or(0, keepstate_linux::ctnetlink::CtFamily::number);
    let mut told = NlRequest::notification(kind, flags, number, port);
    encode::flow(&mut told, flow);
    octets.extend_from_slice(told.finish(sequence));
}

pub(super) fn stats_cpu_attributes(counters: &Counters) -> Vec<(u16, u64)> {
    vec![
        (stats::FOUND, counters.found),
        (stats::INVALID, counters.invalid),
        (stats::INSERT, counters.insert),
        (stats::INSERT_FAILED, counters.insert_failed),
        (stats::DROP, counters.drop),
        (stats::EARLY_DROP, counters.early_drop),
        (stats::ERROR, counters.error),
        (stats::SEARCH_RESTART, counters.search_restart),
        (stats::CLASH_RESOLVE, counters.clash_resolve),
        (stats::CHAIN_TOOLONG, counters.chaintoolong),
    ]
}

pub(super) fn exp_stats_cpu_attributes(counters: &Counters) -> Vec<(u16, u64)> {
    vec![
        (stats_exp::NEW, counters.expect_new),
        (stats_exp::CREATE, counters.expect_create),
        (stats_exp::DELETE, counters.expect_delete),
    ]
}

/// An expectation of the engine's as the kernel would tell it.
pub(super) fn to_ctnl_expectation(expected: &keepstate_engine::ExpectationEntry) -> CtExpectation {
    let all = |address: IpAddr| -> IpAddr {
        if address.is_ipv6() { IpAddr::from([0xff_u8; 16]) } else { IpAddr::from([0xff_u8; 4]) }
    };
    let told = engine_flow::to_ct_tuple(&expected.tuple);
    let mask = CtTuple {
        source: Some(expected.source_mask),
        destination: Some(all(expected.tuple.destination)),
        source_port: Some(expected.source_key_mask),
        destination_port: Some(u16::MAX),
        protocol: Some(expected.tuple.protocol),
        ..CtTuple::default()
    };
    CtExpectation {
        family: told.source.map(keepstate_linux::ctnetlink::CtFamily::of),
        master: engine_flow::to_ct_tuple(&expected.master),
        expected: told,
        mask,
        timeout: Some(expected.timeout),
        helper: Some(expected.helper.name().into()),
        zone: (expected.zone != 0).then_some(expected.zone),
        flags: Some(0),
        class: Some(expected.class.into()),
        ..CtExpectation::default()
    }
}
