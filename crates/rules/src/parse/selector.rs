//! Selectors: `ip saddr`, `tcp dport`, `meta mark`, `ct state`, `fib`, `@th,0,16`.
use super::exthdr::is_ipv6_ext_header;
use super::parser::{ParseResult, Parser};
use crate::ast::{
    BitRange, CtCounterKey, CtKey, CtTupleField, Endpoint, FibExpr, FibResult, IpField, MetaKey, PayloadBase,
    PayloadField, Selector,
};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind};
use crate::source::Span;
use keepstate_engine::Direction;

/// Meta keys that need no `meta` in front.
const UNQUALIFIED_META_KEYS: [(&str, MetaKey); 9] = [
    ("pkttype", MetaKey::PacketType),
    ("cpu", MetaKey::Cpu),
    ("iif", MetaKey::Iif),
    ("oif", MetaKey::Oif),
    ("iifname", MetaKey::IifName),
    ("oifname", MetaKey::OifName),
    ("mark", MetaKey::Mark),
    ("iifgroup", MetaKey::Group(Endpoint::Source)),
    ("oifgroup", MetaKey::Group(Endpoint::Destination)),
];

/// Selectors that are not supported, with a hint.
const UNSUPPORTED_SELECTORS: [(&str, &str); 11] = [
    ("ether", "link layer addresses are not visible here: match the interface or the IP address"),
    ("vlan", "match the VLAN interface: iifname \"eth0.10\""),
    ("arp", "ARP is handled by the kernel: use an arp table there"),
    ("socket", "sockets are not visible here: match addresses and ports"),
    ("osf", "match addresses, ports or TCP options"),
    ("ipsec", "match esp, or the tunnel interface"),
    ("tunnel", "match the tunnel interface"),
    ("rt0", "use rt type 0; a router drops such packets"),
    ("rt2", "use rt type 2"),
    ("rt4", "use rt type 4"),
    ("srh", "use rt type 4"),
];

/// Keywords that start a selector and are followed by a field.
const SELECTOR_KEYWORDS: [&str; 18] = [
    "ip", "ip6", "tcp", "udp", "udplite", "sctp", "dccp", "th", "icmp", "icmpv6", "igmp", "ah", "esp", "comp",
    "exthdr", "meta", "ct", "fib",
];

/// Does this keyword start a selector?
pub(super) fn is_selector_keyword(word: &str) -> bool {
    SELECTOR_KEYWORDS.contains(&word)
        || is_ipv6_ext_header(word)
        || UNQUALIFIED_META_KEYS.iter().any(|(bare, _)| *bare == word)
}

