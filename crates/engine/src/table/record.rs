//! The memory layout of a connection's record.
//!
//! ```text
//! HotRecord: one cache line, all that a packet of a known IPv4 connection reads and writes
//!   0        8      12       16       18     19      20      22       23        24                              64
//!   ├────────┼──────┼────────┼────────┼──────┼───────┼───────┼────────┼─────────┼───────────────────────────────┤
//!   │ source │ keys │deadline│ status │ kind │ state │ flags │ scales │ retrans │ ten words of the protocol     │
//!   │ destin.│      │        │        │      │       │ 2×u8  │ 2×4bit │         │ TCP: end, max end, max window,│
//!   │ (IPv4) │      │        │        │      │       │       │        │         │ max ack ×2, last end, last tag│
//!   └────────┴──────┴────────┴────────┴──────┴───────┴───────┴────────┴─────────┴───────────────────────────────┘
//! generation: 4 bytes, counts the connections of a slot
//! ColdRecord: 16 bytes, only where NAT changed a reply tuple or a connection has a mark
//!   reply addresses 2 × 4 │ reply keys 4 │ mark 4
//! Ipv6Addrs: 32 bytes, IPv6 only: original source, destination. The reply's: another 32, only where NAT changed them
//! ZoneRecord: 4 bytes, only for zones other than the default
//! ```
//! A record is valid from insertion until its slot is freed, which zeroes the hot part. Only the generation survives: it must never repeat for
//! a slot (but by wrapping), because ids are made from it.
use super::key::{PackedAddrs, TupleKey};
use crate::{Status, Zone, ZoneDirection};
use keepstate_types::ipproto;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The hot part of a connection: one cache line.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct HotRecord {
    /// Original source (upper half) and destination of an IPv4 connection; for IPv6, a hash of the addresses.
    pub(crate) addresses: u64,
    /// Original source key and destination key.
    pub(crate) keys: u32,
    /// The tick at which it expires, modulo 2³².
    pub(crate) deadline: u32,
    pub(crate) status: u16,
    pub(crate) kind: RecordKind,
    /// TCP: state (low half) and class of the last segment (high half). SCTP: state. Other protocols: their number.
    pub(crate) state: u8,
    pub(crate) flags: [u8; 2],
    pub(crate) scales: u8,
    pub(crate) retrans: u8,
    pub(crate) words: [u32; 10],
}

const _: () = assert!(size_of::<HotRecord>() == 64);

/// What few connections have: a reply tuple that is not the inverse of the original one, and a mark.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ColdRecord {
    /// Reply source and destination of an IPv4 connection.
    addresses: [u32; 2],
    pub(crate) keys: u32,
    pub(crate) mark: u32,
}

const _: () = assert!(size_of::<ColdRecord>() == 16);

/// A stored [`Zone`].
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ZoneRecord {
    zone: u16,
    direction: u16,
}

/// The addresses of one direction of an IPv6 connection: source, destination.
pub(crate) type Ipv6Addrs = [[u64; 2]; 2];

/// Protocol class and flags of a record in one byte.
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct RecordKind(u8);

impl RecordKind {
    const PROTOCOL_MASK: u8 = 0b111;
    /// An IPv6 connection: its addresses are in [`Ipv6Addrs`].
    pub(crate) const IPV6: u8 = 1 << 3;
    /// The reply tuple is the inverse of the original: NAT changed nothing.
    pub(crate) const UNTRANSLATED: u8 = 1 << 4;
    /// Its zone is not the default zone.
    pub(crate) const ZONED: u8 = 1 << 5;
    /// It has an [`Extension`](crate::extension::Extension).
    pub(crate) const HAS_EXTENSION: u8 = 1 << 6;
    /// Its packets and bytes are counted.
    pub(crate) const COUNTED: u8 = 1 << 7;
    const PROTOCOLS: [u8; 7] =
        [ipproto::TCP, ipproto::UDP, ipproto::ICMP, ipproto::ICMPV6, ipproto::SCTP, ipproto::GRE, ipproto::UDPLITE];
    const OTHER: u8 = 7;

    #[inline(always)]
    pub(crate) fn new(protocol: u8, flags: u8) -> RecordKind {
        let class = match protocol {
            ipproto::TCP => 0,
            ipproto::UDP => 1,
            _ => RecordKind::class_of_other(protocol),
        };
        RecordKind(class | flags)
    }

    #[inline(never)]
    fn class_of_other(protocol: u8) -> u8 {
        RecordKind::PROTOCOLS.iter().position(|known| *known == protocol).map_or(RecordKind::OTHER, |at| at as u8)
    }

    /// The flag that follows from the addresses.
    #[inline(always)]
    pub(crate) const fn family(original: &TupleKey) -> u8 {
        if matches!(original.addresses, PackedAddrs::V6(_)) { RecordKind::IPV6 } else { 0 }
    }

    /// Is it an untranslated IPv4 connection of `protocol` (TCP or UDP) in the default zone?
    #[inline(always)]
    pub(crate) fn is_untranslated_v4(self, protocol: u8) -> bool {
        match protocol {
            ipproto::TCP => self.class_and_layout() == RecordKind::UNTRANSLATED,
            ipproto::UDP => self.class_and_layout() == RecordKind::UNTRANSLATED | 1,
            _ => false,
        }
    }

    /// The same in the default zone.
    #[inline(always)]
    pub(crate) const fn in_default_zone(self) -> RecordKind {
        RecordKind(self.0 & !RecordKind::ZONED)
    }

