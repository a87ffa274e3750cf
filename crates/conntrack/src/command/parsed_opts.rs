//! The option values of a command line, before the command is known.
use super::error::{self, ConntrackError};
use super::grammar::{OptId, OptSpec};
use super::value;
use crate::flow_filter::{MaskedAddr, NatEndpoint};
use crate::format::{LabelNames, OutputFormat, OutputOptions, vtag_as_conntrack};
use keepstate_linux::ctnetlink::{CtFamily, CtLabels, CtTuple, EventKind, SctpState, Status};
use std::net::IpAddr;

/// Every option's value. It is filled option by option and read once, when the command is known.
#[derive(Default)]
pub(super) struct ParsedOpts {
    /// The options given, and their names.
    pub(super) given_opts: Vec<(OptId, &'static str)>,
    pub(super) family: Option<CtFamily>,
    pub(super) protocol: Option<u8>,
    pub(super) source: Option<MaskedAddr>,
    pub(super) destination: Option<MaskedAddr>,
    /// Ports, ids and zone of the original direction.
    pub(super) original: CtTuple,
    /// The reply direction.
    pub(super) reply: CtTuple,
    /// The expected tuple of an expectation.
    pub(super) expect_tuple: CtTuple,
    pub(super) mask: CtTuple,
    pub(super) timeout: Option<u32>,
    pub(super) mark: Option<[u32; 2]>,
    pub(super) status: Option<[Status; 2]>,
    pub(super) tcp_state: Option<u8>,
    pub(super) sctp_state: Option<SctpState>,
    pub(super) vtags: [Option<u32>; 2],
    pub(super) id: Option<u32>,
    pub(super) zone: Option<u16>,
    pub(super) source_nat: Option<NatEndpoint>,
    pub(super) destination_nat: Option<NatEndpoint>,
    pub(super) any_nat: Option<NatEndpoint>,
    pub(super) output: OutputOptions,
    /// The formats given.
    pub(super) formats: Vec<OutputFormat>,
    pub(super) label_names: Option<LabelNames>,
    pub(super) labels: Option<CtLabels>,
    pub(super) add_labels: CtLabels,
    pub(super) remove_labels: CtLabels,
    pub(super) zero: bool,
    pub(super) events: Vec<EventKind>,
    pub(super) buffer_size: Option<u32>,
    /// DCCP may be given without its options.
    pub(super) bare_dccp: bool,
}

/// The file with the names of labels.
const LABEL_FILE: &str = "/etc/xtables/connlabel.conf";

impl ParsedOpts {
    /// Was this option given?
    pub(super) fn is_given(&self, meaning: OptId) -> bool {
        self.given_opts.iter().any(|(given, _)| *given == meaning)
    }

    /// Is it DCCP, given as the kernel has it?
    pub(super) fn is_bare_dccp(&self) -> bool {
        self.bare_dccp && self.protocol == Some(33)
    }

    /// Stores one option.
    ///
    /// # Errors
    /// An invalid value.
    pub(super) fn set(&mut self, spec: &'static OptSpec, text: Option<&str>) -> Result<(), ConntrackError> {
        let name = spec.long.first().copied().unwrap_or_default();
        self.given_opts.push((spec.id, name));
        let value = text.unwrap_or_default();
        match spec.id {
            OptId::Command(_) => (),
            OptId::Source => {
                let network = self.parse_network(value)?;
                self.source = Some(MaskedAddr { mask: None, ..network });
                self.set_source_mask(network.mask);
            }
            OptId::Destination => {
                let network = self.parse_network(value)?;
                self.destination = Some(MaskedAddr { mask: None, ..network });
                self.set_destination_mask(network.mask);
            }
            OptId::ReplySource => self.reply.source = Some(self.parse_single_address(value, name)?),
            OptId::ReplyDestination => self.reply.destination = Some(self.parse_single_address(value, name)?),
            OptId::TupleSource => {
                let network = self.parse_network(value)?;
                self.expect_tuple.source = Some(network.address);
                self.set_source_mask(network.mask);
            }
            OptId::TupleDestination => {
                let network = self.parse_network(value)?;
                self.expect_tuple.destination = Some(network.address);
                self.set_destination_mask(network.mask);
            }
            OptId::MaskSource => self.mask.source = Some(self.parse_single_address(value, name)?),
            OptId::MaskDestination => self.mask.destination = Some(self.parse_single_address(value, name)?),
            OptId::Protocol => self.protocol = Some(value::parse_protocol(value)?),
            OptId::Family => self.set_family(value)?,
            OptId::SourceNat => self.source_nat = Some(self.parse_nat_endpoint(text, name)?),
            OptId::DestinationNat => self.destination_nat = Some(self.parse_nat_endpoint(text, name)?),
            OptId::AnyNat => self.any_nat = Some(self.parse_nat_endpoint(text, name)?),
            OptId::Label => {
                let labels = self.parse_labels(value)?;
                self.labels = Some(union_labels(self.labels.unwrap_or_default(), labels));
            }
            OptId::LabelAdd => self.add_labels = union_labels(self.add_labels, self.parse_labels(value)?),
            OptId::LabelDel => {
                let labels = text.map_or(Ok([0xff; 16]), |list| self.parse_labels(list))?;
                self.remove_labels = union_labels(self.remove_labels, labels);
            }
            OptId::Output => self.add_output_options(value)?,
            OptId::Deprecated => error::print_line("WARNING: ignoring -a, deprecated option."),
            _ => self.set_number(spec.id, value, name)?,
        }
        Ok(())
    }

