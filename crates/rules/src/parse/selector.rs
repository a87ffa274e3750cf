//! Selectors: `ip saddr`, `tcp dport`, `meta mark`, `ct state`, `fib`, `@th,0,16`.
use super::exthdr::is_ipv6_ext_header;
use super::parser::{ParseResult, Parser};
use super::unsupported::UNSUPPORTED_SELECTORS;
use crate::ast::{
    BitRange, CtCounterKey, CtKey, CtTupleField, Endpoint, FibExpr, FibResult, IpField, MetaKey, OsFingerprintKey,
    OsTtlCheck, PayloadBase, PayloadField, RouteKey, Selector, SocketKey, Tunnel, XfrmDirection, XfrmKey,
};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind};
use crate::source::Span;
use keepstate_engine::Direction;

/// Meta keys that need no `meta` in front.
const UNQUALIFIED_META_KEYS: [(&str, MetaKey); 14] = [
    ("iiftype", MetaKey::LinkType(Endpoint::Source)),
    ("oiftype", MetaKey::LinkType(Endpoint::Destination)),
    ("pkttype", MetaKey::PacketType),
    ("time", MetaKey::Time),
    ("hour", MetaKey::Hour),
    ("day", MetaKey::Day),
    ("cpu", MetaKey::Cpu),
    ("iif", MetaKey::Iif),
    ("oif", MetaKey::Oif),
    ("iifname", MetaKey::IifName),
    ("oifname", MetaKey::OifName),
    ("mark", MetaKey::Mark),
    ("iifgroup", MetaKey::Group(Endpoint::Source)),
    ("oifgroup", MetaKey::Group(Endpoint::Destination)),
];

/// The same, of the packet's socket and route.
const UNQUALIFIED_SOCKET_KEYS: [(&str, Selector); 4] = [
    ("skuid", Selector::Socket(SocketKey::UserId)),
    ("skgid", Selector::Socket(SocketKey::GroupId)),
    ("cgroup", Selector::Socket(SocketKey::Cgroup)),
    ("rtclassid", Selector::Meta(MetaKey::Realm)),
];

/// For error messages.
const META_KEYS: &str = "iif, oif, iifname, oifname, iifgroup, oifgroup, iiftype, oiftype, mark, l4proto, nfproto, protocol, length, priority, \
                         pkttype, skuid, skgid, cgroup, rtclassid, random, cpu, ipsec, hour, day, time, sdif, sdifname, iifkind, oifkind";

/// Keywords that start a selector and are followed by a field.
const SELECTOR_KEYWORDS: [&str; 27] = [
    "ip", "ip6", "tcp", "udp", "udplite", "sctp", "dccp", "th", "icmp", "icmpv6", "igmp", "ah", "esp", "comp",
    "exthdr", "meta", "ct", "fib", "socket", "ether", "vlan", "ipsec", "osf", "vxlan", "geneve", "gre", "gretap",
];

