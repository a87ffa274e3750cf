//! A description as octets: a version, then fields, each with its number, its length and its value; numbers big end first, but for TCP's own words.
//!
//! What is usual is left out: no mark, no zone, a reply that is the original turned round. A field of a number from 128 on may be passed over by who does not
//! know it; any other unknown one is not, because the connection would be another without it.
use super::{Description, Progress};
use crate::helper::Listener;
use crate::helper::ftp::Ftp;
use crate::nat::Shifts;
use crate::protocol::sctp::Sctp;
use crate::protocol::tcp::kept;
use crate::protocol::{Noted, Tcp};
use crate::{Accounting, Instant, Knob, Promise, SctpState, Status, Tuple, Zone, ZoneDirection};
use alloc::vec::Vec;
use core::net::IpAddr;

/// Why octets are no description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// They end in the middle of a field.
    #[error("it is cut short")]
    Short,
    /// A version that is not known here.
    #[error("a description of version {0}; known here is version {VERSION}")]
    Version(u8),
    /// A field that is not known here and may not be passed over.
    #[error("field {0} is not known here")]
    Unknown(u8),
    /// A field with a value that it cannot have.
    #[error("field {0} has a value that it cannot have")]
    Value(u8),
    /// A field that every connection has is missing.
    #[error("field {0} is missing")]
    Missing(u8),
}

const VERSION: u8 = 1;

/// The numbers of fields.
mod field {
    pub(super) const ORIGINAL: u8 = 1;
    pub(super) const REPLY: u8 = 2;
    pub(super) const ZONE: u8 = 3;
    pub(super) const STATUS: u8 = 4;
    pub(super) const REMAINING: u8 = 5;
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
    pub(super) const NOTED: u8 = 16;
    pub(super) const REGAINS: u8 = 17;
    pub(super) const SHIFTS: u8 = 19;
    pub(super) const PROMISE: u8 = 20;
    /// One of its own timeouts: seconds, then the knob's name.
    pub(super) const TIMEOUT: u8 = 18;
    /// From here on, who does not know a field may pass over it.
    pub(super) const OPTIONAL: u8 = 128;
}

impl Description {
    /// Appends it to `out`: some 110 octets for a translated TCP connection over IPv4.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        tuple(out, field::ORIGINAL, &self.original);
        if self.original.invert() != Some(self.reply) {
            tuple(out, field::REPLY, &self.reply);
        }
        if self.zone.id != 0 {
            let [high, low] = self.zone.id.to_be_bytes();
            put(out, field::ZONE, &[high, low, self.zone.direction as u8]);
        }
        put(out, field::STATUS, &self.status.0.to_be_bytes());
        put(out, field::REMAINING, &self.remaining.to_be_bytes());
        if self.mark != 0 {
            put(out, field::MARK, &self.mark.to_be_bytes());
        }
        self.labels.iter().for_each(|labels| put(out, field::LABELS, labels));
        if let Some(counts) = &self.accounting {
            let mut octets = [0; 32];
            let numbers = counts.iter().flat_map(|count| [count.packets, count.bytes]);
            octets.as_chunks_mut::<8>().0.iter_mut().zip(numbers).for_each(|(to, number)| *to = number.to_be_bytes());
            put(out, field::ACCOUNTING, &octets);
        }
        self.start.iter().for_each(|start| put(out, field::START, &start.0.to_be_bytes()));
        self.master.iter().for_each(|master| tuple(out, field::MASTER, master));
        match &self.protocol {
            Progress::Tcp(tcp) => put(out, field::TCP, &tcp.octets()),
            Progress::Sctp(sctp) => {
                let [a, b] = sctp.tags.map(u32::to_be_bytes);
                put(out, field::SCTP, &[a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], sctp.state as u8, sctp.flags]);
            }
            Progress::Udp { stream_in } => put(out, field::UDP, &stream_in.to_be_bytes()),
            Progress::Gre { timeout, stream } => {
                let mut octets = [0; 16];
                octets[..8].copy_from_slice(&timeout.to_be_bytes());
                octets[8..].copy_from_slice(&stream.to_be_bytes());
                put(out, field::GRE, &octets);
            }
            Progress::Stateless => (),
        }
        match &self.listener {
            Some(Listener::Ftp(ftp)) => put(out, field::FTP, &ftp.octets()),
            None => (),
        }
        self.noted.iter().for_each(|noted| put(out, field::NOTED, &noted.octets()));
        self.shifts.iter().for_each(|shifts| put(out, field::SHIFTS, &shifts.octets()));
        self.promise.iter().for_each(|promise| put(out, field::PROMISE, &promise.octets()));
        self.regains.iter().for_each(|regains| put(out, field::REGAINS, regains));
        for (knob, seconds) in &self.timeouts {
            let mut value = seconds.to_be_bytes().to_vec();
            value.extend_from_slice(knob.name().as_bytes());
            put(out, field::TIMEOUT, &value);
        }
    }

    /// Reads what [`Description::encode`] has written. That it can be read does not mean that there can be such a connection: see [`crate::Engine::import`].
    ///
    /// # Errors
    /// Why these octets are none.
    pub fn decode(octets: &[u8]) -> Result<Description, Undecodable> {
        let (version, mut rest) = octets.split_first().ok_or(Undecodable::Short)?;
        if *version != VERSION {
            return Err(Undecodable::Version(*version));
        }
        let mut found = Found::default();
        while let Some((head, behind)) = rest.split_first_chunk::<2>() {
            let [number, length] = *head;
            let (value, behind) = behind.split_at_checked(usize::from(length)).ok_or(Undecodable::Short)?;
            found.take(number, value)?;
            rest = behind;
        }
        if rest.is_empty() { found.whole() } else { Err(Undecodable::Short) }
    }
}

