//! The closed list of reasons why a packet is invalid, ignored, untracked or dropped.
use keepstate_wire::{Packet, ParseError};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal,)*) => {
        /// Why a packet is invalid, ignored, untracked or dropped. Each reason has one name and one counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            /// It could not be parsed (`keepstate-wire`).
            ParseError(ParseError),
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Reason {
            /// Every reason but the parse errors.
            pub const TRACKING: &'static [Reason] = &[$(Reason::$variant,)*];

            /// A short stable name in snake case.
            pub fn name(self) -> &'static str {
                match self {
                    Reason::ParseError(error) => error.name(),
                    $(Reason::$variant => $name,)*
                }
            }

            /// One sentence for logs and reports.
            pub fn text(self) -> &'static str {
                match self {
                    Reason::ParseError(error) => error.text(),
                    $(Reason::$variant => concat!($($doc),+).trim_ascii(),)*
                }
            }
        }
    };
}

reasons! {
    /// The table is full and no connection could be dropped early.
    TableFull "table_full",
    /// The table is full but for entries that are reserved for other connections.
    TableReserved "table_reserved",
    /// Its source has as many connections as it may have.
    SourceConnections "source_connections",
    /// Its source begins connections faster than it may.
    SourceRate "source_rate",
    /// More sources at once than limits by source can be kept for.
    SourceTableFull "source_table_full",
    /// Another connection has taken the tuple, and the clash cannot be resolved.
    Clash "clash",
    /// No address and port in the NAT rule's range is free.
    NatExhausted "nat_exhausted",
    /// Its connection belongs to another shard.
    WrongShard "wrong_shard",
    /// Out of memory for another connection.
    NoMemory "no_memory",
    /// It is a fragment; only reassembled packets are tracked.
    Fragment "fragment",
    /// Its transport checksum is wrong.
    Checksum "checksum",
    /// Its IPv4 options are malformed: the IP layer drops it before its connection is confirmed.
    Ipv4Options "ipv4_options",
    /// ICMP in IPv6, or ICMPv6 in IPv4.
    WrongFamily "wrong_family",
    /// Invalid combination of TCP flags.
    TcpFlags "tcp_flags",
    /// The TCP segment cannot begin a connection.
    TcpFirst "tcp_first",
    /// No SYN, and nf_conntrack_tcp_loose is off.
    TcpNotOpened "tcp_not_opened",
    /// The TCP segment is invalid in this state.
    TcpState "tcp_state",
    /// Passed without a state change: it may belong to a connection not seen here.
    TcpIgnored "tcp_ignored",
    /// A challenge ACK in reply to an ignored SYN.
    TcpChallengeAck "tcp_challenge_ack",
    /// A RST below the highest sequence number that the other end has acknowledged.
    TcpRst "tcp_rst",
    /// Its sequence number is above the receiver's window.
    TcpSeqAbove "tcp_seq_above",
    /// It acknowledges data that was never seen.
    TcpAckAbove "tcp_ack_above",
    /// Its sequence number is below the window: data acknowledged long ago.
    TcpSeqBelow "tcp_seq_below",
    /// Its acknowledgement number is too low.
    TcpAckBelow "tcp_ack_below",
    /// It slightly exceeds the receiver's window.
    TcpOverWindow "tcp_over_window",
    /// No SCTP chunk, a truncated one, or chunks that must not be bundled.
    SctpChunks "sctp_chunks",
    /// The SCTP chunk cannot begin an association.
    SctpFirst "sctp_first",
    /// The SCTP verification tag is not the association's.
    SctpTag "sctp_tag",
    /// The SCTP chunk is invalid in this state.
    SctpState "sctp_state",
    /// An SCTP INIT ACK with an unexpected verification tag.
    SctpInitAck "sctp_init_ack",
    /// Unknown ICMP type.
    IcmpType "icmp_type",
    /// The ICMP type is neither a query nor a reply.
    IcmpUnpaired "icmp_unpaired",
    /// An ICMPv6 redirect not sent by a router on the link: hop limit below 255, or source not link-local.
    Icmpv6Redirect "icmpv6_redirect",
    /// An ICMP reply without a query.
    IcmpUnasked "icmp_unasked",
    /// An ICMP error about an unknown connection.
    IcmpNoConnection "icmp_no_connection",
    /// An ICMP error not sent to the source of the packet it quotes.
    IcmpAddress "icmp_address",
    /// ICMPv6 neighbour discovery and multicast listener messages are not tracked.
    IcmpUntracked "icmp_untracked",
    /// The helper could not parse a partial or unknown command; the sender retransmits it.
    HelperPartial "helper_partial",
    /// A helper or NAT could not rewrite it: the text does not fit, or its options cannot be parsed.
    HelperUnwritable "helper_unwritable",
    /// Its expectation clashes with one of another master.
    ExpectClash "expect_clash",
    /// The expectation table is full (nf_conntrack_expect_max).
    ExpectFull "expect_full",
}

impl Reason {
    /// Why `packet` cannot be parsed. Where a capture has only a part of it, missing bytes are the capture's fault.
    pub(crate) fn parse_error(packet: &Packet<'_>, error: ParseError) -> Reason {
        let cut = packet.is_snapped() && error.is_truncation();
        Reason::ParseError(if cut { ParseError::NotCaptured } else { error })
    }

    /// Its index in an array of [`Reason::COUNT`] counters.
    pub fn index(self) -> usize {
        match self {
            Reason::ParseError(error) => Reason::TRACKING.len() + error as usize,
            own => Reason::TRACKING.iter().position(|reason| *reason == own).unwrap_or_default(),
        }
    }

    /// The number of reasons.
    pub const COUNT: usize = Reason::TRACKING.len() + ParseError::ALL.len();

    /// Every reason, in the order of [`Reason::index`].
    pub fn all() -> impl Iterator<Item = Reason> {
        Reason::TRACKING.iter().copied().chain(ParseError::ALL.iter().map(|error| Reason::ParseError(*error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_unique_index_and_name() {
        let mut names = alloc::collections::BTreeSet::new();
        for (at, reason) in Reason::all().enumerate() {
            assert_eq!(reason.index(), at);
            assert!(names.insert(reason.name()), "{} twice", reason.name());
        }
        assert_eq!(names.len(), Reason::COUNT);
    }
}