/// Does this keyword start a selector?
pub(super) fn is_selector_keyword(word: &str) -> bool {
    SELECTOR_KEYWORDS.contains(&word)
        || is_ipv6_ext_header(word)
        || UNQUALIFIED_META_KEYS.iter().any(|(bare, _)| *bare == word)
        || UNQUALIFIED_SOCKET_KEYS.iter().any(|(bare, _)| *bare == word)
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
        if let Some((_, selector)) = UNQUALIFIED_SOCKET_KEYS.iter().find(|(name, _)| *name == word) {
            self.next_token();
            self.note_unknown_owner(*selector, span);
            return Ok(Some(*selector));
        }
        if let Some((_, why, help)) = UNSUPPORTED_SELECTORS.iter().find(|(name, ..)| *name == word) {
            return Err(Diagnostic::unsupported(span, format!("`{word}` is not supported: {why}")).with_help(*help));
        }
        if is_ipv6_ext_header(&word) {
            if let Some(selector) = self.parse_route_key(&word)? {
                return Ok(Some(selector));
            }
            return self.parse_ipv6_ext_field().map(|piece| Some(Selector::Exthdr(piece)));
        }
        if !SELECTOR_KEYWORDS.contains(&word.as_str()) {
            return Ok(None);
        }
        self.next_token();
        if let Some(tunnel) = Tunnel::from_keyword(&word) {
            return self.parse_tunnel_field(tunnel).map(|field| Some(Selector::Tunnel(field)));
        }
        match word.as_str() {
            "ip" if self.eat_keyword("option") => self.parse_ip_option().map(|piece| Some(Selector::Exthdr(piece))),
            "tcp" if self.eat_keyword("option") => self.parse_tcp_option().map(|piece| Some(Selector::Exthdr(piece))),
            "sctp" if self.eat_keyword("chunk") => self.parse_sctp_chunk().map(|piece| Some(Selector::Exthdr(piece))),
            "dccp" if self.eat_keyword("option") => self.parse_dccp_option().map(|piece| Some(Selector::Exthdr(piece))),
            "ipsec" => self.parse_xfrm().map(Some),
            "osf" => self.parse_osf(span).map(Some),
            "exthdr" => self.parse_exthdr().map(|piece| Some(Selector::Exthdr(piece))),
            "ip" => self.parse_ip_field(true).map(|field| Some(Selector::Ip(field))),
            "ip6" => self.parse_ip_field(false).map(|field| Some(Selector::Ip6(field))),
            "tcp" => self.parse_transport_field(&word, Some(6)).map(Some),
            "udp" => self.parse_transport_field(&word, Some(17)).map(Some),
            "udplite" => self.parse_transport_field(&word, Some(136)).map(Some),
            "sctp" => self.parse_transport_field(&word, Some(132)).map(Some),
            "dccp" => self.parse_transport_field(&word, Some(33)).map(Some),
            "th" => self.parse_transport_field(&word, None).map(Some),
            "ether" | "vlan" => self.parse_link_field(&word).map(|field| Some(Selector::Payload(field))),
            "socket" => self.parse_socket().map(Some),
            "meta" => self.parse_meta().map(Some),
            "ct" => self.parse_ct(span).map(Some),
            "fib" => self.parse_fib().map(|fib| Some(Selector::Fib(fib))),
            _ => self.parse_payload_field(&word).map(|field| Some(Selector::Payload(field))),
        }
    }

    /// `rt` is the IPv6 routing header, or the packet's route.
    fn parse_route_key(&mut self, word: &str) -> ParseResult<Option<Selector>> {
        let key = match self.peek_second() {
            TokenKind::Ident(second) if word == "rt" => second.clone(),
            _ => return Ok(None),
        };
        let selector = match key.as_str() {
            "classid" => Selector::Route(RouteKey::ClassId),
            "ipsec" => Selector::Route(RouteKey::Ipsec),
            "mtu" => Selector::Route(RouteKey::Mss),
            "ip" | "ip6" if self.is_keyword_ahead(2, "nexthop") => {
                self.next_token();
                Selector::Route(if key == "ip6" { RouteKey::NextHop6 } else { RouteKey::NextHop4 })
            }
            "nexthop" => {
                let span = self.next_token().span.to(self.span());
                self.next_token();
                let v6 = self.implied_family(span, "rt ip nexthop")?;
                return Ok(Some(Selector::Route(if v6 { RouteKey::NextHop6 } else { RouteKey::NextHop4 })));
            }
            _ => return Ok(None),
        };
        self.next_token();
        self.next_token();
        Ok(Some(selector))
    }

    /// The family of an address that is written without one: what the rule so far says, IPv6 or not.
    fn implied_family(&self, span: Span, example: &str) -> ParseResult<bool> {
        self.rule_context.as_ref().and_then(|context| context.v6).ok_or_else(|| {
            Diagnostic::new(span, "the address has no family, and nothing before it tells which packets it is for")
                .with_help(format!("write its family: `{example}`, or ip6"))
        })
    }

    /// As in nft, a connection's address is looked up in a set or a map with its family only.
    pub(super) fn require_qualified(&self) -> ParseResult<()> {
        match self.unqualified {
            Some(span) => Err(Diagnostic::new(span, "an address that is looked up in a set or a map needs its family")
                .with_help("write `ct original ip saddr` or `ct original ip6 saddr`")),
            None => Ok(()),
        }
    }

    /// After `ipsec`: `in|out [spnum N] reqid|spi`, or `… ip|ip6 saddr|daddr`.
    fn parse_xfrm(&mut self) -> ParseResult<Selector> {
        let (word, span) = self.expect_word("in or out")?;
        let direction = match word.as_str() {
            "in" => XfrmDirection::In,
            "out" => XfrmDirection::Out,
            _ => return Err(Diagnostic::new(span, format!("expected in or out, found `{word}`"))),
        };
        let mut number = 0;
        if self.eat_keyword("spnum") {
            let span = self.span();
            number = u8::try_from(self.expect_u32("the number of a state")?)
                .map_err(|_| Diagnostic::new(span, "the number of an IPsec state is at most 255"))?;
        }
        let (word, span) = self.expect_word("reqid, spi, ip or ip6")?;
        let key = match word.as_str() {
            "reqid" => XfrmKey::RequestId,
            "spi" => XfrmKey::Spi,
            "ip" | "ip6" => {
                let (field, span) = self.expect_word("saddr or daddr")?;
                let end = match field.as_str() {
                    "saddr" => Endpoint::Source,
                    "daddr" => Endpoint::Destination,
                    _ => return Err(Diagnostic::new(span, format!("expected saddr or daddr, found `{field}`"))),
                };
                if word == "ip6" { XfrmKey::Address6(end) } else { XfrmKey::Address4(end) }
            }
            _ => return Err(Diagnostic::new(span, format!("expected reqid, spi, ip or ip6, found `{word}`"))),
        };
        Ok(Selector::Xfrm(key, direction, number))
    }

    /// After `osf`: `[ttl loose|skip] name|version`.
    fn parse_osf(&mut self, start: Span) -> ParseResult<Selector> {
        let mut key = OsFingerprintKey { version: false, ttl: OsTtlCheck::default() };
        if self.eat_keyword("ttl") {
            let (word, span) = self.expect_word("loose or skip")?;
            key.ttl = match word.as_str() {
                "loose" => OsTtlCheck::Loose,
                "skip" => OsTtlCheck::Skip,
                _ => {
                    return Err(Diagnostic::new(span, format!("`{word}` is no way to compare the TTL"))
                        .with_help("use loose or skip, or leave it out"));
                }
            };
        }
        let (word, span) = self.expect_word("name or version")?;
        key.version = match word.as_str() {
            "name" => false,
            "version" => true,
            _ => {
                return Err(Diagnostic::new(span, format!("osf has no key `{word}`")).with_help("use name or version"));
            }
        };
        let what = "no fingerprints of systems are loaded: every SYN is \"unknown\" for osf";
        let help = "the rule does what it does in Linux without nft's file pf.os; match TCP options, or addresses";
        self.note(Diagnostic::new(start.to(span), what).with_help(help));
        Ok(Selector::OsFingerprint(key))
    }

    /// Of a socket's owner the user alone is known here.
    fn note_unknown_owner(&mut self, selector: Selector, span: Span) {
        let what = match selector {
            Selector::Socket(SocketKey::GroupId) => "skgid never matches here: the group of a socket is not known",
            Selector::Socket(SocketKey::Cgroup) => {
                "cgroup never matches here: the control group of a socket is not known"
            }
            Selector::Socket(SocketKey::CgroupV2) => {
                "socket cgroupv2 never matches here: the control group of a socket is not known"
            }
            _ => return,
        };
        let help = "match the user (skuid, with --interface in the output chain), or ports and addresses";
        self.note(Diagnostic::new(span, what).with_help(help));
    }

    /// After `socket`.
    fn parse_socket(&mut self) -> ParseResult<Selector> {
        let (word, span) = self.expect_word("transparent, mark or wildcard")?;
        Ok(Selector::Socket(match word.as_str() {
            "transparent" => SocketKey::Transparent,
            "mark" => SocketKey::Mark,
            "wildcard" => SocketKey::Wildcard,
            "cgroupv2" => {
                self.expect_keyword("level")?;
                let level_span = self.span();
                let level = self.expect_u32("a level")?;
                if level > 255 {
                    return Err(Diagnostic::new(level_span, "the level of a control group is at most 255"));
                }
                self.note_unknown_owner(Selector::Socket(SocketKey::CgroupV2), span);
                SocketKey::CgroupV2
            }
            _ => {
                return Err(Diagnostic::new(span, format!("unknown socket key `{word}`"))
                    .with_help("use transparent, mark, wildcard or cgroupv2"));
            }
        }))
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
            "ll" => PayloadBase::Link,
            _ => {
                return Err(
                    Diagnostic::new(span, format!("unknown header `@{layer}`")).with_help("use @ll, @nh, @th or @ih")
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
        let (word, span) = self.expect_word("a header field")?;
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

    fn parse_meta(&mut self) -> ParseResult<Selector> {
        let (word, span) = self.expect_word("a meta key")?;
        if let Some((_, selector)) = UNQUALIFIED_SOCKET_KEYS.iter().find(|(name, _)| *name == word) {
            self.note_unknown_owner(*selector, span);
            return Ok(*selector);
        }
        Ok(Selector::Meta(match word.as_str() {
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
            "hour" => MetaKey::Hour,
            "day" => MetaKey::Day,
            "time" => MetaKey::Time,
            "iifgroup" => MetaKey::Group(Endpoint::Source),
            "oifgroup" => MetaKey::Group(Endpoint::Destination),
            "iiftype" => MetaKey::LinkType(Endpoint::Source),
            "oiftype" => MetaKey::LinkType(Endpoint::Destination),
            "ipsec" | "secpath" => MetaKey::Ipsec,
            "sdif" => MetaKey::Sdif,
            "sdifname" => MetaKey::SdifName,
            "iifkind" => MetaKey::Kind(Endpoint::Source),
            "oifkind" => MetaKey::Kind(Endpoint::Destination),
            "secmark" => {
                return Err(Diagnostic::new(span, "a security mark is compared with nothing")
                    .with_help("write `meta secmark set ct secmark`, or leave it out"));
            }
            "nftrace" | "ibrname" | "obrname" | "ibrpvid" | "ibrvproto" => {
                let (why, help) = match word.as_str() {
                    "nftrace" => ("only setting it is", "write `meta nftrace set 1` where the tracing is to begin"),
                    _ => (
                        "what passes between the ports of a bridge is the kernel's",
                        "match the bridge itself by iifname or oifname",
                    ),
                };
                return Err(
                    Diagnostic::unsupported(span, format!("meta {word} is not supported: {why}")).with_help(help)
                );
            }
            _ => {
                return Err(Diagnostic::new(span, format!("unknown meta key `{word}`"))
                    .with_help(format!("supported: {META_KEYS}")));
            }
        }))
    }

    fn parse_ct(&mut self, start: Span) -> ParseResult<Selector> {
        let direction = if self.eat_keyword("original") {
            Some(Direction::Original)
        } else if self.eat_keyword("reply") {
            Some(Direction::Reply)
        } else {
            None
        };
        let mut v6 = self.eat_keyword("ip6");
        let qualified = v6 || self.eat_keyword("ip");
        let (word, span) = self.expect_word("a ct key")?;
        if matches!(word.as_str(), "saddr" | "daddr") && direction.is_some() && !qualified {
            let start = start.to(span);
            v6 = self.implied_family(start, &format!("ct original ip {word}"))?;
            self.unqualified = Some(start);
        }
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
                return Err(Diagnostic::new(span, format!("unknown ct key `{word}`")).with_help(
                    "supported: state, direction, status, mark, zone, expiration, helper, label, id, packets, bytes, avgpkt, and original or reply with saddr, daddr, proto-src, proto-dst",
                ));
            }
        };
        Ok(selector)
    }

    /// `saddr . iif oif`, `daddr type`.
    fn parse_fib(&mut self) -> ParseResult<FibExpr> {
        let (word, span) = self.expect_word("saddr or daddr")?;
        let end = match word.as_str() {
            "saddr" => Endpoint::Source,
            "daddr" => Endpoint::Destination,
            _ => {
                return Err(Diagnostic::new(span, format!("`fib {word}` is not possible"))
                    .with_help("use fib saddr or fib daddr"));
            }
        };
        let mut fib = FibExpr { endpoint: end, iif: false, oif: false, mark: false, result: FibResult::AddressType };
        while self.eat_punct(".") {
            let (word, span) = self.expect_word("iif, oif or mark")?;
            match word.as_str() {
                "iif" => fib.iif = true,
                "oif" => fib.oif = true,
                "mark" => fib.mark = true,
                _ => {
                    return Err(Diagnostic::new(span, format!("`{word}` cannot be a fib key"))
                        .with_help("use iif, oif or mark"));
                }
            }
        }
        let (name, span) = self.expect_word("type, oif or oifname")?;
        fib.result = match name.as_str() {
            "type" => FibResult::AddressType,
            "oif" => FibResult::Oif,
            "oifname" => FibResult::OifName,
            // Newer nft lists `oif exists` so; `exists` or `missing` follows.
            "check" => FibResult::Oif,
            _ => {
                return Err(
                    Diagnostic::new(span, format!("unknown fib result `{name}`")).with_help("use type, oif or oifname")
                );
            }
        };
        Ok(fib)
    }
}
