//! The filter options of `conntrack` under their own names, for commands that show connections of our engine.
//!
//! [`FilterArgs`] are read from a command line (or deserialized), checked once with [`FilterArgs::check`], and then compared with each
//! entry; they never change and nothing is parsed again. Where conntrack reads a malformed value as zero (`-m x`, `-w 65536`), these
//! options reject it. The comparison itself is conntrack's own: [`crate::flow_filter`].
#[cfg(any(test, feature = "clap"))]
mod option_value;
mod value;

use crate::flow_filter::{FlowFilter, MaskedAddr};
use crate::format::engine_flow;
use keepstate_engine::{Entry, Status};
use keepstate_linux::ctnetlink::{CtFamily, CtTuple};
use std::net::IpAddr;
use value::{FamilyArg, MarkMask, StateArg};

/// The filter options; with none given, every connection matches.
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", command(next_help_heading = "Filters"))]
pub struct FilterArgs {
    /// Only this transport protocol: a name or a number
    #[cfg_attr(feature = "clap", arg(short = 'p', long = "proto", value_name = "PROTOCOL", value_parser = option_value::parse_protocol))]
    protocol: Option<u8>,
    /// Only from this source (of the original direction): an address, or a network as ADDRESS/LENGTH
    #[cfg_attr(feature = "clap", arg(short = 's', long = "src", visible_alias = "orig-src", value_name = "ADDRESS", value_parser = option_value::parse_network))]
    source: Option<MaskedAddr>,
    /// Only to this destination (of the original direction): an address, or a network as ADDRESS/LENGTH
    #[cfg_attr(feature = "clap", arg(short = 'd', long = "dst", visible_alias = "orig-dst", value_name = "ADDRESS", value_parser = option_value::parse_network))]
    destination: Option<MaskedAddr>,
    /// Mask for --src
    #[cfg_attr(feature = "clap", arg(long = "mask-src", value_name = "MASK", requires = "source"))]
    mask_source: Option<IpAddr>,
    /// Mask for --dst
    #[cfg_attr(feature = "clap", arg(long = "mask-dst", value_name = "MASK", requires = "destination"))]
    mask_destination: Option<IpAddr>,
    /// Only with this source in the reply direction
    #[cfg_attr(feature = "clap", arg(short = 'r', long = "reply-src", value_name = "ADDRESS"))]
    reply_source: Option<IpAddr>,
    /// Only with this destination in the reply direction
    #[cfg_attr(feature = "clap", arg(short = 'q', long = "reply-dst", value_name = "ADDRESS"))]
    reply_destination: Option<IpAddr>,
    /// Only from this port (needs -p with a protocol that has ports)
    #[cfg_attr(feature = "clap", arg(long = "sport", visible_alias = "orig-port-src", value_name = "PORT"))]
    source_port: Option<u16>,
    /// Only to this port
    #[cfg_attr(feature = "clap", arg(long = "dport", visible_alias = "orig-port-dst", value_name = "PORT"))]
    destination_port: Option<u16>,
    /// Only with this source port in the reply direction
    #[cfg_attr(feature = "clap", arg(long = "reply-port-src", value_name = "PORT"))]
    reply_source_port: Option<u16>,
    /// Only with this destination port in the reply direction
    #[cfg_attr(feature = "clap", arg(long = "reply-port-dst", value_name = "PORT"))]
    reply_destination_port: Option<u16>,
    /// Only in this state (needs -p tcp or -p sctp)
    #[cfg_attr(feature = "clap", arg(long, value_name = "STATE"))]
    state: Option<StateArg>,
    /// Only with all of these status bits: ASSURED, SEEN_REPLY, ... (separated by commas)
    #[cfg_attr(feature = "clap", arg(short = 'u', long, value_name = "STATUS", value_parser = value::parse_status))]
    #[serde(serialize_with = "value::serialize_status", deserialize_with = "value::deserialize_status")]
    status: Option<Status>,
    /// Only with this mark, compared under the mask
    #[cfg_attr(feature = "clap", arg(short = 'm', long, value_name = "MARK[/MASK]"))]
    mark: Option<MarkMask>,
    /// Only with this label, by number; may be given several times
    #[cfg_attr(feature = "clap", arg(short = 'l', long = "label", value_name = "LABEL", value_parser = clap::value_parser!(u8).range(0..128)))]
    labels: Vec<u8>,
    /// Only in this zone of both directions; 0 for connections without one
    #[cfg_attr(feature = "clap", arg(short = 'w', long, value_name = "ZONE"))]
    zone: Option<u16>,
    /// Only with this zone in the original direction alone
    #[cfg_attr(feature = "clap", arg(long, value_name = "ZONE"))]
    orig_zone: Option<u16>,
    /// Only with this zone in the reply direction alone
    #[cfg_attr(feature = "clap", arg(long, value_name = "ZONE"))]
    reply_zone: Option<u16>,
    /// Only this family: ipv4 or ipv6
    #[cfg_attr(feature = "clap", arg(short = 'f', long, value_name = "FAMILY"))]
    family: Option<FamilyArg>,
}

