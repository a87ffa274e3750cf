//! conntrack's command line as data: commands, tables, options, and which option goes with which command.
//!
//! The columns were measured on conntrack 1.4.7 by trying each option with each command (docs/kernel-facts/conntrack-tool.md).

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    List,
    Create,
    Add,
    Update,
    Delete,
    Get,
    Event,
    Flush,
    Count,
    Statistics,
    Version,
    Help,
}

/// The table it works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Table {
    #[default]
    Connections,
    Expectations,
    Dying,
    Unconfirmed,
}

impl Table {
    const NAMES: [(&'static str, Table); 4] = [
        ("conntrack", Table::Connections),
        ("expect", Table::Expectations),
        ("unconfirmed", Table::Unconfirmed),
        ("dying", Table::Dying),
    ];

    /// The table with this name, or the first whose name begins with it.
    pub(super) fn from_name(name: &str) -> Option<Table> {
        Table::NAMES.iter().find(|(known, _)| !name.is_empty() && known.starts_with(name)).map(|(_, table)| *table)
    }
}

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasArg {
    /// It has none.
    None,
    /// It must have one.
    Required,
    /// Optional: attached to it, or the next word if that is no option.
    Optional,
    /// A value attached to it is ignored.
    Ignored,
}

/// The meaning of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have conntrack's names")]
pub(super) enum OptId {
    Command(Command),
    Source,
    Destination,
    ReplySource,
    ReplyDestination,
    Protocol,
    Timeout,
    Status,
    Zero,
    EventMask,
    TupleSource,
    TupleDestination,
    MaskSource,
    MaskDestination,
    SourceNat,
    DestinationNat,
    Mark,
    Id,
    Family,
    Output,
    SecurityMark,
    BufferSize,
    AnyNat,
    Zone,
    OrigZone,
    ReplyZone,
    Label,
    LabelAdd,
    LabelDel,
    Deprecated,
    // Those of protocols.
    SourcePort,
    DestinationPort,
    ReplySourcePort,
    ReplyDestinationPort,
    MaskSourcePort,
    MaskDestinationPort,
    TupleSourcePort,
    TupleDestinationPort,
    State,
    OrigTag,
    ReplyTag,
    Role,
    IcmpType,
    IcmpCode,
    IcmpId,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptSpec {
    pub(super) id: OptId,
    /// Its letter.
    pub(super) short: Option<char>,
    /// Its long names; messages use the first.
    pub(super) long: &'static [&'static str],
    pub(super) has_arg: HasArg,
}

const fn spec(meaning: OptId, short: Option<char>, long: &'static [&'static str], value: HasArg) -> OptSpec {
    OptSpec { id: meaning, short, long, has_arg: value }
}

use HasArg::{Ignored, None as Nothing, Optional, Required};
use OptId as M;

/// Commands.
pub(super) const COMMANDS: &[OptSpec] = &[
    spec(M::Command(Command::List), Some('L'), &["dump"], Ignored),
    spec(M::Command(Command::Create), Some('I'), &["create"], Ignored),
    spec(M::Command(Command::Add), Some('A'), &["add"], Ignored),
    spec(M::Command(Command::Delete), Some('D'), &["delete"], Ignored),
    spec(M::Command(Command::Update), Some('U'), &["update"], Ignored),
    spec(M::Command(Command::Get), Some('G'), &["get"], Ignored),
    spec(M::Command(Command::Flush), Some('F'), &["flush"], Ignored),
    spec(M::Command(Command::Event), Some('E'), &["event"], Ignored),
    spec(M::Command(Command::Version), Some('V'), &["version"], Nothing),
    spec(M::Command(Command::Help), Some('h'), &["help"], Nothing),
    spec(M::Command(Command::Count), Some('C'), &["count"], Ignored),
    spec(M::Command(Command::Statistics), Some('S'), &["stats"], Ignored),
];

