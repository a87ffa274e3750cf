//! Fields of transport headers, which have their fixed places, by the language's names.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::Kind;
use crate::tree::{BitRange, Field, Layer};

/// A header and its fields.
struct Header {
    name: &'static str,
    protocol: u8,
    v6: Option<bool>,
    fields: &'static [Known],
}

/// A field: its first bit, how many, what they mean, and the types of messages that have it.
struct Known {
    name: &'static str,
    bits: BitRange,
    kind: Kind,
    types: &'static [u8],
}

const fn typed(name: &'static str, from: u16, count: u8, kind: Kind) -> Known {
    Known { name, bits: BitRange::new(from, count), kind, types: &[] }
}

const fn plain(name: &'static str, from: u16, count: u8) -> Known {
    typed(name, from, count, Kind::Number(count))
}

/// In messages of these types only.
const fn of(types: &'static [u8], known: Known) -> Known {
    Known { types, ..known }
}

const fn header(name: &'static str, protocol: u8, v6: Option<bool>, fields: &'static [Known]) -> Header {
    Header { name, protocol, v6, fields }
}

const HEADERS: &[Header] = &[
    header(
        "tcp",
        6,
        None,
        &[
            plain("sequence", 32, 32),
            plain("ackseq", 64, 32),
            plain("doff", 96, 4),
            plain("reserved", 100, 4),
            typed("flags", 104, 8, Kind::TcpFlags),
            plain("window", 112, 16),
            plain("checksum", 128, 16),
            plain("urgptr", 144, 16),
        ],
    ),
    header("udp", 17, None, &[plain("length", 32, 16), plain("checksum", 48, 16)]),
    header("udplite", 136, None, &[plain("csumcov", 32, 16), plain("checksum", 48, 16)]),
    header("sctp", 132, None, &[plain("vtag", 32, 32), plain("checksum", 64, 32)]),
    header("dccp", 33, None, &[typed("type", 67, 4, Kind::DccpType)]),
    header(
        "icmp",
        1,
        Some(false),
        &[
            typed("type", 0, 8, Kind::IcmpType),
            typed("code", 8, 8, Kind::IcmpCode),
            plain("checksum", 16, 16),
            of(&[0, 8], plain("id", 32, 16)),
            of(&[0, 8], plain("sequence", 48, 16)),
            of(&[3], plain("mtu", 48, 16)),
            of(&[5], plain("gateway", 32, 32)),
        ],
    ),
    header(
        "icmpv6",
        58,
        Some(true),
        &[
            typed("type", 0, 8, Kind::Icmp6Type),
            typed("code", 8, 8, Kind::Icmp6Code),
            plain("checksum", 16, 16),
            of(&[128, 129], plain("id", 32, 16)),
            of(&[128, 129], plain("sequence", 48, 16)),
            of(&[2], plain("mtu", 32, 32)),
            of(&[4], plain("param-problem", 32, 32)),
            of(&[130], plain("max-delay", 32, 16)),
            of(&[135, 136, 137], typed("taddr", 64, 128, Kind::Address6)),
            of(&[137], typed("daddr", 192, 128, Kind::Address6)),
        ],
    ),
    header(
        "igmp",
        2,
        Some(false),
        &[typed("type", 0, 8, Kind::IgmpType), plain("mrt", 8, 8), plain("checksum", 16, 16), plain("group", 32, 32)],
    ),
    header(
        "ah",
        51,
        None,
        &[
            typed("nexthdr", 0, 8, Kind::Protocol),
            plain("hdrlength", 8, 8),
            plain("reserved", 16, 16),
            plain("spi", 32, 32),
            plain("sequence", 64, 32),
        ],
    ),
    header("esp", 50, None, &[plain("spi", 0, 32), plain("sequence", 32, 32)]),
    header("comp", 108, None, &[typed("nexthdr", 0, 8, Kind::Protocol), plain("flags", 8, 8), plain("cpi", 16, 16)]),
];

/// Are ports among the header's fields?
fn has_ports(header: &str) -> bool {
    matches!(header, "tcp" | "udp" | "udplite" | "sctp" | "dccp" | "th")
}

impl Parser<'_> {
    /// A field of the header whose name was read.
    pub(super) fn field(&mut self, header: &str) -> Parsed<Field> {
        let known = HEADERS.iter().find(|known| known.name == header);
        let (word, span) = self.name("a field of the header")?;
        let fields = known.map_or(&[][..], |known| known.fields);
        match (known, fields.iter().find(|field| field.name == word)) {
            (Some(header), Some(field)) => Ok(Field {
                layer: Layer::Transport,
                bits: field.bits,
                kind: field.kind,
                protocol: Some(header.protocol),
                v6: header.v6,
                types: field.types,
            }),
            _ => {
                let ports = if has_ports(header) { &["sport", "dport"][..] } else { &[] };
                let names: Vec<&str> = ports.iter().copied().chain(fields.iter().map(|field| field.name)).collect();
                Err(Fault::new(span, format!("{header} {word}: no such field")).instead(names.join(", ")))
            }
        }
    }
}