impl FilterArgs {
    /// Connections of one transport protocol, by its number.
    pub fn of_protocol(protocol: u8) -> FilterArgs {
        FilterArgs { protocol: Some(protocol), ..FilterArgs::default() }
    }

    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.check_families()?;
        self.check_ports()?;
        self.check_state()
    }

    /// Does every connection match?
    pub fn is_empty(&self) -> bool {
        *self == FilterArgs::default()
    }

    /// Does this entry match? Call [`check`](Self::check) before; an entry that lacks what is asked for does not match.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.is_empty() || self.flow_filter().matches(&engine_flow::from_entry(entry))
    }

    /// The same selection in conntrack's terms.
    pub(crate) fn flow_filter(&self) -> FlowFilter {
        let masked = |network: Option<MaskedAddr>, mask: Option<IpAddr>| {
            network.map(|network| MaskedAddr { mask: mask.or(network.mask), ..network })
        };
        let labels = self.labels.iter().fold(0, |sum: u128, label| sum | 1 << (label % 128));
        FlowFilter {
            family: self.family.map(FamilyArg::ct_family),
            original: CtTuple {
                protocol: self.protocol,
                source_port: self.source_port,
                destination_port: self.destination_port,
                zone: self.orig_zone,
                ..CtTuple::default()
            },
            reply: CtTuple {
                source: self.reply_source,
                destination: self.reply_destination,
                source_port: self.reply_source_port,
                destination_port: self.reply_destination_port,
                zone: self.reply_zone,
                ..CtTuple::default()
            },
            source: masked(self.source, self.mask_source),
            destination: masked(self.destination, self.mask_destination),
            mark: self.mark.map(|mark| [mark.value, mark.mask]),
            status: self.status.map(|status| [status, Status::empty()]),
            tcp_state: self
                .state
                .filter(|_| self.protocol == Some(value::TCP))
                .and_then(|state| state.tcp)
                .map(|state| state as u8),
            sctp_state: self.state.filter(|_| self.protocol == Some(value::SCTP)).and_then(|state| state.sctp),
            zone: self.zone,
            labels: (!self.labels.is_empty()).then(|| labels.to_le_bytes()),
            ..FlowFilter::default()
        }
    }

    fn check_families(&self) -> Result<(), String> {
        let source = self.source.map(|network| network.address);
        let destination = self.destination.map(|network| network.address);
        let addresses =
            [source, self.mask_source, destination, self.mask_destination, self.reply_source, self.reply_destination];
        let given = self.family.map(FamilyArg::ct_family);
        let mut families = given.into_iter().chain(addresses.into_iter().flatten().map(CtFamily::of));
        match families.next() {
            Some(first) if families.any(|family| family != first) => {
                Err("mismatched address family: addresses and -f must all be of IPv4, or all of IPv6".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn check_ports(&self) -> Result<(), String> {
        let ports = [
            ("--sport", self.source_port),
            ("--dport", self.destination_port),
            ("--reply-port-src", self.reply_source_port),
            ("--reply-port-dst", self.reply_destination_port),
        ];
        match ports.into_iter().find(|(_, port)| port.is_some()) {
            Some((option, _)) if !self.protocol.is_some_and(value::has_ports) => Err(format!(
                "unknown option '{option}' without a protocol that has ports: add -p tcp, udp, udplite or sctp"
            )),
            _ => Ok(()),
        }
    }

    fn check_state(&self) -> Result<(), String> {
        match (&self.state, self.protocol) {
            (None, _) => Ok(()),
            (Some(state), Some(value::TCP)) => state.check_tcp(),
            (Some(state), Some(value::SCTP)) => state.check_sctp(),
            (Some(_), _) => {
                Err("unknown option '--state' without a protocol that has states: add -p tcp or -p sctp".to_owned())
            }
        }
    }
}

#[cfg(all(test, feature = "clap"))]
mod tests;