    /// Options whose value is a number, a state, or a list of names.
    fn set_number(&mut self, meaning: OptId, value: &str, name: &str) -> Result<(), ConntrackError> {
        let option = format!("--{name}");
        let word = |value| value::parse_u32(value, u32::MAX, &option).map(Some);
        let short = |value| value::parse_u16(value, &option).map(Some);
        // GRE's keys may be hexadecimal, ports may not.
        let keys = self.protocol == Some(47);
        let port = |value| if keys { short(value) } else { value::parse_port(value, &option).map(Some) };
        let byte = |value| value::parse_u8(value, &option).map(Some);
        match meaning {
            OptId::Timeout => self.timeout = Some(value::parse_decimal(value, u32::MAX, &option)?),
            OptId::Status => {
                let [set, unset] = value::parse_status(value, error::print_line)?;
                let [known_set, known_unset] = self.status.unwrap_or_default();
                self.status = Some([known_set | set, known_unset | unset]);
            }
            OptId::Zero => self.zero = true,
            OptId::EventMask => self.events.extend(value::parse_event_mask(value)?),
            OptId::Mark => self.mark = Some(value::parse_mark(value)?),
            OptId::Id => self.id = word(value)?,
            OptId::BufferSize => self.buffer_size = word(value)?,
            OptId::Zone => self.zone = short(value)?,
            OptId::OrigZone => self.original.zone = short(value)?,
            OptId::ReplyZone => self.reply.zone = short(value)?,
            OptId::SourcePort => self.original.source_port = port(value)?,
            OptId::DestinationPort => self.original.destination_port = port(value)?,
            OptId::ReplySourcePort => self.reply.source_port = port(value)?,
            OptId::ReplyDestinationPort => self.reply.destination_port = port(value)?,
            OptId::MaskSourcePort => self.mask.source_port = port(value)?,
            OptId::MaskDestinationPort => self.mask.destination_port = port(value)?,
            OptId::TupleSourcePort => self.expect_tuple.source_port = port(value)?,
            OptId::TupleDestinationPort => self.expect_tuple.destination_port = port(value)?,
            OptId::State if self.protocol == Some(132) => self.sctp_state = Some(value::parse_sctp_state(value)?),
            OptId::State if self.protocol == Some(6) => self.tcp_state = Some(value::parse_tcp_state(value)?),
            OptId::OrigTag => self.vtags[0] = word(value)?.map(vtag_as_conntrack),
            OptId::ReplyTag => self.vtags[1] = word(value)?.map(vtag_as_conntrack),
            OptId::IcmpType => self.original.icmp_type = byte(value)?,
            OptId::IcmpCode => self.original.icmp_code = byte(value)?,
            OptId::IcmpId => self.original.icmp_id = short(value)?,
            OptId::State => value::check_dccp_value(value, "state", value::DCCP_STATES)?,
            OptId::Role => value::check_dccp_value(value, "role", &["client", "server"])?,
            // conntrack ignores SELinux's marks, too.
            _ => (),
        }
        Ok(())
    }

    /// A prefix length counts as a mask option: the last one wins.
    fn set_source_mask(&mut self, mask: Option<IpAddr>) {
        if mask.is_some() {
            self.mask.source = mask;
            self.given_opts.push((OptId::MaskSource, "mask-src"));
        }
    }

    /// As [`set_source_mask`](Self::set_source_mask).
    fn set_destination_mask(&mut self, mask: Option<IpAddr>) {
        if mask.is_some() {
            self.mask.destination = mask;
            self.given_opts.push((OptId::MaskDestination, "mask-dst"));
        }
    }

    /// All addresses of a command line must have one family.
    fn check_family(&mut self, address: IpAddr) -> Result<IpAddr, ConntrackError> {
        let family = CtFamily::of(address);
        if *self.family.get_or_insert(family) == family {
            Ok(address)
        } else {
            Err(ConntrackError::usage("mismatched address family"))
        }
    }

