//! The encoding of a [`ConnSnapshot`]: one version byte, then fields of number, length and value. Numbers are big-endian, except the words of the TCP state.
//!
//! Default values are omitted: mark 0, zone 0, a reply that is the inverse of the original. A decoder may skip unknown fields from 128 on; it must
//! never skip any other unknown field, because without it the connection would be a different one.
use super::{ConnSnapshot, ProtocolState};
use crate::helper::HelperState;
use crate::helper::ftp::Ftp;
use crate::nat::SeqAdj;
use crate::protocol::sctp::Sctp;
use crate::protocol::tcp::restore;
use crate::protocol::{IgnoredSyn, Tcp};
use crate::{Accounting, SctpState, Status, SynproxyState, Sysctl, Tuple, UnixTime, Zone, ZoneDirection};
use alloc::vec::Vec;
use core::net::IpAddr;

/// Why bytes are not a valid snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotDecodeError {
    /// The input ends within a field.
    #[error("truncated")]
    Truncated,
    /// Unknown version.
    #[error("format version {0}; this program reads version {VERSION}")]
    UnsupportedVersion(u8),
    /// An unknown field that must not be skipped.
    #[error("unknown field {0}")]
    UnknownField(u8),
    /// A field with an invalid value.
    #[error("field {0}: invalid value")]
    InvalidValue(u8),
    /// A mandatory field is missing.
    #[error("field {0} is missing")]
    MissingField(u8),
}

const VERSION: u8 = 1;

/// Field numbers.
mod field {
    pub(super) const ORIGINAL: u8 = 1;
    pub(super) const REPLY: u8 = 2;
    pub(super) const ZONE: u8 = 3;
    pub(super) const STATUS: u8 = 4;
    pub(super) const REMAINING_MS: u8 = 5;
    pub(super) const MARK: u8 = 6;
    pub(super) const LABELS: u8 = 7;
    pub(super) const ACCOUNTING: u8 = 8;
    pub(super) const START: u8 = 9;
    pub(super) const MASTER: u8 = 10;
    pub(super) const TCP: u8 = 11;
    pub(super) const SCTP: u8 = 12;
    pub(super) const UDP: u8 = 13;
    pub(super) const GRE: u8 = 14;
    pub(super) const FTP: u8 = 15;
    pub(super) const IGNORED_SYN: u8 = 16;
    pub(super) const LENIENT_SEGMENTS_LEFT: u8 = 17;
    pub(super) const SEQADJ: u8 = 19;
    pub(super) const SYNPROXY: u8 = 20;
    /// One timeout of its policy: 32-bit seconds, then the sysctl's name.
    pub(super) const TIMEOUT: u8 = 18;
    /// Unknown fields from here on may be skipped.
    pub(super) const OPTIONAL: u8 = 128;
    /// Without a value.
    pub(super) const MASQUERADED: u8 = 129;
    /// Without a value.
    pub(super) const TFTP: u8 = 130;
}

