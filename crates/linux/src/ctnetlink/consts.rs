//! The numbers of the kernel's interface (`linux/netfilter/nfnetlink_conntrack.h`), by its own names without their prefixes.

/// Subsystems and their messages: `subsystem << 8 | message`.
pub mod message {
    /// A connection: made, changed, or told of.
    pub const CT_NEW: u16 = 0x100;
    /// Asks for connections.
    pub const CT_GET: u16 = 0x101;
    /// A connection ends.
    pub const CT_DELETE: u16 = 0x102;
    /// Asks for connections and zeroes their counters.
    pub const CT_GET_CTRZERO: u16 = 0x103;
    /// Asks for the statistics of each processor.
    pub const CT_GET_STATS_CPU: u16 = 0x104;
    /// Asks how many connections there are.
    pub const CT_GET_STATS: u16 = 0x105;
    /// Asks for connections that end but are still held.
    pub const CT_GET_DYING: u16 = 0x106;
    /// Asks for connections that are not in the table yet.
    pub const CT_GET_UNCONFIRMED: u16 = 0x107;
    /// An expectation: made or told of.
    pub const EXP_NEW: u16 = 0x200;
    /// Asks for expectations.
    pub const EXP_GET: u16 = 0x201;
    /// An expectation ends.
    pub const EXP_DELETE: u16 = 0x202;
    /// Asks for the statistics of expectations.
    pub const EXP_GET_STATS_CPU: u16 = 0x203;
}

/// Multicast groups of events.
pub mod group {
    /// Connections begin.
    pub const CT_NEW: u32 = 1;
    /// Connections change.
    pub const CT_UPDATE: u32 = 2;
    /// Connections end.
    pub const CT_DESTROY: u32 = 3;
    /// Expectations begin.
    pub const EXP_NEW: u32 = 4;
    /// Expectations change.
    pub const EXP_UPDATE: u32 = 5;
    /// Expectations end.
    pub const EXP_DESTROY: u32 = 6;
}

macro_rules! attributes {
    ($(#[doc = $doc:literal])* $module:ident { $($name:ident = $number:literal,)* }) => {
        $(#[doc = $doc])*
        #[allow(missing_docs, reason = "they are the kernel's names")]
        pub mod $module { $(pub const $name: u16 = $number;)* }
    };
}

attributes! {
    /// Of a connection.
    cta {
        TUPLE_ORIG = 1, TUPLE_REPLY = 2, STATUS = 3, PROTOINFO = 4, HELP = 5, NAT_SRC = 6, TIMEOUT = 7, MARK = 8,
        COUNTERS_ORIG = 9, COUNTERS_REPLY = 10, USE = 11, ID = 12, NAT_DST = 13, TUPLE_MASTER = 14, SEQ_ADJ_ORIG = 15,
        SEQ_ADJ_REPLY = 16, SECMARK = 17, ZONE = 18, SECCTX = 19, TIMESTAMP = 20, MARK_MASK = 21, LABELS = 22,
        LABELS_MASK = 23, SYNPROXY = 24, FILTER = 25, STATUS_MASK = 26, TIMESTAMP_EVENT = 27,
    }
}
attributes! {
    /// Of a tuple.
    tuple { IP = 1, PROTO = 2, ZONE = 3, }
}
attributes! {
    /// Of a tuple's addresses.
    ip { V4_SRC = 1, V4_DST = 2, V6_SRC = 3, V6_DST = 4, }
}
attributes! {
    /// Of a tuple's transport.
    proto {
        NUM = 1, SRC_PORT = 2, DST_PORT = 3, ICMP_ID = 4, ICMP_TYPE = 5, ICMP_CODE = 6, ICMPV6_ID = 7, ICMPV6_TYPE = 8,
        ICMPV6_CODE = 9,
    }
}
attributes! {
    /// What a protocol knows.
    protoinfo { TCP = 1, DCCP = 2, SCTP = 3, }
}
attributes! {
    /// What TCP knows.
    tcp { STATE = 1, WSCALE_ORIGINAL = 2, WSCALE_REPLY = 3, FLAGS_ORIGINAL = 4, FLAGS_REPLY = 5, }
}
attributes! {
    /// What SCTP knows.
    sctp { STATE = 1, VTAG_ORIGINAL = 2, VTAG_REPLY = 3, }
}
attributes! {
    /// Packets and bytes.
    counters { PACKETS = 1, BYTES = 2, }
}
attributes! {
    /// Beginning and end.
    timestamp { START = 1, STOP = 2, }
}
attributes! {
    /// What NAT is to do.
    nat { V4_MINIP = 1, V4_MAXIP = 2, PROTO = 3, V6_MINIP = 4, V6_MAXIP = 5, }
}
attributes! {
    /// NAT's ports.
    protonat { PORT_MIN = 1, PORT_MAX = 2, }
}
attributes! {
    /// The helper.
    help { NAME = 1, INFO = 2, }
}
attributes! {
    /// Sequence numbers moved by a helper.
    seqadj { CORRECTION_POS = 1, OFFSET_BEFORE = 2, OFFSET_AFTER = 3, }
}
attributes! {
    /// A connection opened through SYNPROXY.
    synproxy { ISN = 1, ITS = 2, TSOFF = 3, }
}
attributes! {
    /// The security context.
    secctx { NAME = 1, }
}
attributes! {
    /// What of a tuple a dump is restricted to.
    filter { ORIG_FLAGS = 1, REPLY_FLAGS = 2, }
}
attributes! {
    /// Counters of a processor.
    stats {
        SEARCHED = 1, FOUND = 2, NEW = 3, INVALID = 4, IGNORE = 5, DELETE = 6, DELETE_LIST = 7, INSERT = 8,
        INSERT_FAILED = 9, DROP = 10, EARLY_DROP = 11, ERROR = 12, SEARCH_RESTART = 13, CLASH_RESOLVE = 14, CHAIN_TOOLONG = 15,
    }
}
attributes! {
    /// How many there are.
    stats_global { ENTRIES = 1, MAX_ENTRIES = 2, }
}
attributes! {
    /// Counters of expectations.
    stats_exp { NEW = 1, CREATE = 2, DELETE = 3, }
}
attributes! {
    /// Of an expectation.
    expect {
        MASTER = 1, TUPLE = 2, MASK = 3, TIMEOUT = 4, ID = 5, HELP_NAME = 6, ZONE = 7, FLAGS = 8, CLASS = 9, NAT = 10, FN = 11,
    }
}
attributes! {
    /// How an expected connection is to be translated.
    expect_nat { DIR = 1, TUPLE = 2, }
}
