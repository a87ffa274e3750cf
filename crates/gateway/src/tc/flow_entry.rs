//! A flow of the router's, as the programs at tc's hooks take it.
use keepstate_linux::tc::{TcFlow, TcFlowTarget};
use keepstate_router::{FlowSource, FlowTarget, KnownFlow};

/// A flow as the programs take it; `None` if they cannot.
pub(super) fn tc_flow(flow: &KnownFlow) -> Option<TcFlow> {
    let (ifindex, is_egress) = match flow.source {
        FlowSource::Interface(ifindex) => (ifindex, false),
        FlowSource::Host(ifindex) => (ifindex, true),
    };
    let target = match flow.target {
        FlowTarget::Forward { oif, next_hop } => TcFlowTarget::Forward(oif, next_hop),
        FlowTarget::Host => TcFlowTarget::Host,
        FlowTarget::LetOut => TcFlowTarget::LetOut,
    };
    Some(TcFlow {
        source: (flow.tuple.source, flow.tuple.source_key),
        destination: (flow.tuple.destination, flow.tuple.destination_key),
        new_source: (flow.translated.source, flow.translated.source_key),
        new_destination: (flow.translated.destination, flow.translated.destination_key),
        protocol: Some(flow.tuple.protocol).filter(|protocol| [6, 17].contains(protocol))?,
        is_egress,
        ifindex: u16::try_from(ifindex).ok()?,
        target,
        set_mark: flow.set_mark,
        unmarked_only: flow.unmarked_only,
        plain_tos_only: flow.plain_tos_only,
        without_fin: flow.fin_read,
    })
}
