//! What a rule can look at in a packet, its connection, or its way.
use crate::datatype::DataType;
use keepstate_engine::Direction;

/// One thing to look at. What is not there (the port of an ICMP message) makes a match fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A field of the IPv4 header.
    Ip(IpField),
    /// A field of the IPv6 header.
    Ip6(IpField),
    /// A port of this protocol; of any that has ports without one.
    Port(Option<u8>, Endpoint),
    /// Bits at a fixed place of a header.
    Payload(PayloadField),
    /// A piece of a header that has to be looked for: an option, a chunk, an extension header.
    Exthdr(ExthdrField),
    /// What goes with the packet.
    Meta(MetaKey),
    /// Its connection.
    Ct(CtKey),
    /// Of one direction's tuple.
    CtTuple(Option<Direction>, CtTupleField),
    /// Packets or octets; both directions together without one.
    CtCounter(Option<Direction>, CtCounterKey),
    /// A look into the table of routes.
    Fib(FibExpr),
}

/// Where bits are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the field's own")]
pub enum PayloadBase {
    Network,
    Transport,
    /// What TCP or UDP carry.
    Inner,
}

/// Bits in a row, at most 128 of them, the first one the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BitRange {
    /// The first.
    pub offset: u16,
    /// How many.
    pub count: u8,
}

impl BitRange {
    /// These.
    pub const fn new(offset: u16, count: u8) -> BitRange {
        BitRange { offset, count }
    }
}

/// Bits at a fixed place of a header, and whose packets have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PayloadField {
    /// The header.
    pub base: PayloadBase,
    /// Where in it.
    pub bits: BitRange,
    /// What they mean.
    pub data_type: DataType,
    /// Packets of this transport protocol only.
    pub protocol: Option<u8>,
    /// Packets of IPv6 only, or of IPv4.
    pub v6: Option<bool>,
    /// Messages of these types only (ICMP's first octet); of any, if there is none.
    pub icmp_types: &'static [u8],
}

/// A piece of a header that has to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExthdrField {
    /// Among what.
    pub op: ExthdrOp,
    /// Its number there.
    pub number: u8,
    /// Bits counted from its beginning; without them: is it there?
    pub bits: Option<BitRange>,
    /// What they mean.
    pub data_type: DataType,
}

impl ExthdrField {
    /// The greatest segment that a SYN announces.
    pub const TCP_MSS: ExthdrField = ExthdrField {
        op: ExthdrOp::TcpOptions,
        number: 2,
        bits: Some(BitRange::new(16, 16)),
        data_type: DataType::Number(16),
    };
}

/// Where pieces are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExthdrOp {
    /// Options of TCP.
    TcpOptions,
    /// Options of IPv4.
    Ip4Options,
    /// Extension headers of IPv6.
    Ipv6ExtHeaders,
    /// Chunks of SCTP.
    SctpChunks,
}

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Endpoint {
    Source,
    Destination,
}

/// Fields that both IP headers have, each by its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum IpField {
    Source,
    Destination,
    Protocol,
    Dscp,
    Ecn,
    Length,
    Ttl,
    Checksum,
    Id,
    /// Flags and offset, as in the header.
    Fragment,
    Version,
    HeaderLength,
    FlowLabel,
}

/// What goes with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum MetaKey {
    Iif,
    Oif,
    IifName,
    OifName,
    Mark,
    L4Proto,
    NfProto,
    Protocol,
    Length,
    Priority,
    PacketType,
    Random,
    Cpu,
    /// Seconds since midnight, by the machine's clock on the wall.
    Hour,
    /// The day of the week, 0 is Sunday.
    Day,
    /// The time, in nanoseconds since 1970 by the clock on the wall.
    Time,
    /// The group of the device it came in by, or leaves by.
    Group(Endpoint),
    /// Did a tunnel of IPsec bring it?
    Ipsec,
}

/// What is known of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum CtKey {
    State,
    Direction,
    Status,
    Mark,
    Zone,
    Expiration,
    Helper,
    Label,
    Id,
}

/// Parts of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum CtTupleField {
    Source4,
    Destination4,
    Source6,
    Destination6,
    SourcePort,
    DestinationPort,
    Protocol,
    L3Proto,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum CtCounterKey {
    Packets,
    Bytes,
    /// Octets a packet.
    AvgPacketSize,
}

