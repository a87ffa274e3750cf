//! How connections and events are written: the formats of `conntrack` 1.4.7, to the byte, and JSON.
//!
//! A [`Writer`] takes entries or events as they come, keeps one buffer for all of them, and writes whole lines. Nothing here reads a
//! table, keeps an entry, or lets a control character through (a tab after an event's time and the newline apart).
mod brief;
mod datetime;
pub mod engine_flow;
mod expectation;
mod flow_view;
mod json;
mod labels;
mod line;
mod output;
mod save;
mod stats;
mod text_buf;
mod writer;
mod xml;

#[cfg(test)]
mod golden;

pub use brief::brief_line;
pub use expectation::ExpectationWriter;
pub use flow_view::{EventInfo, EventOrigin};
pub use labels::LabelNames;
pub use output::{OutputFormat, OutputOptions};
pub(crate) use save::vtag_as_conntrack;
pub use stats::named_counters as counters;
pub use stats::write_stats;
pub use writer::FlowWriter;

use keepstate_linux::ctnetlink::{CtProtoInfo, SctpState, TcpState};

/// What all formats need to know besides the entry.
struct FormatStyle {
    output: OutputOptions,
    dates: datetime::DateFormat,
    labels: LabelNames,
}

/// What the two keys of a tuple mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Keys {
    /// Source and destination port.
    Ports,
    /// ICMP's id, type and code.
    Icmp,
    /// GRE's keys.
    Gre,
    /// They have no meaning.
    None,
}

/// The protocols `conntrack` knows; it calls all others `unknown`. (DCCP has left the kernel, so its ports are always 0 there.)
const PROTOCOLS: &[(u8, &str, L4Keys)] = &[
    (1, "icmp", L4Keys::Icmp),
    (6, "tcp", L4Keys::Ports),
    (17, "udp", L4Keys::Ports),
    (33, "dccp", L4Keys::Ports),
    (47, "gre", L4Keys::Gre),
    (58, "icmpv6", L4Keys::Icmp),
    (132, "sctp", L4Keys::Ports),
    (136, "udplite", L4Keys::Ports),
];

/// The name of a protocol's state, where it has states.
pub fn state_name(protocol: &CtProtoInfo) -> Option<&'static str> {
    match protocol {
        CtProtoInfo::Tcp(info) => {
            info.state.map(|number| TcpState::from_number(number).map_or("UNKNOWN", TcpState::name))
        }
        CtProtoInfo::Sctp(info) => info.state.map(SctpState::name),
        CtProtoInfo::Empty => None,
    }
}

/// The name `conntrack` has for a protocol, if any.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    protocol_and_keys(number).0
}

/// The name `conntrack` has for a protocol, if any, and what its keys mean.
pub fn protocol_and_keys(number: u8) -> (Option<&'static str>, L4Keys) {
    match PROTOCOLS.iter().find(|(known, ..)| *known == number) {
        Some((_, name, keys)) => (Some(name), *keys),
        None => (None, L4Keys::None),
    }
}
