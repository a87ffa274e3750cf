//! Engine values as ctnetlink messages: entries, expectations, counters; and whether an entry matches a request's tuples.
use keepstate_conntrack::format::engine_flow;
use keepstate_engine::Counters;
use keepstate_linux::ctnetlink::consts::{stats, stats_exp};
use keepstate_linux::ctnetlink::{CtExpectation, CtFlow, CtTuple, encode};
use keepstate_linux::netlink::NlRequest;
use std::net::IpAddr;

/// Do the attributes that a request gives match? The client filters again by all others.
pub(super) fn flow_matches(wanted: &CtFlow, flow: &CtFlow) -> bool {
    wanted.original.matches(&flow.original) && wanted.reply.matches(&flow.reply)
}

/// Appends an entry as a message.
pub(super) fn encode_flow(out: &mut Vec<u8>, flow: &CtFlow, kind: u16, flags: u16, portid: u32, sequence: u32) {
    let number = flow.family.map_or(0, keepstate_linux::ctnetlink::CtFamily::number);
    let mut message = NlRequest::notification(kind, flags, number, portid);
    encode::flow(&mut message, flow);
    out.extend_from_slice(message.finish(sequence));
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

/// An expectation as the kernel reports it.
pub(super) fn to_ctnl_expectation(expected: &keepstate_engine::ExpectationEntry) -> CtExpectation {
    let all = |address: IpAddr| -> IpAddr {
        if address.is_ipv6() { IpAddr::from([0xff_u8; 16]) } else { IpAddr::from([0xff_u8; 4]) }
    };
    let tuple = engine_flow::to_ct_tuple(&expected.tuple);
    let mask = CtTuple {
        source: Some(expected.source_mask),
        destination: Some(all(expected.tuple.destination)),
        source_port: Some(expected.source_key_mask),
        destination_port: Some(u16::MAX),
        protocol: Some(expected.tuple.protocol),
        ..CtTuple::default()
    };
    CtExpectation {
        family: tuple.source.map(keepstate_linux::ctnetlink::CtFamily::of),
        master: engine_flow::to_ct_tuple(&expected.master),
        expected: tuple,
        mask,
        timeout: Some(expected.timeout),
        helper: expected.helper.map(|helper| helper.name().into()),
        zone: (expected.zone != 0).then_some(expected.zone),
        flags: Some(0),
        class: Some(expected.class.into()),
        ..CtExpectation::default()
    }
}