/// A look into the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FibExpr {
    /// Whose route.
    pub endpoint: Endpoint,
    /// Only where it comes in.
    pub iif: bool,
    /// Only where it goes out.
    pub oif: bool,
    /// What to tell of it.
    pub result: FibResult,
}

/// What to tell of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum FibResult {
    AddressType,
    Oif,
    OifName,
}

impl Selector {
    /// What its values mean.
    pub const fn data_type(self) -> DataType {
        match self {
            Selector::Ip(field) => ip_data_type(field, DataType::Address4),
            Selector::Ip6(field) => ip_data_type(field, DataType::Address6),
            Selector::Port(..) => DataType::Port,
            Selector::Payload(field) => field.data_type,
            Selector::Exthdr(piece) => piece.data_type,
            Selector::Meta(meta) => match meta {
                MetaKey::Iif | MetaKey::Oif => DataType::InterfaceIndex,
                MetaKey::IifName | MetaKey::OifName => DataType::InterfaceName,
                MetaKey::Mark => DataType::Mark,
                MetaKey::L4Proto => DataType::Protocol,
                MetaKey::NfProto => DataType::Family,
                MetaKey::Protocol => DataType::EtherType,
                MetaKey::Length | MetaKey::Random | MetaKey::Cpu => DataType::Number(32),
                MetaKey::Priority => DataType::ClassId,
                MetaKey::Hour => DataType::HourOfDay,
                MetaKey::Day => DataType::DayOfWeek,
                MetaKey::Time => DataType::Timestamp,
                MetaKey::Group(_) => DataType::DeviceGroup,
                MetaKey::Ipsec => DataType::Boolean,
                MetaKey::PacketType => DataType::PacketType,
            },
            Selector::Ct(ct) => match ct {
                CtKey::State => DataType::CtState,
                CtKey::Direction => DataType::CtDirection,
                CtKey::Status => DataType::CtStatus,
                CtKey::Mark => DataType::Mark,
                CtKey::Zone => DataType::Number(16),
                CtKey::Expiration => DataType::Duration,
                CtKey::Helper => DataType::CtHelper,
                CtKey::Label => DataType::CtLabel,
                CtKey::Id => DataType::Number(32),
            },
            Selector::CtTuple(_, field) => match field {
                CtTupleField::Source4 | CtTupleField::Destination4 => DataType::Address4,
                CtTupleField::Source6 | CtTupleField::Destination6 => DataType::Address6,
                CtTupleField::SourcePort | CtTupleField::DestinationPort => DataType::Port,
                CtTupleField::Protocol => DataType::Protocol,
                CtTupleField::L3Proto => DataType::Family,
            },
            Selector::CtCounter(..) => DataType::Number(64),
            Selector::Fib(fib) => match fib.result {
                FibResult::AddressType => DataType::AddressType,
                FibResult::Oif => DataType::InterfaceIndex,
                FibResult::OifName => DataType::InterfaceName,
            },
        }
    }
}

impl IpField {
    /// Where it stands in its header, if rules may change it by its bits alone.
    pub const fn rewritable_bits(self, v6: bool) -> Option<BitRange> {
        match (self, v6) {
            (IpField::Ecn, false) => Some(BitRange::new(14, 2)),
            (IpField::Ecn, true) => Some(BitRange::new(10, 2)),
            (IpField::Id, false) => Some(BitRange::new(32, 16)),
            (IpField::FlowLabel, true) => Some(BitRange::new(12, 20)),
            _ => None,
        }
    }
}

const fn ip_data_type(field: IpField, address: DataType) -> DataType {
    match field {
        IpField::Source | IpField::Destination => address,
        IpField::Protocol => DataType::Protocol,
        IpField::Dscp => DataType::Dscp,
        IpField::Ecn => DataType::Ecn,
        IpField::Length | IpField::Id | IpField::Fragment | IpField::Checksum => DataType::Number(16),
        IpField::Ttl => DataType::Number(8),
        IpField::Version | IpField::HeaderLength => DataType::Number(4),
        IpField::FlowLabel => DataType::Number(20),
    }
}