impl Parser<'_> {
    /// A selector, if one is next.
    pub(super) fn parse_selector(&mut self) -> ParseResult<Option<Selector>> {
        if matches!(self.peek(), TokenKind::SetName(_)) && matches!(self.peek_second(), TokenKind::Punct(",")) {
            return self.parse_raw_payload().map(Some);
        }
        let TokenKind::Ident(word) = self.peek() else { return Ok(None) };
        let word = word.clone();
        let span = self.span();
        if let Some((_, meta)) = UNQUALIFIED_META_KEYS.iter().find(|(name, _)| *name == word) {
            self.next_token();
            return Ok(Some(Selector::Meta(*meta)));
        }
        if let Some((_, help)) = UNSUPPORTED_SELECTORS.iter().find(|(name, _)| *name == word) {
            return Err(Diagnostic::new(span, format!("`{word}` is not supported")).with_help(*help));
        }
        if is_ipv6_ext_header(&word) {
            self.reject_rt_expression(&word)?;
            return self.parse_ipv6_ext_field().map(|piece| Some(Selector::Exthdr(piece)));
        }
        if !SELECTOR_KEYWORDS.contains(&word.as_str()) {
            return Ok(None);
        }
        self.next_token();
        match word.as_str() {
            "ip" if self.eat_keyword("option") => self.parse_ip_option().map(|piece| Some(Selector::Exthdr(piece))),
            "tcp" if self.eat_keyword("option") => self.parse_tcp_option().map(|piece| Some(Selector::Exthdr(piece))),
            "sctp" if self.eat_keyword("chunk") => self.parse_sctp_chunk().map(|piece| Some(Selector::Exthdr(piece))),
            "exthdr" => self.parse_exthdr().map(|piece| Some(Selector::Exthdr(piece))),
            "ip" => self.parse_ip_field(true).map(|field| Some(Selector::Ip(field))),
            "ip6" => self.parse_ip_field(false).map(|field| Some(Selector::Ip6(field))),
            "tcp" => self.parse_transport_field(&word, Some(6)).map(Some),
            "udp" => self.parse_transport_field(&word, Some(17)).map(Some),
            "udplite" => self.parse_transport_field(&word, Some(136)).map(Some),
            "sctp" => self.parse_transport_field(&word, Some(132)).map(Some),
            "dccp" => self.parse_transport_field(&word, Some(33)).map(Some),
            "th" => self.parse_transport_field(&word, None).map(Some),
            "meta" => self.parse_meta().map(|meta| Some(Selector::Meta(meta))),
            "ct" => self.parse_ct(span).map(Some),
            "fib" => self.parse_fib().map(|fib| Some(Selector::Fib(fib))),
            _ => self.parse_payload_field(&word).map(|field| Some(Selector::Payload(field))),
        }
    }

    /// `rt` is the IPv6 routing header; nft also has an expression of that name for the packet's route.
    fn reject_rt_expression(&mut self, word: &str) -> ParseResult<()> {
        let of_route = match self.peek_second() {
            TokenKind::Ident(second) => {
                matches!(second.as_str(), "classid" | "nexthop" | "mtu" | "ip" | "ip6" | "ipsec")
            }
            _ => false,
        };
        if word == "rt" && of_route {
            let span = self.span();
            return Err(Diagnostic::new(span, "the expression `rt` (the packet's route) is not supported")
                .with_help("use oifname or fib daddr oifname; for MSS clamping: tcp option maxseg size set rt mtu"));
        }
        Ok(())
    }

    /// `@th,0,16`: header, first bit, number of bits.
    fn parse_raw_payload(&mut self) -> ParseResult<Selector> {
        let Token { kind: TokenKind::SetName(layer), span } = self.next_token() else {
            return Err(self.unexpected("@nh, @th or @ih"));
        };
        let layer = match layer.as_str() {
            "nh" => PayloadBase::Network,
            "th" => PayloadBase::Transport,
            "ih" => PayloadBase::Inner,
            "ll" => {
                return Err(Diagnostic::new(span, "@ll is not supported: link layer headers are not visible here")
                    .with_help("match the interface or the IP address"));
            }
            _ => {
                return Err(
                    Diagnostic::new(span, format!("unknown header `@{layer}`")).with_help("use @nh, @th or @ih")
                );
            }
        };
        let (bits, kind) = self.parse_bit_range()?;
        Ok(Selector::Payload(PayloadField {
            base: layer,
            bits,
            data_type: kind,
            protocol: None,
            v6: None,
            icmp_types: &[],
        }))
    }

    /// `,0,16`: first bit, number of bits.
    pub(super) fn parse_bit_range(&mut self) -> ParseResult<(BitRange, DataType)> {
        self.expect_punct(",")?;
        let at = self.span();
        let from = self.expect_u32("the first bit")?;
        let from = u16::try_from(from).map_err(|_| Diagnostic::new(at, "this offset is too large"))?;
        self.expect_punct(",")?;
        let at = self.span();
        let count = self.expect_u32("a number of bits")?;
        let count = u8::try_from(count).ok().filter(|count| (1..=128).contains(count));
        let count = count.ok_or_else(|| Diagnostic::new(at, "the number of bits must be 1 to 128"))?;
        Ok((BitRange::new(from, count), DataType::Number(count)))
    }

    fn parse_ip_field(&mut self, v4: bool) -> ParseResult<IpField> {
        let (word, span) = self.expect_name("a header field")?;
        Ok(match (word.as_str(), v4) {
            ("saddr", _) => IpField::Source,
            ("daddr", _) => IpField::Destination,
            ("protocol", true) | ("nexthdr", false) => IpField::Protocol,
            ("dscp", _) => IpField::Dscp,
            ("ecn", _) => IpField::Ecn,
            ("length", _) => IpField::Length,
            ("ttl", true) | ("hoplimit", false) => IpField::Ttl,
            ("version", _) => IpField::Version,
            ("checksum", true) => IpField::Checksum,
            ("id", true) => IpField::Id,
            ("frag-off", true) => IpField::Fragment,
            ("hdrlength", true) => IpField::HeaderLength,
            ("flowlabel", false) => IpField::FlowLabel,
            _ => {
                let list = match v4 {
                    true => {
                        "saddr, daddr, protocol, dscp, ecn, length, ttl, id, frag-off, checksum, version, hdrlength"
                    }
                    false => "saddr, daddr, nexthdr, dscp, ecn, length, hoplimit, flowlabel, version",
                };
                let header = if v4 { "ip" } else { "ip6" };
                return Err(Diagnostic::new(span, format!("{header} has no field `{word}`"))
                    .with_help(format!("fields: {list}")));
            }
        })
    }

    fn parse_transport_field(&mut self, header: &str, protocol: Option<u8>) -> ParseResult<Selector> {
        if self.eat_keyword("sport") {
            return Ok(Selector::Port(protocol, Endpoint::Source));
        }
        if self.eat_keyword("dport") {
            return Ok(Selector::Port(protocol, Endpoint::Destination));
        }
        self.parse_payload_field(header).map(Selector::Payload)
    }

    fn parse_meta(&mut self) -> ParseResult<MetaKey> {
        let (word, span) = self.expect_name("a meta key")?;
        Ok(match word.as_str() {
            "iif" => MetaKey::Iif,
            "oif" => MetaKey::Oif,
            "iifname" => MetaKey::IifName,
            "oifname" => MetaKey::OifName,
            "mark" => MetaKey::Mark,
            "l4proto" => MetaKey::L4Proto,
            "nfproto" => MetaKey::NfProto,
            "protocol" => MetaKey::Protocol,
            "length" => MetaKey::Length,
            "priority" => MetaKey::Priority,
            "pkttype" => MetaKey::PacketType,
            "random" => MetaKey::Random,
            "cpu" => MetaKey::Cpu,
            "skuid" | "skgid" | "cgroup" => {
                return Err(Diagnostic::new(
                    span,
                    format!("meta {word} is not supported: sockets are not visible here"),
                )
                .with_help("match addresses, ports or marks"));
            }
            "hour" => MetaKey::Hour,
            "day" => MetaKey::Day,
            "time" => MetaKey::Time,
            "iifgroup" => MetaKey::Group(Endpoint::Source),
            "oifgroup" => MetaKey::Group(Endpoint::Destination),
            "ipsec" | "secpath" => MetaKey::Ipsec,
            _ => {
                return Err(Diagnostic::new(span, format!("meta {word} is not supported")).with_help(
                    "supported: iif, oif, iifname, oifname, iifgroup, oifgroup, mark, l4proto, nfproto, protocol, length, priority, pkttype, random, hour, day, time",
                ));
            }
        })
    }

    fn parse_ct(&mut self, start: Span) -> ParseResult<Selector> {
        let direction = if self.eat_keyword("original") {
            Some(Direction::Original)
        } else if self.eat_keyword("reply") {
            Some(Direction::Reply)
        } else {
            None
        };
        let v6 = self.eat_keyword("ip6");
        if !v6 {
            self.eat_keyword("ip");
        }
        let (word, span) = self.expect_name("a ct key")?;
        let tuple = |field| Selector::CtTuple(direction, field);
        let selector = match (word.as_str(), direction) {
            ("saddr", Some(_)) => tuple(if v6 { CtTupleField::Source6 } else { CtTupleField::Source4 }),
            ("daddr", Some(_)) => tuple(if v6 { CtTupleField::Destination6 } else { CtTupleField::Destination4 }),
            ("proto-src", Some(_)) => tuple(CtTupleField::SourcePort),
            ("proto-dst", Some(_)) => tuple(CtTupleField::DestinationPort),
            ("protocol", _) => tuple(CtTupleField::Protocol),
            ("l3proto", _) => tuple(CtTupleField::L3Proto),
            ("packets", _) => Selector::CtCounter(direction, CtCounterKey::Packets),
            ("bytes", _) => Selector::CtCounter(direction, CtCounterKey::Bytes),
            ("avgpkt", _) => Selector::CtCounter(direction, CtCounterKey::AvgPacketSize),
            ("zone", _) => Selector::Ct(CtKey::Zone(direction)),
            ("saddr" | "daddr" | "proto-src" | "proto-dst", None) => {
                return Err(Diagnostic::new(start.to(span), format!("ct {word} needs a direction"))
                    .with_help(format!("use `ct original {word}` or `ct reply {word}`")));
            }
            ("state", None) => Selector::Ct(CtKey::State),
            ("direction", None) => Selector::Ct(CtKey::Direction),
            ("status", None) => Selector::Ct(CtKey::Status),
            ("mark", None) => Selector::Ct(CtKey::Mark),
            ("expiration", None) => Selector::Ct(CtKey::Expiration),
            ("helper", None) => Selector::Ct(CtKey::Helper),
            ("label", None) => Selector::Ct(CtKey::Label),
            ("id", None) => Selector::Ct(CtKey::Id),
            _ => {
                return Err(Diagnostic::new(span, format!("ct {word} is not supported")).with_help(
                    "supported: state, direction, status, mark, zone, expiration, helper, label, id, packets, bytes, avgpkt, and original or reply with saddr, daddr, proto-src, proto-dst",
                ));
            }
        };
        Ok(selector)
    }

    /// `saddr . iif oif`, `daddr type`.
    fn parse_fib(&mut self) -> ParseResult<FibExpr> {
        let (word, span) = self.expect_name("saddr or daddr")?;
        let end = match word.as_str() {
            "saddr" => Endpoint::Source,
            "daddr" => Endpoint::Destination,
            _ => {
                return Err(Diagnostic::new(span, format!("`fib {word}` is not possible"))
                    .with_help("use fib saddr or fib daddr"));
            }
        };
        let mut fib = FibExpr { endpoint: end, iif: false, oif: false, result: FibResult::AddressType };
        while self.eat_punct(".") {
            let (word, span) = self.expect_name("iif, oif or mark")?;
            match word.as_str() {
                "iif" => fib.iif = true,
                "oif" => fib.oif = true,
                // There is one routing table, independent of the mark.
                "mark" => (),
                _ => {
                    return Err(Diagnostic::new(span, format!("`{word}` cannot be a fib key"))
                        .with_help("use iif, oif or mark"));
                }
            }
        }
        let (name, span) = self.expect_name("type, oif or oifname")?;
        fib.result = match name.as_str() {
            "type" => FibResult::AddressType,
            "oif" => FibResult::Oif,
            "oifname" => FibResult::OifName,
            _ => {
                return Err(
                    Diagnostic::new(span, format!("unknown fib result `{name}`")).with_help("use type, oif or oifname")
                );
            }
        };
        Ok(fib)
    }
}
