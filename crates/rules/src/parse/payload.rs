//! Fields of headers at fixed offsets: transport, and the frame's.
use super::parser::{ParseResult, Parser};
use crate::ast::{BitRange, PayloadBase, PayloadField};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;

/// A header and its fields.
struct HeaderDef {
    name: &'static str,
    protocol: u8,
    v6: Option<bool>,
    fields: &'static [FieldDef],
}

/// A field: bits, type, and the ICMP types that have it.
struct FieldDef {
    name: &'static str,
    bits: BitRange,
    data_type: DataType,
    icmp_types: &'static [u8],
}

const fn typed_field(name: &'static str, from: u16, count: u8, kind: DataType) -> FieldDef {
    FieldDef { name, bits: BitRange::new(from, count), data_type: kind, icmp_types: &[] }
}

const fn number_field(name: &'static str, from: u16, count: u8) -> FieldDef {
    typed_field(name, from, count, DataType::Number(count))
}

/// Restricts a field to messages of these types.
const fn for_icmp_types(types: &'static [u8], known: FieldDef) -> FieldDef {
    FieldDef { icmp_types: types, ..known }
}

const fn header_def(name: &'static str, protocol: u8, v6: Option<bool>, fields: &'static [FieldDef]) -> HeaderDef {
    HeaderDef { name, protocol, v6, fields }
}

const HEADERS: &[HeaderDef] = &[
    header_def(
        "tcp",
        6,
        None,
        &[
            number_field("sequence", 32, 32),
            number_field("ackseq", 64, 32),
            number_field("doff", 96, 4),
            number_field("reserved", 100, 4),
            typed_field("flags", 104, 8, DataType::TcpFlags),
            number_field("window", 112, 16),
            number_field("checksum", 128, 16),
            number_field("urgptr", 144, 16),
        ],
    ),
    header_def("udp", 17, None, &[number_field("length", 32, 16), number_field("checksum", 48, 16)]),
    header_def("udplite", 136, None, &[number_field("csumcov", 32, 16), number_field("checksum", 48, 16)]),
    header_def("sctp", 132, None, &[number_field("vtag", 32, 32), number_field("checksum", 64, 32)]),
    header_def("dccp", 33, None, &[typed_field("type", 67, 4, DataType::DccpType)]),
    header_def(
        "icmp",
        1,
        Some(false),
        &[
            typed_field("type", 0, 8, DataType::IcmpType),
            typed_field("code", 8, 8, DataType::IcmpCode),
            number_field("checksum", 16, 16),
            for_icmp_types(&[0, 8], number_field("id", 32, 16)),
            for_icmp_types(&[0, 8], number_field("sequence", 48, 16)),
            for_icmp_types(&[3], number_field("mtu", 48, 16)),
            for_icmp_types(&[5], number_field("gateway", 32, 32)),
        ],
    ),
    header_def(
        "icmpv6",
        58,
        Some(true),
        &[
            typed_field("type", 0, 8, DataType::Icmp6Type),
            typed_field("code", 8, 8, DataType::Icmp6Code),
            number_field("checksum", 16, 16),
            for_icmp_types(&[128, 129], number_field("id", 32, 16)),
            for_icmp_types(&[128, 129], number_field("sequence", 48, 16)),
            for_icmp_types(&[2], number_field("mtu", 32, 32)),
            for_icmp_types(&[4], number_field("param-problem", 32, 32)),
            for_icmp_types(&[130], number_field("max-delay", 32, 16)),
            for_icmp_types(&[135, 136, 137], typed_field("taddr", 64, 128, DataType::Address6)),
            for_icmp_types(&[137], typed_field("daddr", 192, 128, DataType::Address6)),
        ],
    ),
    header_def(
        "igmp",
        2,
        Some(false),
        &[
            typed_field("type", 0, 8, DataType::IgmpType),
            number_field("mrt", 8, 8),
            number_field("checksum", 16, 16),
            number_field("group", 32, 32),
        ],
    ),
    header_def(
        "ah",
        51,
        None,
        &[
            typed_field("nexthdr", 0, 8, DataType::Protocol),
            number_field("hdrlength", 8, 8),
            number_field("reserved", 16, 16),
            number_field("spi", 32, 32),
            number_field("sequence", 64, 32),
        ],
    ),
    header_def("esp", 50, None, &[number_field("spi", 0, 32), number_field("sequence", 32, 32)]),
    header_def(
        "comp",
        108,
        None,
        &[typed_field("nexthdr", 0, 8, DataType::Protocol), number_field("flags", 8, 8), number_field("cpi", 16, 16)],
    ),
];

