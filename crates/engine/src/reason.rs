//! Why a packet is invalid, was ignored, is not tracked, or is dropped: one closed list.
use keepstate_wire::ParseError;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal,)*) => {
        /// Why a packet is invalid, was ignored, is not tracked, or is dropped. Each has one name and one counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            /// The packet views refused it.
            ParseError(ParseError),
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Reason {
            /// Every reason that is tracking's own.
            pub const TRACKING: &'static [Reason] = &[$(Reason::$variant,)*];

            /// A short stable name in snake case.
            pub fn name(self) -> &'static str {
                match self {
                    Reason::ParseError(error) => error.name(),
                    $(Reason::$variant => $name,)*
                }
            }

            /// One sentence for people.
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
    /// The table is full and no unassured connection could make room.
    TableFull "table_full",
    /// Another packet took the tuple first, and the two cannot be one connection.
    Clash "clash",
    /// No address and port of the rule's range is free for its translation.
    NatExhausted "nat_exhausted",
    /// There is no memory for another connection.
    NoMemory "no_memory",
    /// It is a fragment: only the reassembled packet can be tracked.
    Fragment "fragment",
    /// Its transport checksum is wrong.
    Checksum "checksum",
    /// ICMP in IPv6, or ICMPv6 in IPv4.
    WrongFamily "wrong_family",
    /// A set of TCP flags that no segment carries.
    TcpFlags "tcp_flags",
    /// A TCP connection does not begin with such a segment.
    TcpFirst "tcp_first",
    /// No SYN, and nf_conntrack_tcp_loose is off.
    TcpNotOpened "tcp_not_opened",
    /// Such a segment has no place in this state of the connection.
    TcpState "tcp_state",
    /// Passed without a change of state: it may belong to a connection we do not know.
    TcpIgnored "tcp_ignored",
    /// A challenge to a SYN that we let pass, not the last ACK.
    TcpChallengeAck "tcp_challenge_ack",
    /// A RST older than what the other end has acknowledged.
    TcpRst "tcp_rst",
    /// Its sequence number is over the window of the receiver.
    TcpSeqAbove "tcp_seq_above",
    /// It acknowledges data that was not seen.
    TcpAckAbove "tcp_ack_above",
    /// It repeats data that was acknowledged long ago.
    TcpSeqBelow "tcp_seq_below",
    /// Its acknowledgement is too old.
    TcpAckBelow "tcp_ack_below",
    /// It carries a little more than the window of the receiver.
    TcpOverWindow "tcp_over_window",
    /// SCTP chunks that may not stand together, none at all, or one cut short.
    SctpChunks "sctp_chunks",
    /// An SCTP association does not begin with such a chunk.
    SctpFirst "sctp_first",
    /// The verification tag is not the association's.
    SctpTag "sctp_tag",
    /// The SCTP chunk has no place in this state.
    SctpState "sctp_state",
    /// An INIT ACK with a tag that is neither known nor asked for.
    SctpInitAck "sctp_init_ack",
    /// An ICMP type that tracking does not know.
    IcmpType "icmp_type",
    /// An ICMP type that is neither a query nor an answer.
    IcmpUnpaired "icmp_unpaired",
    /// An ICMPv6 redirect that no router on the link can have sent: its hop limit is below 255, or its source not link-local.
    Icmpv6Redirect "icmpv6_redirect",
    /// An ICMP answer that nobody asked for.
    IcmpUnasked "icmp_unasked",
    /// An ICMP error about a packet of no known connection.
    IcmpNoConnection "icmp_no_connection",
    /// An ICMP error sent to somebody else than the connection's end.
    IcmpAddress "icmp_address",
    /// Neighbour discovery and multicast listening are not tracked.
    IcmpUntracked "icmp_untracked",
    /// A command for the helper that is not whole or not understood: the sender has to send it again.
    HelperPartial "helper_partial",
    /// What a helper or a translation has to write into it does not fit, or its options cannot be read.
    HelperUnwritable "helper_unwritable",
    /// It announces a connection that another master expects already.
    ExpectClash "expect_clash",
    /// It announces a connection, and nf_conntrack_expect_max are expected already.
    ExpectFull "expect_full",
}

impl Reason {
    /// A place of its own in an array of [`Reason::COUNT`] counters.
    pub fn index(self) -> usize {
        match self {
            Reason::ParseError(error) => Reason::TRACKING.len() + error as usize,
            own => Reason::TRACKING.iter().position(|reason| *reason == own).unwrap_or_default(),
        }
    }

    /// How many reasons there are.
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
