//! How connections and events are written: the formats of `conntrack` 1.4.7, to the byte, and JSON.
//!
//! A [`Writer`] takes entries or events as they come, keeps one buffer for all of them, and writes whole lines. Nothing here reads a
//! table, keeps an entry, or lets a control character through (a tab after an event's time and the newline apart).
mod brief;
mod calendar;
mod expectation;
mod json;
mod labels;
mod line;
mod output;
mod save;
mod stats;
mod text;
pub mod tracked;
mod view;
mod writer;
mod xml;

#[cfg(test)]
mod golden;

pub use brief::brief;
pub use expectation::ExpectationWriter;
pub use labels::LabelNames;
pub use output::{Kind, Output};
pub(crate) use save::as_conntrack_reads;
pub use stats::named as counters;
pub use stats::stats;
pub use view::{Cause, Occasion};
pub use writer::Writer;

use keepstate_linux::ctnetlink::{Protocol, SctpState, TcpState};

/// What all formats need to know besides the entry.
struct Style {
    output: Output,
    calendar: calendar::Calendar,
    labels: LabelNames,
}

/// What the two keys of a tuple mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
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
const PROTOCOLS: &[(u8, &str, Keys)] = &[
    (1, "icmp", Keys::Icmp),
    (6, "tcp", Keys::Ports),
    (17, "udp", Keys::Ports),
    (33, "dccp", Keys::Ports),
    (47, "gre", Keys::Gre),
    (58, "icmpv6", Keys::Icmp),
    (132, "sctp", Keys::Ports),
    (136, "udplite", Keys::Ports),
];

/// The name of a protocol's state, where it has states.
pub fn state(protocol: &Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Tcp(info) => info.state.map(|number| TcpState::numbered(number).map_or("UNKNOWN", TcpState::name)),
        Protocol::Sctp(info) => info.state.map(SctpState::name),
        Protocol::Nothing => None,
    }
}

/// The name `conntrack` has for a protocol, if any.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    protocol(number).0
}

/// The name `conntrack` has for a protocol, if any, and what its keys mean.
pub fn protocol(number: u8) -> (Option<&'static str>, Keys) {
    match PROTOCOLS.iter().find(|(known, ..)| *known == number) {
        Some((_, name, keys)) => (Some(name), *keys),
        None => (None, Keys::None),
    }
}