/// The Ethernet header.
const ETHER_FIELDS: &[FieldDef] = &[
    typed_field("daddr", 0, 48, DataType::EtherAddress),
    typed_field("saddr", 48, 48, DataType::EtherAddress),
    typed_field("type", 96, 16, DataType::EtherType),
];
/// The tag behind it. A packet of a VLAN comes in by the VLAN's interface, without a tag: such a match never holds, as in Linux.
const VLAN_FIELDS: &[FieldDef] = &[
    number_field("pcp", 112, 3),
    number_field("dei", 115, 1),
    number_field("cfi", 115, 1),
    number_field("id", 116, 12),
    typed_field("type", 128, 16, DataType::EtherType),
];

/// Header and field of these bits, as they are written; `None` for raw bits.
#[cfg(feature = "json")]
pub(crate) fn payload_field_names(field: &PayloadField) -> Option<(&'static str, &'static str)> {
    let same = |known: &&FieldDef| {
        (known.bits, known.data_type, known.icmp_types) == (field.bits, field.data_type, field.icmp_types)
    };
    if field.base == PayloadBase::Link {
        let tables = [("ether", ETHER_FIELDS), ("vlan", VLAN_FIELDS)];
        return tables.iter().find_map(|(header, fields)| Some((*header, fields.iter().find(same)?.name)));
    }
    let known = HEADERS.iter().find(|known| Some(known.protocol) == field.protocol && known.v6 == field.v6)?;
    Some((known.name, known.fields.iter().find(same)?.name))
}

/// Does the header have ports?
fn has_ports(header: &str) -> bool {
    matches!(header, "tcp" | "udp" | "udplite" | "sctp" | "dccp" | "th")
}

impl Parser<'_> {
    /// After `ether` or `vlan`.
    pub(super) fn parse_link_field(&mut self, header: &str) -> ParseResult<PayloadField> {
        let fields = if header == "ether" { ETHER_FIELDS } else { VLAN_FIELDS };
        let (word, span) = self.expect_word("a header field")?;
        match fields.iter().find(|field| field.name == word) {
            Some(field) => Ok(PayloadField {
                base: PayloadBase::Link,
                bits: field.bits,
                data_type: field.data_type,
                protocol: None,
                v6: None,
                icmp_types: &[],
            }),
            None => {
                let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
                Err(Diagnostic::new(span, format!("{header} has no field `{word}`"))
                    .with_help(format!("fields: {}", names.join(", "))))
            }
        }
    }

    /// A field, after the header's name.
    pub(super) fn parse_payload_field(&mut self, header: &str) -> ParseResult<PayloadField> {
        let known = HEADERS.iter().find(|known| known.name == header);
        let (word, span) = self.expect_word("a header field")?;
        if header == "dccp" && word == "option" {
            return Err(Diagnostic::unsupported(span, "DCCP options are not supported").with_help("match dccp type"));
        }
        let fields = known.map_or(&[][..], |known| known.fields);
        match (known, fields.iter().find(|field| field.name == word)) {
            (Some(header), Some(field)) => Ok(PayloadField {
                base: PayloadBase::Transport,
                bits: field.bits,
                data_type: field.data_type,
                protocol: Some(header.protocol),
                v6: header.v6,
                icmp_types: field.icmp_types,
            }),
            _ => {
                let ports = if has_ports(header) { &["sport", "dport"][..] } else { &[] };
                let names: Vec<&str> = ports.iter().copied().chain(fields.iter().map(|field| field.name)).collect();
                Err(Diagnostic::new(span, format!("{header} has no field `{word}`"))
                    .with_help(format!("fields: {}", names.join(", "))))
            }
        }
    }
}