    fn parse_network(&mut self, text: &str) -> Result<MaskedAddr, ConntrackError> {
        let (address, mask) = value::parse_network(text)?;
        Ok(MaskedAddr { address: self.check_family(address)?, mask })
    }

    fn parse_single_address(&mut self, text: &str, name: &str) -> Result<IpAddr, ConntrackError> {
        self.check_network_family(text)?;
        let address = value::parse_single_address(text, name)?;
        self.check_family(address)
    }

    /// Of a network where an address is expected, the family is looked at first.
    fn check_network_family(&mut self, text: &str) -> Result<(), ConntrackError> {
        match value::parse_network(text) {
            Ok((address, Some(_))) => self.check_family(address).map(drop),
            _ => Ok(()),
        }
    }

    fn parse_nat_endpoint(&mut self, text: Option<&str>, name: &str) -> Result<NatEndpoint, ConntrackError> {
        let Some(text) = text else { return Ok(NatEndpoint::default()) };
        self.check_network_family(text)?;
        let (address, port) = value::parse_nat_endpoint(text, name)?;
        Ok(NatEndpoint { address: Some(self.check_family(address)?), port })
    }

    fn set_family(&mut self, name: &str) -> Result<(), ConntrackError> {
        let family = match name {
            "ipv4" => CtFamily::V4,
            "ipv6" => CtFamily::V6,
            _ => return Err(ConntrackError::usage(format!("`{}' unsupported protocol", name.escape_debug()))),
        };
        if *self.family.get_or_insert(family) == family {
            Ok(())
        } else {
            Err(ConntrackError::usage("mismatched address family"))
        }
    }

    /// Adds to what is asked of the output. Names in any case, and shortened; the first that fits is meant.
    fn add_output_options(&mut self, list: &str) -> Result<(), ConntrackError> {
        const NAMES: [&str; 9] =
            ["xml", "extended", "timestamp", "id", "ktimestamp", "labels", "userspace", "save", "json"];
        for name in list.split(',') {
            let lower = name.to_ascii_lowercase();
            let meant = NAMES.into_iter().find(|known| !lower.is_empty() && known.starts_with(&lower));
            match meant {
                Some("xml") => self.formats.push(OutputFormat::Xml),
                Some("save") => self.formats.push(OutputFormat::Save),
                Some("json") => self.formats.push(OutputFormat::Json),
                Some("extended") => self.output.extended = true,
                Some("timestamp") => self.output.timestamp = true,
                Some("id") => self.output.id = true,
                Some("ktimestamp") => self.output.ktimestamp = true,
                Some("labels") => {
                    self.output.labels = true;
                    if self.label_names.is_none() {
                        self.label_names = load_label_names()
                            .map_err(|what| error::print_message(format!("{what}; labels are shown by number")))
                            .ok();
                    }
                }
                // `userspace`: the program that caused an event is always shown.
                Some(_) => (),
                None => return Err(value::bad_parameter(name)),
            }
        }
        self.formats.dedup();
        self.output.format = self.formats.last().copied().unwrap_or_default();
        let output = self.output;
        let more = output.extended || output.id || output.timestamp || output.ktimestamp || output.labels;
        if self.formats.contains(&OutputFormat::Save) && (self.formats.len() > 1 || more) {
            return Err(ConntrackError::Failed(
                "cannot combine save output with any other output type, use -o save only".into(),
            ));
        }
        Ok(())
    }

    /// A list of labels by name.
    fn parse_labels(&mut self, list: &str) -> Result<CtLabels, ConntrackError> {
        if self.label_names.is_none() && self.output.labels {
            self.label_names = load_label_names().ok();
        }
        let names = match &self.label_names {
            Some(names) => names,
            None => self.label_names.insert(load_label_names().map_err(ConntrackError::usage)?),
        };
        let mut bits: u128 = 0;
        for name in list.split(',') {
            let bit = names.bit(name).ok_or_else(|| {
                ConntrackError::usage(format!("unknown label '{}': not in {LABEL_FILE}", name.escape_debug()))
            })?;
            bits |= 1 << (bit % 128);
        }
        Ok(bits.to_le_bytes())
    }
}

/// The labels of both.
fn union_labels(one: CtLabels, other: CtLabels) -> CtLabels {
    (u128::from_le_bytes(one) | u128::from_le_bytes(other)).to_le_bytes()
}

/// The names of labels, or why they cannot be read.
fn load_label_names() -> Result<LabelNames, String> {
    match std::fs::read_to_string(LABEL_FILE) {
        Ok(text) => Ok(LabelNames::parse(&text)),
        Err(error) => Err(format!("cannot read {LABEL_FILE}: {error}. It names one label per line, like `3 billed'")),
    }
}
