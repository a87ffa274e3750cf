//! What the options of a command line tell, before it is known for which command.
use super::fault::{self, Fault};
use super::grammar::{Meaning, Spec};
use super::pick::{Endpoint, Network};
use super::value;
use crate::format::{Kind, LabelNames, Output, as_conntrack_reads};
use keepstate_linux::ctnetlink::{Family, Happening, Labels, SctpState, Tuple};
use std::net::IpAddr;

/// Every option's value. It is filled word by word and read once, when the command is known.
#[derive(Default)]
pub(super) struct Told {
    /// What was given, and by which name.
    pub(super) given: Vec<(Meaning, &'static str)>,
    pub(super) family: Option<Family>,
    pub(super) protocol: Option<u8>,
    pub(super) source: Option<Network>,
    pub(super) destination: Option<Network>,
    /// Ports, ids and zone of the original direction.
    pub(super) original: Tuple,
    /// The reply direction.
    pub(super) reply: Tuple,
    /// Of an expectation.
    pub(super) tuple: Tuple,
    pub(super) mask: Tuple,
    pub(super) timeout: Option<u32>,
    pub(super) mark: Option<[u32; 2]>,
    pub(super) status: Option<[u32; 2]>,
    pub(super) tcp_state: Option<u8>,
    pub(super) sctp_state: Option<SctpState>,
    pub(super) tags: [Option<u32>; 2],
    pub(super) id: Option<u32>,
    pub(super) zone: Option<u16>,
    pub(super) source_nat: Option<Endpoint>,
    pub(super) destination_nat: Option<Endpoint>,
    pub(super) any_nat: Option<Endpoint>,
    pub(super) output: Output,
    /// Formats that were named.
    pub(super) kinds: Vec<Kind>,
    pub(super) names: Option<LabelNames>,
    pub(super) labels: Option<Labels>,
    pub(super) add: Labels,
    pub(super) remove: Labels,
    pub(super) zero: bool,
    pub(super) events: Vec<Happening>,
    pub(super) buffer: Option<u32>,
}

/// Where labels have their names.
const LABEL_FILE: &str = "/etc/xtables/connlabel.conf";

impl Told {
    /// Was this option given?
    pub(super) fn has(&self, meaning: Meaning) -> bool {
        self.given.iter().any(|(given, _)| *given == meaning)
    }

    /// Takes in one option.
    ///
    /// # Errors
    /// A value that it does not take.
    pub(super) fn take(&mut self, spec: &'static Spec, text: Option<&str>) -> Result<(), Fault> {
        let name = spec.long.first().copied().unwrap_or_default();
        self.given.push((spec.meaning, name));
        let value = text.unwrap_or_default();
        match spec.meaning {
            Meaning::Do(_) => (),
            Meaning::Source => {
                let network = self.network(value)?;
                self.source = Some(Network { mask: None, ..network });
                self.mask_source(network.mask);
            }
            Meaning::Destination => {
                let network = self.network(value)?;
                self.destination = Some(Network { mask: None, ..network });
                self.mask_destination(network.mask);
            }
            Meaning::ReplySource => self.reply.source = Some(self.single(value, name)?),
            Meaning::ReplyDestination => self.reply.destination = Some(self.single(value, name)?),
            Meaning::TupleSource => {
                let network = self.network(value)?;
                self.tuple.source = Some(network.address);
                self.mask_source(network.mask);
            }
            Meaning::TupleDestination => {
                let network = self.network(value)?;
                self.tuple.destination = Some(network.address);
                self.mask_destination(network.mask);
            }
            Meaning::MaskSource => self.mask.source = Some(self.single(value, name)?),
            Meaning::MaskDestination => self.mask.destination = Some(self.single(value, name)?),
            Meaning::Protocol => self.protocol = Some(value::protocol(value)?),
            Meaning::Family => self.family(value)?,
            Meaning::SourceNat => self.source_nat = Some(self.endpoint(text, name)?),
            Meaning::DestinationNat => self.destination_nat = Some(self.endpoint(text, name)?),
            Meaning::AnyNat => self.any_nat = Some(self.endpoint(text, name)?),
            Meaning::Label => {
                let labels = self.labels(value)?;
                self.labels = Some(both(self.labels.unwrap_or_default(), labels));
            }
            Meaning::LabelAdd => self.add = both(self.add, self.labels(value)?),
            Meaning::LabelDel => {
                let labels = text.map_or(Ok([0xff; 16]), |list| self.labels(list))?;
                self.remove = both(self.remove, labels);
            }
            Meaning::Output => self.output(value)?,
            Meaning::Deprecated => fault::line("WARNING: ignoring -a, deprecated option."),
            _ => self.take_number(spec.meaning, value, name)?,
        }
        Ok(())
    }

