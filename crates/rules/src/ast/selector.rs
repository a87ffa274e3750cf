//! Selectors: what a rule can read from a packet, its connection, or its metadata.
use super::header_field::{BitRange, Endpoint, IpField, PayloadField};
use super::tunnel::{TunnelField, TunnelPart};
use crate::datatype::DataType;
use keepstate_engine::Direction;

/// One selector. Where a packet does not have it (the port of an ICMP message), the match fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Selector {
    /// A field of the IPv4 header.
    Ip(IpField),
    /// A field of the IPv6 header.
    Ip6(IpField),
    /// A port of this protocol; of any protocol with ports if `None`.
    Port(Option<u8>, Endpoint),
    /// Bits at a fixed offset of a header.
    Payload(PayloadField),
    /// An option, a chunk or an extension header, which has to be searched for.
    Exthdr(ExthdrField),
    /// Packet metadata.
    Meta(MetaKey),
    /// The packet's connection.
    Ct(CtKey),
    /// A field of the connection's tuple.
    CtTuple(Option<Direction>, CtTupleField),
    /// Packets or bytes; of both directions together if `None`.
    CtCounter(Option<Direction>, CtCounterKey),
    /// A routing table lookup.
    Fib(FibExpr),
    /// The socket that a packet belongs to. Forwarded packets have none, so the match fails, as in Linux.
    Socket(SocketKey),
    /// The route of the packet, once there is one.
    Route(RouteKey),
    /// The system that a SYN of IPv4 seems to come from.
    OsFingerprint(OsFingerprintKey),
    /// What IPsec has done to the packet, or is to do. The kernel does that, so the match fails, as in Linux for a packet without IPsec. Which of several states is the number.
    Xfrm(XfrmKey, XfrmDirection, u8),
    /// A field of the packet inside of a tunnel's packet.
    Tunnel(TunnelField),
}

/// The system that a SYN seems to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OsFingerprintKey {
    /// With its version.
    pub version: bool,
    /// How the TTL is compared.
    pub ttl: OsTtlCheck,
}

/// How the TTL of a fingerprint is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OsTtlCheck {
    /// Equal in a network of this machine, else at least as small.
    #[default]
    Local,
    /// At least as small.
    Loose,
    /// Not compared.
    Skip,
}

/// Properties of the socket that a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
pub enum SocketKey {
    Transparent,
    Wildcard,
    Mark,
    UserId,
    GroupId,
    Cgroup,
    CgroupV2,
}

/// Properties of a packet's route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
pub enum RouteKey {
    /// The realm; there are none here.
    ClassId,
    /// Does IPsec encrypt what takes it?
    Ipsec,
    /// Where it leads next: the gateway, or the destination itself.
    NextHop4,
    /// The same, of IPv6.
    NextHop6,
    /// The largest TCP segment that fits into its MTU, and into that of the way back.
    Mss,
}

/// Properties of an IPsec state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum XfrmKey {
    RequestId,
    Spi,
    Address4(Endpoint),
    Address6(Endpoint),
}

/// Whose IPsec state: the one by which the packet came, or the one by which it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum XfrmDirection {
    In,
    Out,
}

/// An option, a chunk or an extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExthdrField {
    /// What is searched.
    pub op: ExthdrOp,
    /// Its number.
    pub number: u8,
    /// Bits from its start; `None` tests whether it exists.
    pub bits: Option<BitRange>,
    /// Type of the value.
    pub data_type: DataType,
}

impl ExthdrField {
    /// The MSS option of TCP.
    pub const TCP_MSS: ExthdrField = ExthdrField {
        op: ExthdrOp::TcpOptions,
        number: 2,
        bits: Some(BitRange::new(16, 16)),
        data_type: DataType::Number(16),
    };
}

/// What an option, chunk or extension header is searched in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExthdrOp {
    /// TCP options.
    TcpOptions,
    /// IPv4 options.
    Ip4Options,
    /// IPv6 extension headers.
    Ipv6ExtHeaders,
    /// SCTP chunks.
    SctpChunks,
    /// DCCP options.
    DccpOptions,
}

