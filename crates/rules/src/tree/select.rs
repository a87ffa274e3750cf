//! What a rule can look at in a packet, its connection, or its way.
use crate::kind::Kind;
use keepstate_engine::Direction;

/// One thing to look at. What is not there (the port of an ICMP message) makes a match fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A field of the IPv4 header.
    Ip(IpField),
    /// A field of the IPv6 header.
    Ip6(IpField),
    /// A port of this protocol; of any that has ports without one.
    Port(Option<u8>, End),
    /// Bits at a fixed place of a header.
    Field(Field),
    /// A piece of a header that has to be looked for: an option, a chunk, an extension header.
    Piece(Piece),
    /// What goes with the packet.
    Meta(Meta),
    /// Its connection.
    Ct(Ct),
    /// Of one direction's tuple.
    Tuple(Option<Direction>, TupleField),
    /// Packets or octets; both directions together without one.
    Count(Option<Direction>, Counted),
    /// A look into the table of routes.
    Fib(Fib),
}

/// Where bits are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the field's own")]
pub enum Layer {
    Network,
    Transport,
    /// What TCP or UDP carry.
    Inner,
}

/// Bits in a row, at most 128 of them, the first one the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BitRange {
    /// The first.
    pub from: u16,
    /// How many.
    pub count: u8,
}

impl BitRange {
    /// These.
    pub const fn new(from: u16, count: u8) -> BitRange {
        BitRange { from, count }
    }
}

/// Bits at a fixed place of a header, and whose packets have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// The header.
    pub layer: Layer,
    /// Where in it.
    pub bits: BitRange,
    /// What they mean.
    pub kind: Kind,
    /// Packets of this transport protocol only.
    pub protocol: Option<u8>,
    /// Packets of IPv6 only, or of IPv4.
    pub v6: Option<bool>,
    /// Messages of these types only (ICMP's first octet); of any, if there is none.
    pub types: &'static [u8],
}

/// A piece of a header that has to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// Among what.
    pub among: Among,
    /// Its number there.
    pub number: u8,
    /// Bits counted from its beginning; without them: is it there?
    pub bits: Option<BitRange>,
    /// What they mean.
    pub kind: Kind,
}

impl Piece {
    /// The greatest segment that a SYN announces.
    pub const MAX_SEGMENT: Piece =
        Piece { among: Among::TcpOptions, number: 2, bits: Some(BitRange::new(16, 16)), kind: Kind::Number(16) };
}

/// Where pieces are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Among {
    /// Options of TCP.
    TcpOptions,
    /// Options of IPv4.
    Ip4Options,
    /// Extension headers of IPv6.
    Extensions,
    /// Chunks of SCTP.
    Chunks,
}

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum End {
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
pub enum Meta {
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
    Group(End),
    /// Did a tunnel of IPsec bring it?
    Ipsec,
}

/// What is known of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Ct {
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
pub enum TupleField {
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
pub enum Counted {
    Packets,
    Octets,
    /// Octets a packet.
    Average,
}

/// A look into the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fib {
    /// Whose route.
    pub end: End,
    /// Only where it comes in.
    pub iif: bool,
    /// Only where it goes out.
    pub oif: bool,
    /// What to tell of it.
    pub tell: FibTell,
}

/// What to tell of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum FibTell {
    Type,
    Oif,
    OifName,
}

impl Selector {
    /// What its values mean.
    pub const fn kind(self) -> Kind {
        match self {
            Selector::Ip(field) => ip_kind(field, Kind::Address4),
            Selector::Ip6(field) => ip_kind(field, Kind::Address6),
            Selector::Port(..) => Kind::Port,
            Selector::Field(field) => field.kind,
            Selector::Piece(piece) => piece.kind,
            Selector::Meta(meta) => match meta {
                Meta::Iif | Meta::Oif => Kind::Interface,
                Meta::IifName | Meta::OifName => Kind::InterfaceName,
                Meta::Mark => Kind::Mark,
                Meta::L4Proto => Kind::Protocol,
                Meta::NfProto => Kind::Family,
                Meta::Protocol => Kind::EtherType,
                Meta::Length | Meta::Random | Meta::Cpu => Kind::Number(32),
                Meta::Priority => Kind::Priority,
                Meta::Hour => Kind::Hour,
                Meta::Day => Kind::Day,
                Meta::Time => Kind::Date,
                Meta::Group(_) => Kind::DeviceGroup,
                Meta::Ipsec => Kind::Presence,
                Meta::PacketType => Kind::PacketType,
            },
            Selector::Ct(ct) => match ct {
                Ct::State => Kind::CtState,
                Ct::Direction => Kind::CtDirection,
                Ct::Status => Kind::CtStatus,
                Ct::Mark => Kind::Mark,
                Ct::Zone => Kind::Number(16),
                Ct::Expiration => Kind::Time,
                Ct::Helper => Kind::Helper,
                Ct::Label => Kind::Label,
                Ct::Id => Kind::Number(32),
            },
            Selector::Tuple(_, field) => match field {
                TupleField::Source4 | TupleField::Destination4 => Kind::Address4,
                TupleField::Source6 | TupleField::Destination6 => Kind::Address6,
                TupleField::SourcePort | TupleField::DestinationPort => Kind::Port,
                TupleField::Protocol => Kind::Protocol,
                TupleField::L3Proto => Kind::Family,
            },
            Selector::Count(..) => Kind::Number(64),
            Selector::Fib(fib) => match fib.tell {
                FibTell::Type => Kind::AddressType,
                FibTell::Oif => Kind::Interface,
                FibTell::OifName => Kind::InterfaceName,
            },
        }
    }
}

impl IpField {
    /// Where it stands in its header, if rules may change it by its bits alone.
    pub const fn changeable(self, v6: bool) -> Option<BitRange> {
        match (self, v6) {
            (IpField::Ecn, false) => Some(BitRange::new(14, 2)),
            (IpField::Ecn, true) => Some(BitRange::new(10, 2)),
            (IpField::Id, false) => Some(BitRange::new(32, 16)),
            (IpField::FlowLabel, true) => Some(BitRange::new(12, 20)),
            _ => None,
        }
    }
}

const fn ip_kind(field: IpField, address: Kind) -> Kind {
    match field {
        IpField::Source | IpField::Destination => address,
        IpField::Protocol => Kind::Protocol,
        IpField::Dscp => Kind::Dscp,
        IpField::Ecn => Kind::Ecn,
        IpField::Length | IpField::Id | IpField::Fragment | IpField::Checksum => Kind::Number(16),
        IpField::Ttl => Kind::Number(8),
        IpField::Version | IpField::HeaderLength => Kind::Number(4),
        IpField::FlowLabel => Kind::Number(20),
    }
}