    /// Options whose value is a number, a state, or a list of words.
    fn take_number(&mut self, meaning: Meaning, value: &str, name: &str) -> Result<(), Fault> {
        let option = format!("--{name}");
        let word = |value| value::number(value, u32::MAX, &option).map(Some);
        let short = |value| value::number16(value, &option).map(Some);
        // GRE's keys may be in hexadecimal, ports may not.
        let keys = self.protocol == Some(47);
        let port = |value| if keys { short(value) } else { value::port(value, &option).map(Some) };
        let octet = |value| value::number8(value, &option).map(Some);
        match meaning {
            Meaning::Timeout => self.timeout = Some(value::decimal(value, u32::MAX, &option)?),
            Meaning::Status => {
                let [set, unset] = value::status_bits(value, fault::line)?;
                let [known_set, known_unset] = self.status.unwrap_or_default();
                self.status = Some([known_set | set, known_unset | unset]);
            }
            Meaning::Zero => self.zero = true,
            Meaning::EventMask => self.events.extend(value::events(value)?),
            Meaning::Mark => self.mark = Some(value::mark(value)?),
            Meaning::Id => self.id = word(value)?,
            Meaning::BufferSize => self.buffer = word(value)?,
            Meaning::Zone => self.zone = short(value)?,
            Meaning::OrigZone => self.original.zone = short(value)?,
            Meaning::ReplyZone => self.reply.zone = short(value)?,
            Meaning::SourcePort => self.original.source_port = port(value)?,
            Meaning::DestinationPort => self.original.destination_port = port(value)?,
            Meaning::ReplySourcePort => self.reply.source_port = port(value)?,
            Meaning::ReplyDestinationPort => self.reply.destination_port = port(value)?,
            Meaning::MaskSourcePort => self.mask.source_port = port(value)?,
            Meaning::MaskDestinationPort => self.mask.destination_port = port(value)?,
            Meaning::TupleSourcePort => self.tuple.source_port = port(value)?,
            Meaning::TupleDestinationPort => self.tuple.destination_port = port(value)?,
            Meaning::State if self.protocol == Some(132) => self.sctp_state = Some(value::sctp_state(value)?),
            Meaning::State if self.protocol == Some(6) => self.tcp_state = Some(value::tcp_state(value)?),
            Meaning::OrigTag => self.tags[0] = word(value)?.map(as_conntrack_reads),
            Meaning::ReplyTag => self.tags[1] = word(value)?.map(as_conntrack_reads),
            Meaning::IcmpType => self.original.icmp_type = octet(value)?,
            Meaning::IcmpCode => self.original.icmp_code = octet(value)?,
            Meaning::IcmpId => self.original.icmp_id = short(value)?,
            Meaning::State => value::dccp(value, "state", value::DCCP_STATES)?,
            Meaning::Role => value::dccp(value, "role", &["client", "server"])?,
            // SELinux's marks are not looked at by conntrack either.
            _ => (),
        }
        Ok(())
    }

    /// A length behind an address is a mask given: the one given last counts.
    fn mask_source(&mut self, mask: Option<IpAddr>) {
        if mask.is_some() {
            self.mask.source = mask;
            self.given.push((Meaning::MaskSource, "mask-src"));
        }
    }

    /// As [`mask_source`](Self::mask_source).
    fn mask_destination(&mut self, mask: Option<IpAddr>) {
        if mask.is_some() {
            self.mask.destination = mask;
            self.given.push((Meaning::MaskDestination, "mask-dst"));
        }
    }

