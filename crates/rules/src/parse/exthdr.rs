//! TCP options, IPv4 options, IPv6 extension headers and SCTP chunks.
use super::parser::{ParseResult, Parser};
use crate::ast::{BitRange, ExthdrField, ExthdrOp};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind};
use crate::source::Span;

/// An option, header or chunk: name, number, fields.
type ExthdrDef = (&'static str, u8, &'static [ExthdrFieldDef]);
/// A field: name, first bit, number of bits, type.
type ExthdrFieldDef = (&'static str, u16, u8, DataType);

const fn number_field(name: &'static str, from: u16, count: u8) -> ExthdrFieldDef {
    (name, from, count, DataType::Number(count))
}

const OPTION_LENGTH: ExthdrFieldDef = number_field("length", 8, 8);

const TCP_OPTIONS: &[ExthdrDef] = &[
    ("eol", 0, &[]),
    ("nop", 1, &[]),
    ("noop", 1, &[]),
    ("maxseg", 2, &[OPTION_LENGTH, number_field("size", 16, 16)]),
    ("mss", 2, &[OPTION_LENGTH, number_field("size", 16, 16)]),
    ("window", 3, &[OPTION_LENGTH, number_field("count", 16, 8)]),
    ("sack-perm", 4, &[OPTION_LENGTH]),
    ("sack-permitted", 4, &[OPTION_LENGTH]),
    ("sack", 5, &[OPTION_LENGTH, number_field("left", 16, 32), number_field("right", 48, 32)]),
    ("sack0", 5, &[OPTION_LENGTH, number_field("left", 16, 32), number_field("right", 48, 32)]),
    ("sack1", 5, &[OPTION_LENGTH, number_field("left", 80, 32), number_field("right", 112, 32)]),
    ("sack2", 5, &[OPTION_LENGTH, number_field("left", 144, 32), number_field("right", 176, 32)]),
    ("sack3", 5, &[OPTION_LENGTH, number_field("left", 208, 32), number_field("right", 240, 32)]),
    // As in nft; the option that RFC 1072 calls echo has number 6.
    ("echo", 8, &[OPTION_LENGTH]),
    ("timestamp", 8, &[OPTION_LENGTH, number_field("tsval", 16, 32), number_field("tsecr", 48, 32)]),
    ("md5sig", 19, &[OPTION_LENGTH]),
    ("mptcp", 30, &[OPTION_LENGTH, number_field("subtype", 16, 4)]),
    ("fastopen", 34, &[OPTION_LENGTH]),
];

// As in nft, the address is a number.
const ROUTE_OPTION_FIELDS: &[ExthdrFieldDef] =
    &[number_field("type", 0, 8), OPTION_LENGTH, number_field("ptr", 16, 8), number_field("addr", 24, 32)];
const IP4_OPTIONS: &[ExthdrDef] = &[
    ("rr", 7, ROUTE_OPTION_FIELDS),
    ("lsrr", 131, ROUTE_OPTION_FIELDS),
    ("ssrr", 137, ROUTE_OPTION_FIELDS),
    ("ra", 148, &[number_field("type", 0, 8), OPTION_LENGTH, number_field("value", 16, 16)]),
];

const NEXT_HEADER: ExthdrFieldDef = ("nexthdr", 0, 8, DataType::Protocol);
const EXT_HEADER_LENGTH: ExthdrFieldDef = number_field("hdrlength", 8, 8);
const IPV6_EXT_HEADERS: &[ExthdrDef] = &[
    ("hbh", 0, &[NEXT_HEADER, EXT_HEADER_LENGTH]),
    ("rt", 43, &[NEXT_HEADER, EXT_HEADER_LENGTH, number_field("type", 16, 8), number_field("seg-left", 24, 8)]),
    (
        "frag",
        44,
        &[
            NEXT_HEADER,
            number_field("reserved", 8, 8),
            number_field("frag-off", 16, 13),
            number_field("reserved2", 29, 2),
            number_field("more-fragments", 31, 1),
            number_field("id", 32, 32),
        ],
    ),
    ("dst", 60, &[NEXT_HEADER, EXT_HEADER_LENGTH]),
    (
        "mh",
        135,
        &[
            NEXT_HEADER,
            EXT_HEADER_LENGTH,
            ("type", 16, 8, DataType::MobilityType),
            number_field("reserved", 24, 8),
            number_field("checksum", 32, 16),
        ],
    ),
];

/// Routing headers of two types; the kernel does not compare the type. Their addresses have a number.
const ROUTING_HEADERS: &[ExthdrDef] = &[
    ("rt0", ROUTING_HEADER, &[]),
    (
        "srh",
        ROUTING_HEADER,
        &[number_field("last-entry", 32, 8), number_field("flags", 40, 8), number_field("tag", 48, 16)],
    ),
];
const ROUTING_HEADER: u8 = 43;

const CHUNK_TYPE: ExthdrFieldDef = number_field("type", 0, 8);
const CHUNK_FLAGS: ExthdrFieldDef = number_field("flags", 8, 8);
const CHUNK_LENGTH: ExthdrFieldDef = number_field("length", 16, 16);
const CHUNK_HEADER_FIELDS: &[ExthdrFieldDef] = &[CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH];
const INIT_CHUNK_FIELDS: &[ExthdrFieldDef] = &[
    CHUNK_TYPE,
    CHUNK_FLAGS,
    CHUNK_LENGTH,
    number_field("init-tag", 32, 32),
    number_field("a-rwnd", 64, 32),
    number_field("num-outbound-streams", 96, 16),
    number_field("num-inbound-streams", 112, 16),
    number_field("initial-tsn", 128, 32),
];
const SCTP_CHUNKS: &[ExthdrDef] = &[
    (
        "data",
        0,
        &[
            CHUNK_TYPE,
            CHUNK_FLAGS,
            CHUNK_LENGTH,
            number_field("tsn", 32, 32),
            number_field("stream", 64, 16),
            number_field("ssn", 80, 16),
            number_field("ppid", 96, 32),
        ],
    ),
    ("init", 1, INIT_CHUNK_FIELDS),
    ("init-ack", 2, INIT_CHUNK_FIELDS),
    (
        "sack",
        3,
        &[
            CHUNK_TYPE,
            CHUNK_FLAGS,
            CHUNK_LENGTH,
            number_field("cum-tsn-ack", 32, 32),
            number_field("a-rwnd", 64, 32),
            number_field("num-gap-ack-blocks", 96, 16),
            number_field("num-dup-tsns", 112, 16),
        ],
    ),
    ("heartbeat", 4, CHUNK_HEADER_FIELDS),
    ("heartbeat-ack", 5, CHUNK_HEADER_FIELDS),
    ("abort", 6, CHUNK_HEADER_FIELDS),
    ("shutdown", 7, &[CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, number_field("cum-tsn-ack", 32, 32)]),
    ("shutdown-ack", 8, CHUNK_HEADER_FIELDS),
    ("error", 9, CHUNK_HEADER_FIELDS),
    ("cookie-echo", 10, CHUNK_HEADER_FIELDS),
    ("cookie-ack", 11, CHUNK_HEADER_FIELDS),
    ("ecne", 12, &[CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, number_field("lowest-tsn", 32, 32)]),
    ("cwr", 13, &[CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, number_field("lowest-tsn", 32, 32)]),
    ("shutdown-complete", 14, CHUNK_HEADER_FIELDS),
    ("asconf-ack", 128, &[CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, number_field("seqno", 32, 32)]),
    ("forward-tsn", 192, &[CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, number_field("new-cum-tsn", 32, 32)]),
    ("asconf", 193, &[CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, number_field("seqno", 32, 32)]),
];

/// Name and field (`None` for a test whether it exists) of an option, chunk or extension header; `None` for one that has no name.
#[cfg(feature = "json")]
pub(crate) fn exthdr_names(field: &ExthdrField) -> Option<(&'static str, Option<&'static str>)> {
    let all = match field.op {
        ExthdrOp::TcpOptions => TCP_OPTIONS,
        ExthdrOp::Ip4Options => IP4_OPTIONS,
        ExthdrOp::Ipv6ExtHeaders => IPV6_EXT_HEADERS,
        ExthdrOp::SctpChunks => SCTP_CHUNKS,
        ExthdrOp::DccpOptions => return None,
    };
    // nft names the option that it calls echo by its other name.
    let mut same_number = all.iter().filter(|(name, number, _)| *number == field.number && *name != "echo");
    let Some(bits) = field.bits else { return same_number.next().map(|(name, ..)| (*name, None)) };
    same_number.find_map(|(name, _, fields)| {
        let known = fields.iter().find(|(_, from, count, _)| (*from, *count) == (bits.offset, bits.count))?;
        Some((*name, Some(known.0)))
    })
}

/// The field of a segment routing header, as nft calls what both kinds of routing headers have at the same place: its number is that of the others.
#[cfg(feature = "json")]
pub(crate) fn srh_names(field: &ExthdrField) -> Option<(&'static str, Option<String>)> {
    let bits = field.bits.filter(|_| field.op == ExthdrOp::Ipv6ExtHeaders && field.number == ROUTING_HEADER)?;
    if bits.count == 128 && bits.offset >= 64 {
        return Some(("srh", Some(format!("sid[{}]", (bits.offset - 64) / 128 + 1))));
    }
    let (name, _, fields) = ROUTING_HEADERS.iter().find(|(name, ..)| *name == "srh")?;
    let known = fields.iter().find(|(_, from, count, _)| (*from, *count) == (bits.offset, bits.count))?;
    let is_rt = exthdr_names(field).is_some();
    (!is_rt).then(|| (*name, Some(known.0.to_owned())))
}

/// Words that follow a test for presence as they follow any field.
const BEHIND_A_FIELD: &[&str] =
    &["map", "vmap", "set", "and", "or", "xor", "lshift", "rshift", "eq", "ne", "lt", "gt", "le", "ge"];

/// Is it the name of an IPv6 extension header?
pub(super) fn is_ipv6_ext_header(word: &str) -> bool {
    IPV6_EXT_HEADERS.iter().chain(ROUTING_HEADERS).any(|(name, ..)| *name == word)
}

impl Parser<'_> {
    /// After `tcp option`.
    pub(super) fn parse_tcp_option(&mut self) -> ParseResult<ExthdrField> {
        match self.peek() {
            TokenKind::Number(number) => {
                let number = *number;
                let span = self.next_token().span;
                let number =
                    u8::try_from(number).map_err(|_| Diagnostic::new(span, "an option number is at most 255"))?;
                // Of an option without a name, nft takes this field alone.
                if self.eat_keyword("length") {
                    let bits = Some(BitRange::new(8, 8));
                    return Ok(ExthdrField { op: ExthdrOp::TcpOptions, number, bits, data_type: DataType::Number(8) });
                }
                self.presence_test(ExthdrOp::TcpOptions, number)
            }
            // `@34,8,8`: option number, first bit, number of bits.
            TokenKind::SetName(_) => {
                let Token { kind: TokenKind::SetName(number), span } = self.next_token() else {
                    return Err(self.unexpected("an option number"));
                };
                let number = number.parse();
                let number = number.map_err(|_| Diagnostic::new(span, "expected an option number from 0 to 255"))?;
                let (bits, kind) = self.parse_bit_range()?;
                Ok(ExthdrField { op: ExthdrOp::TcpOptions, number, bits: Some(bits), data_type: kind })
            }
            _ => self.parse_exthdr_field(ExthdrOp::TcpOptions, TCP_OPTIONS, "a TCP option"),
        }
    }

    /// The option number after `reset tcp option`.
    pub(super) fn parse_tcp_option_number(&mut self) -> ParseResult<u8> {
        if let TokenKind::Number(_) = self.peek() {
            let span = self.span();
            let number = self.expect_u32("a TCP option")?;
            return u8::try_from(number).map_err(|_| Diagnostic::new(span, "an option number is at most 255"));
        }
        let (word, span) = self.expect_word("a TCP option")?;
        self.find_exthdr_def(TCP_OPTIONS, &word, span, "a TCP option").map(|(_, number, _)| *number)
    }

    /// After `ip option`.
    pub(super) fn parse_ip_option(&mut self) -> ParseResult<ExthdrField> {
        self.parse_exthdr_field(ExthdrOp::Ip4Options, IP4_OPTIONS, "an IPv4 option")
    }

    /// After `sctp chunk`.
    pub(super) fn parse_sctp_chunk(&mut self) -> ParseResult<ExthdrField> {
        self.parse_exthdr_field(ExthdrOp::SctpChunks, SCTP_CHUNKS, "an SCTP chunk")
    }

    /// After `exthdr`.
    pub(super) fn parse_exthdr(&mut self) -> ParseResult<ExthdrField> {
        let (word, span) = self.expect_word("an IPv6 extension header")?;
        let number = self.find_exthdr_def(IPV6_EXT_HEADERS, &word, span, "an IPv6 extension header")?.1;
        self.presence_test(ExthdrOp::Ipv6ExtHeaders, number)
    }

    /// After `dccp option`.
    pub(super) fn parse_dccp_option(&mut self) -> ParseResult<ExthdrField> {
        let span = self.span();
        let number = self.expect_u32("the number of a DCCP option")?;
        let number = u8::try_from(number).map_err(|_| Diagnostic::new(span, "an option number is at most 255"))?;
        self.presence_test(ExthdrOp::DccpOptions, number)
    }

    /// `rt0 addr[1]`, `srh sid[1]`: an address by its number.
    fn parse_routing_address(&mut self) -> ParseResult<Option<ExthdrField>> {
        let field = match self.peek() {
            TokenKind::Ident(header) if header == "rt0" => "addr",
            TokenKind::Ident(header) if header == "srh" => "sid",
            _ => return Ok(None),
        };
        if !matches!(self.peek_second(), TokenKind::Ident(word) if word == field) {
            return Ok(None);
        }
        (0..2).for_each(|_| drop(self.next_token()));
        self.expect_punct("[")?;
        let span = self.span();
        let number = self.expect_u32("the number of an address")?;
        self.expect_punct("]")?;
        // Behind eight bytes; the first one has the number 1.
        let offset = u16::try_from(number).ok().filter(|number| (1..=127).contains(number));
        let offset = offset.map(|number| 64 + (number - 1) * 128);
        let offset = offset.ok_or_else(|| Diagnostic::new(span, "the number of an address is 1 to 127"))?;
        let bits = Some(BitRange::new(offset, 128));
        Ok(Some(ExthdrField {
            op: ExthdrOp::Ipv6ExtHeaders,
            number: ROUTING_HEADER,
            bits,
            data_type: DataType::Address6,
        }))
    }

    /// An extension header's name and field.
    pub(super) fn parse_ipv6_ext_field(&mut self) -> ParseResult<ExthdrField> {
        if let Some(address) = self.parse_routing_address()? {
            return Ok(address);
        }
        if matches!(self.peek(), TokenKind::Ident(word) if ROUTING_HEADERS.iter().any(|(name, ..)| name == word)) {
            return self.parse_exthdr_field(ExthdrOp::Ipv6ExtHeaders, ROUTING_HEADERS, "a routing header");
        }
        self.parse_exthdr_field(ExthdrOp::Ipv6ExtHeaders, IPV6_EXT_HEADERS, "an IPv6 extension header")
    }

    fn parse_exthdr_field(
        &mut self,
        among: ExthdrOp,
        all: &'static [ExthdrDef],
        wanted: &str,
    ) -> ParseResult<ExthdrField> {
        let (word, span) = self.expect_word(wanted)?;
        let (_, number, fields) = self.find_exthdr_def(all, &word, span, wanted)?;
        let tests_presence = match self.peek() {
            TokenKind::Ident(word) => word == "exists" || word == "missing" || BEHIND_A_FIELD.contains(&word.as_str()),
            // `nft -n` lists `exists` as 1; nothing follows in `typeof`.
            TokenKind::Number(_) | TokenKind::Punct(_) | TokenKind::Separator | TokenKind::Eof => true,
            _ => false,
        };
        // Presence of an extension header is `exthdr frag exists`.
        if tests_presence && among != ExthdrOp::Ipv6ExtHeaders {
            return self.presence_test(among, *number);
        }
        let (field, span) = self.expect_word("exists, missing or a field")?;
        match fields.iter().find(|(name, ..)| *name == field) {
            Some((_, from, count, kind)) => Ok(ExthdrField {
                op: among,
                number: *number,
                bits: Some(BitRange::new(*from, *count)),
                data_type: *kind,
            }),
            None => {
                let names: Vec<&str> = fields.iter().map(|(name, ..)| *name).chain(["exists", "missing"]).collect();
                Err(Diagnostic::new(span, format!("{word} has no field `{field}`"))
                    .with_help(format!("fields: {}", names.join(", "))))
            }
        }
    }

    /// A test for presence: `exists` or `missing` follows.
    fn presence_test(&mut self, among: ExthdrOp, number: u8) -> ParseResult<ExthdrField> {
        Ok(ExthdrField { op: among, number, bits: None, data_type: DataType::Boolean })
    }

    fn find_exthdr_def(
        &self,
        all: &'static [ExthdrDef],
        word: &str,
        span: Span,
        wanted: &str,
    ) -> ParseResult<&'static ExthdrDef> {
        all.iter().find(|(name, ..)| *name == word).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
            Diagnostic::new(span, format!("`{word}` is not {wanted}")).with_help(format!("known: {}", names.join(", ")))
        })
    }
}