/// Options, in the order in which they are checked against the command.
pub(super) const OPTIONS: &[OptSpec] = &[
    spec(M::Source, Some('s'), &["src", "orig-src"], Required),
    spec(M::Destination, Some('d'), &["dst", "orig-dst"], Required),
    spec(M::ReplySource, Some('r'), &["reply-src"], Required),
    spec(M::ReplyDestination, Some('q'), &["reply-dst"], Required),
    spec(M::Protocol, Some('p'), &["protonum", "proto"], Required),
    spec(M::Timeout, Some('t'), &["timeout"], Required),
    spec(M::Status, Some('u'), &["status"], Required),
    spec(M::Zero, Some('z'), &["zero"], Nothing),
    spec(M::EventMask, Some('e'), &["event-mask"], Required),
    spec(M::TupleSource, None, &["tuple-src"], Required),
    spec(M::TupleDestination, None, &["tuple-dst"], Required),
    spec(M::MaskSource, None, &["mask-src"], Required),
    spec(M::MaskDestination, None, &["mask-dst"], Required),
    spec(M::Deprecated, Some('a'), &["nat-range"], Required),
    spec(M::Mark, Some('m'), &["mark"], Required),
    spec(M::Id, Some('i'), &["id"], Required),
    spec(M::Family, Some('f'), &["family"], Required),
    spec(M::SourceNat, Some('n'), &["src-nat"], Optional),
    spec(M::DestinationNat, Some('g'), &["dst-nat"], Optional),
    spec(M::Output, Some('o'), &["output"], Required),
    spec(M::SecurityMark, Some('c'), &["secmark"], Required),
    spec(M::BufferSize, Some('b'), &["buffer-size"], Required),
    spec(M::AnyNat, Some('j'), &["any-nat"], Optional),
    spec(M::Zone, Some('w'), &["zone"], Required),
    spec(M::Label, Some('l'), &["label"], Required),
    spec(M::LabelAdd, None, &["label-add"], Required),
    spec(M::LabelDel, None, &["label-del"], Optional),
    spec(M::OrigZone, None, &["orig-zone"], Required),
    spec(M::ReplyZone, None, &["reply-zone"], Required),
];

const PORTS: &[OptSpec] = &[
    spec(M::SourcePort, None, &["sport", "orig-port-src"], Required),
    spec(M::DestinationPort, None, &["dport", "orig-port-dst"], Required),
    spec(M::ReplySourcePort, None, &["reply-port-src"], Required),
    spec(M::ReplyDestinationPort, None, &["reply-port-dst"], Required),
    spec(M::MaskSourcePort, None, &["mask-port-src"], Required),
    spec(M::MaskDestinationPort, None, &["mask-port-dst"], Required),
    spec(M::TupleSourcePort, None, &["tuple-port-src"], Required),
    spec(M::TupleDestinationPort, None, &["tuple-port-dst"], Required),
];

const KEYS: &[OptSpec] = &[
    spec(M::SourcePort, None, &["srckey", "orig-key-src"], Required),
    spec(M::DestinationPort, None, &["dstkey", "orig-key-dst"], Required),
    spec(M::ReplySourcePort, None, &["reply-key-src"], Required),
    spec(M::ReplyDestinationPort, None, &["reply-key-dst"], Required),
    spec(M::MaskSourcePort, None, &["mask-key-src"], Required),
    spec(M::MaskDestinationPort, None, &["mask-key-dst"], Required),
    spec(M::TupleSourcePort, None, &["tuple-key-src"], Required),
    spec(M::TupleDestinationPort, None, &["tuple-key-dst"], Required),
];

const STATE: &[OptSpec] = &[spec(M::State, None, &["state"], Required)];
const TAGS: &[OptSpec] =
    &[spec(M::OrigTag, None, &["orig-vtag"], Required), spec(M::ReplyTag, None, &["reply-vtag"], Required)];
const ROLE: &[OptSpec] = &[spec(M::Role, None, &["role"], Required)];
const ICMP: &[OptSpec] = &[
    spec(M::IcmpType, None, &["icmp-type"], Required),
    spec(M::IcmpCode, None, &["icmp-code"], Required),
    spec(M::IcmpId, None, &["icmp-id"], Required),
];
const ICMPV6: &[OptSpec] = &[
    spec(M::IcmpType, None, &["icmpv6-type"], Required),
    spec(M::IcmpCode, None, &["icmpv6-code"], Required),
    spec(M::IcmpId, None, &["icmpv6-id"], Required),
];

