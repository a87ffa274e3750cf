//! Which connections to show: the filter options of `conntrack`, under their own names.
//!
//! A [`Filter`] is read from the command line, checked once with [`Filter::check`], and then asked of every entry; it never changes and
//! nothing is parsed again. Where conntrack takes nonsense for zero (`-m x`, `-w 65536`), this refuses it.
mod network;
mod value;

use keepstate_engine::{Entry, ProtocolInfo, Status, ZoneDirection};
use network::Network;
use std::net::IpAddr;
use value::{FamilyArg, MarkMask, StateArg};

/// The filter options; no option lets everything pass.
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", command(next_help_heading = "Filters"))]
pub struct EntryFilter {
    /// Only this transport protocol: a name or a number
    #[cfg_attr(feature = "clap", arg(short = 'p', long = "proto", value_name = "PROTOCOL", value_parser = value::parse_protocol))]
    protocol: Option<u8>,
    /// Only from this source (of the original direction): an address, or a network as ADDRESS/LENGTH
    #[cfg_attr(feature = "clap", arg(short = 's', long = "src", visible_alias = "orig-src", value_name = "ADDRESS"))]
    source: Option<Network>,
    /// Only to this destination (of the original direction): an address, or a network as ADDRESS/LENGTH
    #[cfg_attr(feature = "clap", arg(short = 'd', long = "dst", visible_alias = "orig-dst", value_name = "ADDRESS"))]
    destination: Option<Network>,
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
    status: Option<Status>,
    /// Only with this mark, compared under the mask
    #[cfg_attr(feature = "clap", arg(short = 'm', long, value_name = "MARK[/MASK]"))]
    mark: Option<MarkMask>,
    /// Only with this label, by its number; may be given several times
    #[cfg_attr(feature = "clap", arg(short = 'l', long = "label", value_name = "LABEL", value_parser = clap::value_parser!(u8).range(0..128)))]
    labels: Vec<u8>,
    /// Only in this zone (of both directions; 0 is no such zone)
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

impl EntryFilter {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.check_families()?;
        self.check_ports()?;
        self.check_state()
    }

    /// Does it let everything pass?
    pub fn is_empty(&self) -> bool {
        *self == EntryFilter::default()
    }

    /// Would this entry be shown? Call [`check`](Self::check) before; an entry that lacks what is asked for does not match.
    pub fn matches(&self, entry: &Entry) -> bool {
        let (original, reply) = (&entry.original, &entry.reply);
        eq_if_set(self.protocol, original.protocol)
            && self.family.is_none_or(|family| family == FamilyArg::of(original.source))
            && self.source.is_none_or(|network| network.masked(self.mask_source).contains(original.source))
            && self
                .destination
                .is_none_or(|network| network.masked(self.mask_destination).contains(original.destination))
            && eq_if_set(self.reply_source, reply.source)
            && eq_if_set(self.reply_destination, reply.destination)
            && eq_if_set(self.source_port, original.source_key)
            && eq_if_set(self.destination_port, original.destination_key)
            && eq_if_set(self.reply_source_port, reply.source_key)
            && eq_if_set(self.reply_destination_port, reply.destination_key)
            && self.state.is_none_or(|state| state.matches_protocol(&entry.protocol))
            && self.status.is_none_or(|status| entry.status.contains(status))
            && self.mark.is_none_or(|mark| entry.mark & mark.mask == mark.value)
            && self.labels.iter().all(|label| has_label(entry, *label))
            && self.matches_zones(entry)
    }

    /// Zones of one direction are not seen by `-w`, and the other way round, as in conntrack.
    fn matches_zones(&self, entry: &Entry) -> bool {
        let of = |direction| if entry.zone.direction == direction { entry.zone.id } else { 0 };
        eq_if_set(self.zone, of(ZoneDirection::Both))
            && eq_if_set(self.orig_zone, of(ZoneDirection::Original))
            && eq_if_set(self.reply_zone, of(ZoneDirection::Reply))
    }

    fn check_families(&self) -> Result<(), String> {
        let source = self.source.map(|network| network.address());
        let destination = self.destination.map(|network| network.address());
        let addresses =
            [source, self.mask_source, destination, self.mask_destination, self.reply_source, self.reply_destination];
        let mut families = self.family.into_iter().chain(addresses.into_iter().flatten().map(FamilyArg::of));
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

/// Nothing wanted is always fulfilled.
fn eq_if_set<T: PartialEq>(wanted: Option<T>, there: T) -> bool {
    wanted.is_none_or(|wanted| wanted == there)
}

fn has_label(entry: &Entry, label: u8) -> bool {
    entry.labels.is_some_and(|labels| u128::from_le_bytes(labels) >> (label % 128) & 1 == 1)
}

impl StateArg {
    fn matches_protocol(self, protocol: &ProtocolInfo) -> bool {
        match protocol {
            ProtocolInfo::Tcp { state, .. } => self.tcp == Some(*state),
            ProtocolInfo::Sctp { state, .. } => self.sctp == Some(*state),
            ProtocolInfo::Stateless => false,
        }
    }
}

#[cfg(all(test, feature = "clap"))]
mod tests;