impl ConnSnapshot {
    /// Appends the encoded snapshot to `out`: about 110 bytes for a translated TCP connection over IPv4.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        write_tuple(out, field::ORIGINAL, &self.original);
        if self.original.invert() != Some(self.reply) {
            write_tuple(out, field::REPLY, &self.reply);
        }
        if self.zone.id != 0 {
            let [high, low] = self.zone.id.to_be_bytes();
            write_field(out, field::ZONE, &[high, low, self.zone.direction as u8]);
        }
        write_field(out, field::STATUS, &(self.status.bits() as u16).to_be_bytes());
        write_field(out, field::REMAINING_MS, &self.remaining_ms.to_be_bytes());
        if self.mark != 0 {
            write_field(out, field::MARK, &self.mark.to_be_bytes());
        }
        self.labels.iter().for_each(|labels| write_field(out, field::LABELS, labels));
        if let Some(counts) = &self.accounting {
            let mut bytes = [0; 32];
            let numbers = counts.iter().flat_map(|count| [count.packets, count.bytes]);
            bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers).for_each(|(to, number)| *to = number.to_be_bytes());
            write_field(out, field::ACCOUNTING, &bytes);
        }
        self.start.iter().for_each(|start| write_field(out, field::START, &start.0.to_be_bytes()));
        self.master.iter().for_each(|master| write_tuple(out, field::MASTER, master));
        match &self.protocol {
            ProtocolState::Tcp(tcp) => write_field(out, field::TCP, &tcp.to_bytes()),
            ProtocolState::Sctp(sctp) => {
                let [a, b] = sctp.vtags.map(u32::to_be_bytes);
                write_field(
                    out,
                    field::SCTP,
                    &[a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], sctp.state as u8, sctp.flags],
                );
            }
            ProtocolState::Udp { stream_in_ms: stream_in } => write_field(out, field::UDP, &stream_in.to_be_bytes()),
            ProtocolState::Gre { timeout_ms: timeout, stream_timeout_ms: stream } => {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&timeout.to_be_bytes());
                bytes[8..].copy_from_slice(&stream.to_be_bytes());
                write_field(out, field::GRE, &bytes);
            }
            ProtocolState::Stateless => (),
        }
        match &self.helper_state {
            Some(HelperState::Ftp(ftp)) => write_field(out, field::FTP, &ftp.to_bytes()),
            Some(HelperState::Tftp) => write_field(out, field::TFTP, &[]),
            None => (),
        }
        self.ignored_syn.iter().for_each(|syn| write_field(out, field::IGNORED_SYN, &syn.to_bytes()));
        self.seqadj.iter().for_each(|seqadj| write_field(out, field::SEQADJ, &seqadj.to_bytes()));
        self.synproxy.iter().for_each(|synproxy| write_field(out, field::SYNPROXY, &synproxy.to_bytes()));
        self.lenient_segments_left.iter().for_each(|left| write_field(out, field::LENIENT_SEGMENTS_LEFT, left));
        if self.masqueraded {
            write_field(out, field::MASQUERADED, &[]);
        }
        for (sysctl, seconds) in &self.timeouts {
            let mut value = seconds.to_be_bytes().to_vec();
            value.extend_from_slice(sysctl.name().as_bytes());
            write_field(out, field::TIMEOUT, &value);
        }
    }

    /// Decodes [`ConnSnapshot::encode`]. It checks the encoding only; [`crate::Engine::import`] checks that such a connection is possible.
    ///
    /// # Errors
    /// The input is truncated, has an unknown version or field, an invalid value, or a mandatory field is missing.
    pub fn decode(bytes: &[u8]) -> Result<ConnSnapshot, SnapshotDecodeError> {
        let (version, mut rest) = bytes.split_first().ok_or(SnapshotDecodeError::Truncated)?;
        if *version != VERSION {
            return Err(SnapshotDecodeError::UnsupportedVersion(*version));
        }
        let mut found = DecodedFields::default();
        while let Some((head, behind)) = rest.split_first_chunk::<2>() {
            let [number, length] = *head;
            let (value, behind) = behind.split_at_checked(usize::from(length)).ok_or(SnapshotDecodeError::Truncated)?;
            found.add_field(number, value)?;
            rest = behind;
        }
        if rest.is_empty() { found.finish() } else { Err(SnapshotDecodeError::Truncated) }
    }
}

/// The fields decoded so far.
#[derive(Default)]
struct DecodedFields {
    original: Option<Tuple>,
    reply: Option<Tuple>,
    zone: Zone,
    status: Option<Status>,
    remaining_ms: Option<u64>,
    mark: u32,
    labels: Option<[u8; 16]>,
    accounting: Option<[Accounting; 2]>,
    start: Option<UnixTime>,
    master: Option<Tuple>,
    protocol: Option<ProtocolState>,
    helper_state: Option<HelperState>,
    ignored_syn: Option<IgnoredSyn>,
    seqadj: Option<SeqAdj>,
    synproxy: Option<SynproxyState>,
    lenient_segments_left: Option<[u8; 2]>,
    masqueraded: bool,
    timeouts: Vec<(Sysctl, u32)>,
}