    /// Is it a TCP connection over IPv4 in the default zone?
    #[inline(always)]
    pub(crate) const fn is_tcp_v4(self) -> bool {
        self.class_and_layout() & !RecordKind::UNTRANSLATED == 0
    }

    /// Is it a UDP connection over IPv4 in the default zone?
    #[inline(always)]
    pub(crate) const fn is_udp_v4(self) -> bool {
        self.class_and_layout() & !RecordKind::UNTRANSLATED == 1
    }

    /// Is it a TCP connection over IPv6 in the default zone?
    #[inline(always)]
    pub(crate) const fn is_tcp_v6(self) -> bool {
        self.class_and_layout() & !RecordKind::UNTRANSLATED == RecordKind::IPV6
    }

    /// Is it a UDP connection over IPv6 in the default zone?
    #[inline(always)]
    pub(crate) const fn is_udp_v6(self) -> bool {
        self.class_and_layout() & !RecordKind::UNTRANSLATED == RecordKind::IPV6 | 1
    }

    /// All that says where the tuples are and what they mean.
    #[inline(always)]
    const fn class_and_layout(self) -> u8 {
        self.0 & (RecordKind::PROTOCOL_MASK | RecordKind::IPV6 | RecordKind::UNTRANSLATED | RecordKind::ZONED)
    }

    /// Is it a TCP connection?
    #[inline(always)]
    pub(crate) const fn is_tcp(self) -> bool {
        self.0 & RecordKind::PROTOCOL_MASK == 0
    }

    /// Is it a UDP connection?
    #[inline(always)]
    pub(crate) const fn is_udp(self) -> bool {
        self.0 & RecordKind::PROTOCOL_MASK == 1
    }

    #[inline(always)]
    pub(crate) const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u8) {
        self.0 |= flag;
    }

    pub(crate) fn clear(&mut self, flag: u8) {
        self.0 &= !flag;
    }
}

/// The bit of TEMPLATE among the status bits: no template is ever in the table, so the bit is free for what Linux keeps beside the status (`masq_index`).
const MASQUERADED: u16 = Status::TEMPLATE.bits() as u16;

impl HotRecord {
    /// An empty record of a protocol, to be filled in.
    pub(crate) fn of_protocol(protocol: u8) -> HotRecord {
        HotRecord { kind: RecordKind::new(protocol, 0), ..HotRecord::default() }
    }

    #[inline(always)]
    pub(crate) fn status(&self) -> Status {
        Status::from_bits_retain((self.status & !MASQUERADED) as u32)
    }

    #[inline(always)]
    pub(crate) fn set_status(&mut self, status: Status) {
        self.status = status.bits() as u16 & !MASQUERADED | self.status & MASQUERADED;
    }

    /// Is its source the address that an interface had when it began?
    pub(crate) fn is_masqueraded(&self) -> bool {
        self.status & MASQUERADED != 0
    }

    pub(crate) fn set_masqueraded(&mut self, masqueraded: bool) {
        self.status = self.status & !MASQUERADED | if masqueraded { MASQUERADED } else { 0 };
    }

    #[inline(always)]
    pub(crate) fn add_status(&mut self, bits: Status) {
        self.status |= bits.bits() as u16;
    }

    #[inline(always)]
    pub(crate) fn remove_status(&mut self, bits: Status) {
        self.status &= !(bits.bits() as u16);
    }

    #[inline(always)]
    pub(crate) fn is_confirmed(&self) -> bool {
        self.status().contains(Status::CONFIRMED)
    }

    /// The protocol's number.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        match RecordKind::PROTOCOLS.get(usize::from(self.kind.0 & RecordKind::PROTOCOL_MASK)) {
            Some(known) => *known,
            None => self.state,
        }
    }

    /// Has it expired at tick `now` (modulo 2³²)?
    #[inline(always)]
    pub(crate) fn is_expired(&self, now: u32) -> bool {
        (self.deadline.wrapping_sub(now) as i32) <= 0
    }
}

impl ColdRecord {
    /// The reply addresses in one word, source in the upper half.
    pub(crate) fn packed_addresses(&self) -> u64 {
        u64::from(self.addresses[0]) << 32 | u64::from(self.addresses[1])
    }

    /// Initializes it for a new connection in this slot.
    pub(crate) fn init(&mut self, reply: &TupleKey, mark: u32) {
        let word = reply.packed_addresses();
        *self = ColdRecord { addresses: [(word >> 32) as u32, word as u32], keys: reply.keys, mark };
    }
}

impl From<Zone> for ZoneRecord {
    fn from(zone: Zone) -> ZoneRecord {
        let direction = match zone.direction {
            ZoneDirection::Both => 0,
            ZoneDirection::Original => 1,
            ZoneDirection::Reply => 2,
        };
        ZoneRecord { zone: zone.id, direction }
    }
}

impl From<ZoneRecord> for Zone {
    fn from(record: ZoneRecord) -> Zone {
        let direction = match record.direction {
            1 => ZoneDirection::Original,
            2 => ZoneDirection::Reply,
            _ => ZoneDirection::Both,
        };
        Zone { id: record.zone, direction }
    }
}

impl TupleKey {
    /// The IPv4 addresses in one word; for IPv6, whose addresses are stored elsewhere, a hash of them.
    pub(crate) fn packed_addresses(&self) -> u64 {
        match self.addresses {
            PackedAddrs::V4(both) => both,
            PackedAddrs::V6([[a, b], [c, d]]) => a ^ b.rotate_left(17) ^ c.rotate_left(31) ^ d.rotate_left(47),
        }
    }
}