/// Fields found so far.
#[derive(Default)]
struct Found {
    original: Option<Tuple>,
    reply: Option<Tuple>,
    zone: Zone,
    status: Option<Status>,
    remaining: Option<u64>,
    mark: u32,
    labels: Option<[u8; 16]>,
    accounting: Option<[Accounting; 2]>,
    start: Option<Instant>,
    master: Option<Tuple>,
    protocol: Option<Progress>,
    listener: Option<Listener>,
    noted: Option<Noted>,
    shifts: Option<Shifts>,
    promise: Option<Promise>,
    regains: Option<[u8; 2]>,
    timeouts: Vec<(Knob, u32)>,
}

impl Found {
    /// One field more; the later of two counts.
    fn take(&mut self, number: u8, value: &[u8]) -> Result<(), Undecodable> {
        let wrong = Undecodable::Value(number);
        match number {
            field::ORIGINAL => self.original = Some(read_tuple(value).ok_or(wrong)?),
            field::REPLY => self.reply = Some(read_tuple(value).ok_or(wrong)?),
            field::MASTER => self.master = Some(read_tuple(value).ok_or(wrong)?),
            field::ZONE => {
                let [high, low, direction] = exact(value).ok_or(wrong)?;
                self.zone =
                    Zone { id: u16::from_be_bytes([high, low]), direction: zone_direction(direction).ok_or(wrong)? };
            }
            field::STATUS => self.status = Some(Status(u16::from_be_bytes(exact(value).ok_or(wrong)?))),
            field::REMAINING => self.remaining = Some(u64::from_be_bytes(exact(value).ok_or(wrong)?)),
            field::MARK => self.mark = u32::from_be_bytes(exact(value).ok_or(wrong)?),
            field::LABELS => self.labels = Some(exact(value).ok_or(wrong)?),
            field::ACCOUNTING => {
                let [a, b, c, d] = words(value).ok_or(wrong)?;
                self.accounting = Some([Accounting { packets: a, bytes: b }, Accounting { packets: c, bytes: d }]);
            }
            field::START => self.start = Some(Instant(u64::from_be_bytes(exact(value).ok_or(wrong)?))),
            field::TCP => {
                let octets: [u8; kept::LENGTH] = exact(value).ok_or(wrong)?;
                self.protocol = Some(Progress::Tcp(Tcp::from_octets(&octets).ok_or(wrong)?));
            }
            field::SCTP => self.protocol = Some(Progress::Sctp(read_sctp(value).ok_or(wrong)?)),
            field::UDP => {
                let [stream_in] = words(value).ok_or(wrong)?;
                self.protocol = Some(Progress::Udp { stream_in });
            }
            field::GRE => {
                let [timeout, stream] = words(value).ok_or(wrong)?;
                self.protocol = Some(Progress::Gre { timeout, stream });
            }
            field::FTP => {
                self.listener = Some(Listener::Ftp(Ftp::from_octets(&exact(value).ok_or(wrong)?).ok_or(wrong)?))
            }
            field::NOTED => self.noted = Some(Noted::from_octets(&exact(value).ok_or(wrong)?)),
            field::SHIFTS => self.shifts = Some(Shifts::from_octets(&exact(value).ok_or(wrong)?)),
            field::PROMISE => self.promise = Some(Promise::from_octets(&exact(value).ok_or(wrong)?)),
            field::REGAINS => self.regains = Some(exact(value).ok_or(wrong)?),
            field::TIMEOUT => self.timeouts.push(read_timeout(value).ok_or(wrong)?),
            field::OPTIONAL.. => (),
            _ => return Err(Undecodable::Unknown(number)),
        }
        Ok(())
    }