    /// Options whose address must fit the family of those before.
    fn of_family(&mut self, address: IpAddr) -> Result<IpAddr, Fault> {
        let family = Family::of(address);
        if *self.family.get_or_insert(family) == family {
            Ok(address)
        } else {
            Err(Fault::usage("mismatched address family"))
        }
    }

    fn network(&mut self, text: &str) -> Result<Network, Fault> {
        let (address, mask) = value::network(text)?;
        Ok(Network { address: self.of_family(address)?, mask })
    }

    fn single(&mut self, text: &str, name: &str) -> Result<IpAddr, Fault> {
        let address = value::single(text, name)?;
        self.of_family(address)
    }

    fn endpoint(&mut self, text: Option<&str>, name: &str) -> Result<Endpoint, Fault> {
        let Some(text) = text else { return Ok(Endpoint::default()) };
        let (address, port) = value::endpoint(text, name)?;
        Ok(Endpoint { address: Some(self.of_family(address)?), port })
    }

    fn family(&mut self, name: &str) -> Result<(), Fault> {
        let family = match name {
            "ipv4" => Family::V4,
            "ipv6" => Family::V6,
            _ => return Err(Fault::usage(format!("`{}' unsupported protocol", name.escape_debug()))),
        };
        if *self.family.get_or_insert(family) == family {
            Ok(())
        } else {
            Err(Fault::usage("mismatched address family"))
        }
    }

    /// Adds to what is asked of the output. Names in any case, and shortened; the first that fits is meant.
    fn output(&mut self, list: &str) -> Result<(), Fault> {
        const NAMES: [&str; 9] =
            ["xml", "extended", "timestamp", "id", "ktimestamp", "labels", "userspace", "save", "json"];
        for name in list.split(',') {
            let lower = name.to_ascii_lowercase();
            let meant = NAMES.into_iter().find(|known| !lower.is_empty() && known.starts_with(&lower));
            match meant {
                Some("xml") => self.kinds.push(Kind::Xml),
                Some("save") => self.kinds.push(Kind::Save),
                Some("json") => self.kinds.push(Kind::Json),
                Some("extended") => self.output.extended = true,
                Some("timestamp") => self.output.timestamp = true,
                Some("id") => self.output.id = true,
                Some("ktimestamp") => self.output.ktimestamp = true,
                Some("labels") => {
                    self.output.labels = true;
                    if self.names.is_none() {
                        self.names = label_names()
                            .map_err(|what| fault::say(format!("{what}; labels are shown by number")))
                            .ok();
                    }
                }
                // The program that caused an event is always shown.
                Some(_) => (),
                None => return Err(value::bad(name)),
            }
        }
        self.kinds.dedup();
        self.output.kind = self.kinds.last().copied().unwrap_or_default();
        Ok(())
    }

    /// A list of labels, by their names; by their numbers where no file names them.
    fn labels(&mut self, list: &str) -> Result<Labels, Fault> {
        if self.names.is_none() && self.output.labels {
            self.names = label_names().ok();
        }
        let names = match &self.names {
            Some(names) => names,
            None => self.names.insert(label_names().map_err(Fault::usage)?),
        };
        let mut bits: u128 = 0;
        for name in list.split(',') {
            let bit = names.bit(name).ok_or_else(|| {
                Fault::usage(format!("unknown label '{}': {LABEL_FILE} does not name it", name.escape_debug()))
            })?;
            bits |= 1 << (bit % 128);
        }
        Ok(bits.to_le_bytes())
    }
}

/// The labels of either.
fn both(one: Labels, other: Labels) -> Labels {
    (u128::from_le_bytes(one) | u128::from_le_bytes(other)).to_le_bytes()
}

/// The names of labels, or why there are none.
fn label_names() -> Result<LabelNames, String> {
    match std::fs::read_to_string(LABEL_FILE) {
        Ok(text) => Ok(LabelNames::parse(&text)),
        Err(error) => Err(format!(
            "{LABEL_FILE} cannot be read: {error}. It gives labels their names, a line each, like `3 billed'"
        )),
    }
}