/// Packet metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
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
    /// Seconds since midnight, wall clock time.
    Hour,
    /// Day of the week, 0 is Sunday.
    Day,
    /// Nanoseconds since 1970, wall clock time.
    Time,
    /// Group of the input or output interface.
    Group(Endpoint),
    /// Link type of the input or output interface.
    LinkType(Endpoint),
    /// Was it decrypted by IPsec?
    Ipsec,
    /// Index of the interface below the input interface, if that is a VRF.
    Sdif,
    /// Its name.
    SdifName,
    /// The realm of the packet's route, as `rt classid`.
    Realm,
    /// Kind of the input or output interface: `wireguard`, `vlan`, ….
    Kind(Endpoint),
}

/// Fields of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
pub enum CtKey {
    State,
    Direction,
    Status,
    Mark,
    /// The zone; with a direction, the one that its tuple has.
    Zone(Option<Direction>),
    Expiration,
    Helper,
    Label,
    Id,
}

/// Fields of a tuple.
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

/// A counter of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
pub enum CtCounterKey {
    Packets,
    Bytes,
    /// Bytes per packet.
    AvgPacketSize,
}

/// A routing table lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FibExpr {
    /// Address to look up.
    pub endpoint: Endpoint,
    /// Restricted to the input interface.
    pub iif: bool,
    /// Restricted to the output interface.
    pub oif: bool,
    /// By the packet's mark. There is one routing table for all of them.
    pub mark: bool,
    /// Requested result.
    pub result: FibResult,
}

/// Result of a routing table lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
pub enum FibResult {
    AddressType,
    Oif,
    OifName,
}

impl Selector {
    /// Type of its values.
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
                MetaKey::LinkType(_) => DataType::LinkType,
                MetaKey::Ipsec => DataType::Boolean,
                MetaKey::Sdif => DataType::InterfaceIndex,
                MetaKey::SdifName => DataType::InterfaceName,
                MetaKey::Realm => DataType::Realm,
                MetaKey::Kind(_) => DataType::InterfaceKind,
                MetaKey::PacketType => DataType::PacketType,
            },
            Selector::Ct(ct) => match ct {
                CtKey::State => DataType::CtState,
                CtKey::Direction => DataType::CtDirection,
                CtKey::Status => DataType::CtStatus,
                CtKey::Mark => DataType::Mark,
                CtKey::Zone(_) => DataType::Number(16),
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
            Selector::Socket(key) => match key {
                SocketKey::Transparent | SocketKey::Wildcard => DataType::Number(1),
                SocketKey::Mark => DataType::Mark,
                SocketKey::UserId => DataType::UserId,
                SocketKey::GroupId => DataType::GroupId,
                SocketKey::Cgroup => DataType::Number(32),
                SocketKey::CgroupV2 => DataType::CgroupV2,
            },
            Selector::OsFingerprint(_) => DataType::OsName,
            Selector::Route(RouteKey::ClassId) => DataType::Realm,
            Selector::Route(RouteKey::Ipsec) => DataType::Boolean,
            Selector::Route(RouteKey::NextHop4) => DataType::Address4,
            Selector::Route(RouteKey::NextHop6) => DataType::Address6,
            Selector::Route(RouteKey::Mss) => DataType::Number(16),
            Selector::Xfrm(key, ..) => match key {
                XfrmKey::RequestId | XfrmKey::Spi => DataType::Number(32),
                XfrmKey::Address4(_) => DataType::Address4,
                XfrmKey::Address6(_) => DataType::Address6,
            },
            Selector::Tunnel(field) => match field.part {
                TunnelPart::Header(_, kind) | TunnelPart::Link(_, kind) => kind,
                TunnelPart::Ip(field) => ip_data_type(field, DataType::Address4),
                TunnelPart::Ip6(field) => ip_data_type(field, DataType::Address6),
                TunnelPart::Port(..) => DataType::Port,
                TunnelPart::Transport(field) => field.data_type,
            },
            Selector::Fib(fib) => match fib.result {
                FibResult::AddressType => DataType::AddressType,
                FibResult::Oif => DataType::InterfaceIndex,
                FibResult::OifName => DataType::InterfaceName,
            },
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