    fn whole(self) -> Result<Description, Undecodable> {
        let original = self.original.ok_or(Undecodable::Missing(field::ORIGINAL))?;
        let reply = self.reply.or_else(|| original.invert()).ok_or(Undecodable::Missing(field::REPLY))?;
        Ok(Description {
            original,
            reply,
            zone: self.zone,
            status: self.status.ok_or(Undecodable::Missing(field::STATUS))?,
            remaining: self.remaining.ok_or(Undecodable::Missing(field::REMAINING))?,
            mark: self.mark,
            labels: self.labels,
            accounting: self.accounting,
            start: self.start,
            master: self.master,
            protocol: self.protocol.unwrap_or(Progress::Stateless),
            listener: self.listener,
            noted: self.noted,
            shifts: self.shifts,
            promise: self.promise,
            regains: self.regains,
            timeouts: self.timeouts,
        })
    }
}

/// Values are shorter than 256 octets, all of them.
fn put(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    debug_assert!(value.len() < 256, "field {number} is too long");
    out.extend_from_slice(&[number, value.len() as u8]);
    out.extend_from_slice(value);
}

/// Protocol, keys, source, destination; the length tells the family.
fn tuple(out: &mut Vec<u8>, number: u8, tuple: &Tuple) {
    let mut value = [0; 37];
    value[0] = tuple.protocol;
    value[1..3].copy_from_slice(&tuple.source_key.to_be_bytes());
    value[3..5].copy_from_slice(&tuple.destination_key.to_be_bytes());
    match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            value[5..9].copy_from_slice(&source.octets());
            value[9..13].copy_from_slice(&destination.octets());
            put(out, number, &value[..13]);
        }
        (source, destination) => {
            for (to, address) in [(5, source), (21, destination)] {
                let address = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                value[to..to + 16].copy_from_slice(&address.octets());
            }
            put(out, number, &value);
        }
    }
}

fn read_tuple(value: &[u8]) -> Option<Tuple> {
    let (head, addresses) = value.split_first_chunk::<5>()?;
    let [protocol, a, b, c, d] = *head;
    let (source, destination) = addresses.split_at_checked(addresses.len() / 2)?;
    let address = |octets: &[u8]| match octets.len() {
        4 => exact::<4>(octets).map(IpAddr::from),
        16 => exact::<16>(octets).map(IpAddr::from),
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
    let [a, b, c, d, e, f, g, h, state, flags] = exact(value)?;
    let state = SctpState::ALL.get(usize::from(state)).copied().filter(|state| *state != SctpState::None)?;
    Some(Sctp { tags: [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])], state, flags })
}

fn read_timeout(value: &[u8]) -> Option<(Knob, u32)> {
    let (seconds, name) = value.split_first_chunk::<4>()?;
    let name = core::str::from_utf8(name).ok().filter(|name| name.contains("_timeout"))?;
    Some((Knob::named(name)?, u32::from_be_bytes(*seconds)))
}

const fn zone_direction(number: u8) -> Option<ZoneDirection> {
    match number {
        0 => Some(ZoneDirection::Both),
        1 => Some(ZoneDirection::Original),
        2 => Some(ZoneDirection::Reply),
        _ => None,
    }
}

fn exact<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn words<const N: usize>(value: &[u8]) -> Option<[u64; N]> {
    let (chunks, rest) = value.as_chunks::<8>();
    let chunks: &[[u8; 8]; N] = chunks.try_into().ok().filter(|_| rest.is_empty())?;
    Some(chunks.map(u64::from_be_bytes))
}