impl DecodedFields {
    /// Decodes one field. If a field is repeated, the last one counts.
    fn add_field(&mut self, number: u8, value: &[u8]) -> Result<(), SnapshotDecodeError> {
        let wrong = SnapshotDecodeError::InvalidValue(number);
        match number {
            field::ORIGINAL => self.original = Some(read_tuple(value).ok_or(wrong)?),
            field::REPLY => self.reply = Some(read_tuple(value).ok_or(wrong)?),
            field::MASTER => self.master = Some(read_tuple(value).ok_or(wrong)?),
            field::ZONE => {
                let [high, low, direction] = read_array(value).ok_or(wrong)?;
                self.zone =
                    Zone { id: u16::from_be_bytes([high, low]), direction: zone_direction(direction).ok_or(wrong)? };
            }
            field::STATUS => {
                self.status = Some(Status::from_bits_retain(u16::from_be_bytes(read_array(value).ok_or(wrong)?).into()))
            }
            field::REMAINING_MS => self.remaining_ms = Some(u64::from_be_bytes(read_array(value).ok_or(wrong)?)),
            field::MARK => self.mark = u32::from_be_bytes(read_array(value).ok_or(wrong)?),
            field::LABELS => self.labels = Some(read_array(value).ok_or(wrong)?),
            field::ACCOUNTING => {
                let [a, b, c, d] = read_u64s(value).ok_or(wrong)?;
                self.accounting = Some([Accounting { packets: a, bytes: b }, Accounting { packets: c, bytes: d }]);
            }
            field::START => self.start = Some(UnixTime(u64::from_be_bytes(read_array(value).ok_or(wrong)?))),
            field::TCP => {
                let bytes: [u8; restore::ENCODED_LEN] = read_array(value).ok_or(wrong)?;
                self.protocol = Some(ProtocolState::Tcp(Tcp::from_bytes(&bytes).ok_or(wrong)?));
            }
            field::SCTP => self.protocol = Some(ProtocolState::Sctp(read_sctp(value).ok_or(wrong)?)),
            field::UDP => {
                let [stream_in] = read_u64s(value).ok_or(wrong)?;
                self.protocol = Some(ProtocolState::Udp { stream_in_ms: stream_in });
            }
            field::GRE => {
                let [timeout, stream] = read_u64s(value).ok_or(wrong)?;
                self.protocol = Some(ProtocolState::Gre { timeout_ms: timeout, stream_timeout_ms: stream });
            }
            field::FTP => {
                self.helper_state =
                    Some(HelperState::Ftp(Ftp::from_bytes(&read_array(value).ok_or(wrong)?).ok_or(wrong)?))
            }
            field::IGNORED_SYN => self.ignored_syn = Some(IgnoredSyn::from_bytes(&read_array(value).ok_or(wrong)?)),
            field::SEQADJ => self.seqadj = Some(SeqAdj::from_bytes(&read_array(value).ok_or(wrong)?)),
            field::SYNPROXY => self.synproxy = Some(SynproxyState::from_bytes(&read_array(value).ok_or(wrong)?)),
            field::LENIENT_SEGMENTS_LEFT => self.lenient_segments_left = Some(read_array(value).ok_or(wrong)?),
            field::TIMEOUT => self.timeouts.push(read_timeout(value).ok_or(wrong)?),
            field::MASQUERADED => self.masqueraded = true,
            field::TFTP => self.helper_state = Some(HelperState::Tftp),
            field::OPTIONAL.. => (),
            _ => return Err(SnapshotDecodeError::UnknownField(number)),
        }
        Ok(())
    }