/// The options of a protocol, known once `-p` named it.
pub(super) fn protocol_options(number: u8) -> impl Iterator<Item = &'static OptSpec> {
    let lists: [&'static [OptSpec]; 3] = match number {
        6 => [PORTS, STATE, &[]],
        17 | 136 => [PORTS, &[], &[]],
        132 => [PORTS, STATE, TAGS],
        33 => [PORTS, STATE, ROLE],
        47 => [KEYS, &[], &[]],
        1 => [ICMP, &[], &[]],
        58 => [ICMPV6, &[], &[]],
        _ => [&[], &[], &[]],
    };
    lists.into_iter().flatten()
}

/// Whether an option is allowed with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applicability {
    /// Allowed.
    Allowed,
    /// Required.
    Required,
    /// Not allowed.
    Illegal,
}

/// Is this option allowed with this command? One column per command: `o` allowed, `r` required, `.` illegal.
pub(super) fn applicability(command: Command, table: Table, meaning: OptId, protocol: Option<u8>) -> Applicability {
    let expectations = table == Table::Expectations;
    let column = match (command, expectations) {
        (Command::List, false) => 0,
        (Command::Create | Command::Add, false) => 1,
        (Command::Update, false) => 2,
        (Command::Delete, false) => 3,
        (Command::Get, false) => 4,
        (Command::Event, false) => 5,
        (Command::Flush, false) => 6,
        (Command::List, true) => 7,
        (Command::Create | Command::Add | Command::Update, true) => 8,
        (Command::Get | Command::Delete, true) => 9,
        (Command::Event, true) => 10,
        (Command::Help, _) => 11,
        (Command::Flush | Command::Count | Command::Statistics | Command::Version, _) => 12,
    };
    let row = match meaning {
        //                                                            LIUDGEF LIGE h*
        M::Source | M::Destination => "oooooo..rr...",
        M::ReplySource | M::ReplyDestination => "oooooo..oo...",
        M::Protocol => "orooro..rr.o.",
        M::Timeout => ".roo....r....",
        M::Status => "oooo....o....",
        M::Zero => "o............",
        M::EventMask => ".....o.......",
        M::TupleSource | M::TupleDestination => "........r....",
        M::MaskSource | M::MaskDestination => "o.oo.o..r....",
        M::SourceNat | M::DestinationNat => "oooo.o.......",
        M::Mark => "oooo.o.......",
        M::Id => "..ooo........",
        M::Family => "o.oo.ooo.....",
        M::Output => "o.oooo.o..o..",
        M::SecurityMark => "o....o.......",
        M::BufferSize => ".....o.......",
        M::AnyNat => "o....o.......",
        // conntrack refuses a zone with -U and -G, which then find nothing in a zone.
        M::Zone | M::OrigZone | M::ReplyZone => "oooooo.......",
        M::Label => "o.oooo.......",
        M::LabelAdd => ".oo..........",
        M::LabelDel => "..o..........",
        M::SourcePort | M::DestinationPort => "oooooo..rr...",
        M::ReplySourcePort | M::ReplyDestinationPort => "oooooo...r...",
        M::MaskSourcePort | M::MaskDestinationPort | M::TupleSourcePort | M::TupleDestinationPort => "........r....",
        M::State => "oroooo.......",
        M::OrigTag | M::ReplyTag if protocol == Some(132) => "oroooo.......",
        M::Role => "oroooo.......",
        M::IcmpType | M::IcmpCode => "orooro.......",
        M::IcmpId => "oooooo.......",
        M::OrigTag | M::ReplyTag | M::Deprecated | M::Command(_) => "ooooooooooooo",
    };
    match row.as_bytes().get(column) {
        Some(b'o') => Applicability::Allowed,
        Some(b'r') => Applicability::Required,
        _ => Applicability::Illegal,
    }
}
