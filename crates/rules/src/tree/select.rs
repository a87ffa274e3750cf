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
    /// A field of the TCP header.
    Tcp(TcpField),
    /// The length field of UDP.
    UdpLength,
    /// A field of an ICMP message (1) or an ICMPv6 message (58).
    Icmp(u8, IcmpField),
    /// Bits of a header, counted from its beginning; in packets of this transport protocol only, if one is given.
    Bits(Layer, BitRange, Option<u8>),
    /// Is there an option of this number in TCP's header?
    TcpOption(u8),
    /// The security parameter index of AH or ESP.
    Spi(u8),
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

/// Fields of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum TcpField {
    Flags,
    Sequence,
    Acknowledgement,
    Window,
    Urgent,
    /// The option that announces the greatest segment.
    MaxSegment,
}

/// Fields of ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum IcmpField {
    Type,
    Code,
    Id,
    Sequence,
    Mtu,
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
            Selector::Tcp(field) => match field {
                TcpField::Flags => Kind::TcpFlags,
                TcpField::Sequence | TcpField::Acknowledgement => Kind::Number(32),
                TcpField::Window | TcpField::Urgent | TcpField::MaxSegment => Kind::Number(16),
            },
            Selector::UdpLength => Kind::Number(16),
            Selector::Icmp(protocol, field) => match (protocol, field) {
                (1, IcmpField::Type) => Kind::IcmpType,
                (_, IcmpField::Type) => Kind::Icmp6Type,
                (1, IcmpField::Code) => Kind::IcmpCode,
                (_, IcmpField::Code) => Kind::Icmp6Code,
                (1, _) => Kind::Number(16),
                (_, IcmpField::Mtu) => Kind::Number(32),
                _ => Kind::Number(16),
            },
            Selector::Bits(_, bits, _) => Kind::Number(bits.count),
            Selector::TcpOption(_) => Kind::Presence,
            Selector::Spi(_) => Kind::Number(32),
            Selector::Meta(meta) => match meta {
                Meta::Iif | Meta::Oif => Kind::Interface,
                Meta::IifName | Meta::OifName => Kind::InterfaceName,
                Meta::Mark => Kind::Mark,
                Meta::L4Proto => Kind::Protocol,
                Meta::NfProto => Kind::Family,
                Meta::Protocol => Kind::EtherType,
                Meta::Length | Meta::Priority | Meta::Random | Meta::Cpu => Kind::Number(32),
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