    fn finish(self) -> Result<ConnSnapshot, SnapshotDecodeError> {
        let original = self.original.ok_or(SnapshotDecodeError::MissingField(field::ORIGINAL))?;
        let reply = self.reply.or_else(|| original.invert()).ok_or(SnapshotDecodeError::MissingField(field::REPLY))?;
        Ok(ConnSnapshot {
            original,
            reply,
            zone: self.zone,
            status: self.status.ok_or(SnapshotDecodeError::MissingField(field::STATUS))?,
            remaining_ms: self.remaining_ms.ok_or(SnapshotDecodeError::MissingField(field::REMAINING_MS))?,
            mark: self.mark,
            labels: self.labels,
            accounting: self.accounting,
            start: self.start,
            master: self.master,
            protocol: self.protocol.unwrap_or(ProtocolState::Stateless),
            helper_state: self.helper_state,
            ignored_syn: self.ignored_syn,
            seqadj: self.seqadj,
            synproxy: self.synproxy,
            lenient_segments_left: self.lenient_segments_left,
            masqueraded: self.masqueraded,
            timeouts: self.timeouts,
        })
    }
}

/// Appends a field. Every value is shorter than 256 bytes.
fn write_field(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    debug_assert!(value.len() < 256, "field {number} is too long");
    out.extend_from_slice(&[number, value.len() as u8]);
    out.extend_from_slice(value);
}

/// Appends a tuple: protocol, keys, source, destination. The length determines the address family.
fn write_tuple(out: &mut Vec<u8>, number: u8, tuple: &Tuple) {
    let mut value = [0; 37];
    value[0] = tuple.protocol;
    value[1..3].copy_from_slice(&tuple.source_key.to_be_bytes());
    value[3..5].copy_from_slice(&tuple.destination_key.to_be_bytes());
    match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            value[5..9].copy_from_slice(&source.octets());
            value[9..13].copy_from_slice(&destination.octets());
            write_field(out, number, &value[..13]);
        }
        (source, destination) => {
            for (to, address) in [(5, source), (21, destination)] {
                let address = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                value[to..to + 16].copy_from_slice(&address.octets());
            }
            write_field(out, number, &value);
        }
    }
}

fn read_tuple(value: &[u8]) -> Option<Tuple> {
    let (head, addresses) = value.split_first_chunk::<5>()?;
    let [protocol, a, b, c, d] = *head;
    let (source, destination) = addresses.split_at_checked(addresses.len() / 2)?;
    let address = |bytes: &[u8]| match bytes.len() {
        4 => read_array::<4>(bytes).map(IpAddr::from),
        16 => read_array::<16>(bytes).map(IpAddr::from),
        _ => None,
    };
    Some(Tuple {
        source: address(source)?,
        destination: address(destination)?,
        protocol,
        source_key: u16::from_be_bytes([a, b]),
        destination_key: u16::from_be_bytes([c, d]),
    })
}

fn read_sctp(value: &[u8]) -> Option<Sctp> {
    let [a, b, c, d, e, f, g, h, state, flags] = read_array(value)?;
    let state = SctpState::from_number(state).filter(|state| *state != SctpState::None)?;
    Some(Sctp { vtags: [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])], state, flags })
}

fn read_timeout(value: &[u8]) -> Option<(Sysctl, u32)> {
    let (seconds, name) = value.split_first_chunk::<4>()?;
    let name = core::str::from_utf8(name).ok().filter(|name| name.contains("_timeout"))?;
    Some((Sysctl::any_by_name(name)?, u32::from_be_bytes(*seconds)))
}

const fn zone_direction(number: u8) -> Option<ZoneDirection> {
    match number {
        0 => Some(ZoneDirection::Both),
        1 => Some(ZoneDirection::Original),
        2 => Some(ZoneDirection::Reply),
        _ => None,
    }
}

fn read_array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn read_u64s<const N: usize>(value: &[u8]) -> Option<[u64; N]> {
    let (chunks, rest) = value.as_chunks::<8>();
    let chunks: &[[u8; 8]; N] = chunks.try_into().ok().filter(|_| rest.is_empty())?;
    Some(chunks.map(u64::from_be_bytes))
}
