//! What a rule looks at, by the words of the language.
use super::piece::is_extension;
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::Kind;
use crate::source::Span;
use crate::token::{Token, Word};
use crate::tree::{BitRange, Counted, Ct, End, Fib, FibTell, Field, IpField, Layer, Meta, Selector, TupleField};
use keepstate_engine::Direction;

/// Words that begin a selector, though no other word has to follow.
const BARE: [(&str, Meta); 9] = [
    ("pkttype", Meta::PacketType),
    ("cpu", Meta::Cpu),
    ("iif", Meta::Iif),
    ("oif", Meta::Oif),
    ("iifname", Meta::IifName),
    ("oifname", Meta::OifName),
    ("mark", Meta::Mark),
    ("iifgroup", Meta::Group(End::Source)),
    ("oifgroup", Meta::Group(End::Destination)),
];

/// What is not supported, and what to write instead.
const REFUSED: [(&str, &str); 11] = [
    ("ether", "addresses of links are not seen by a router: match the interface, or the IP address"),
    ("vlan", "match the VLAN's interface: iifname \"eth0.10\""),
    ("arp", "ARP is the kernel's"),
    ("socket", "sockets are the kernel's: match addresses and ports"),
    ("osf", "match what you mean by addresses, ports or TCP options"),
    ("ipsec", "match esp, or the interface of the tunnel"),
    ("tunnel", "match the tunnel's interface"),
    ("rt0", "match rt type 0: routers drop such datagrams whole"),
    ("rt2", "match rt type 2"),
    ("rt4", "match rt type 4"),
    ("srh", "match rt type 4"),
];

/// Words that begin a selector and are followed by another.
const HEADERS: [&str; 18] = [
    "ip", "ip6", "tcp", "udp", "udplite", "sctp", "dccp", "th", "icmp", "icmpv6", "igmp", "ah", "esp", "comp",
    "exthdr", "meta", "ct", "fib",
];

/// Is it one of the words that a selector begins with?
pub(super) fn begins_selector(word: &str) -> bool {
    HEADERS.contains(&word) || is_extension(word) || BARE.iter().any(|(bare, _)| *bare == word)
}

impl Parser<'_> {
    /// A selector, if one is next.
    pub(super) fn selector(&mut self) -> Parsed<Option<Selector>> {
        if matches!(self.peek(), Word::Set(_)) && matches!(self.second(), Word::Sign(",")) {
            return self.bits_of_header().map(Some);
        }
        let Word::Name(word) = self.peek() else { return Ok(None) };
        let word = word.clone();
        let span = self.span();
        if let Some((_, meta)) = BARE.iter().find(|(name, _)| *name == word) {
            self.next();
            return Ok(Some(Selector::Meta(*meta)));
        }
        if let Some((_, instead)) = REFUSED.iter().find(|(name, _)| *name == word) {
            return Err(Fault::new(span, format!("{word} is not supported")).instead(*instead));
        }
        if is_extension(&word) {
            self.routes_are_not_asked(&word)?;
            return self.extension_field().map(|piece| Some(Selector::Piece(piece)));
        }
        if !HEADERS.contains(&word.as_str()) {
            return Ok(None);
        }
        self.next();
        match word.as_str() {
            "ip" if self.takes("option") => self.ip_option().map(|piece| Some(Selector::Piece(piece))),
            "tcp" if self.takes("option") => self.tcp_option().map(|piece| Some(Selector::Piece(piece))),
            "sctp" if self.takes("chunk") => self.chunk().map(|piece| Some(Selector::Piece(piece))),
            "exthdr" => self.extension().map(|piece| Some(Selector::Piece(piece))),
            "ip" => self.ip_field(true).map(|field| Some(Selector::Ip(field))),
            "ip6" => self.ip_field(false).map(|field| Some(Selector::Ip6(field))),
            "tcp" => self.ported(&word, Some(6)).map(Some),
            "udp" => self.ported(&word, Some(17)).map(Some),
            "udplite" => self.ported(&word, Some(136)).map(Some),
            "sctp" => self.ported(&word, Some(132)).map(Some),
            "dccp" => self.ported(&word, Some(33)).map(Some),
            "th" => self.ported(&word, None).map(Some),
            "meta" => self.meta().map(|meta| Some(Selector::Meta(meta))),
            "ct" => self.ct(span).map(Some),
            "fib" => self.fib().map(|fib| Some(Selector::Fib(fib))),
            _ => self.field(&word).map(|field| Some(Selector::Field(field))),
        }
    }

    /// `rt` is an extension header of IPv6, and in the kernel's nftables also the packet's route.
    fn routes_are_not_asked(&mut self, word: &str) -> Parsed<()> {
        let of_route = match self.second() {
            Word::Name(second) => matches!(second.as_str(), "classid" | "nexthop" | "mtu" | "ip" | "ip6" | "ipsec"),
            _ => false,
        };
        if word == "rt" && of_route {
            let span = self.span();
            return Err(Fault::new(span, "rt: a packet's route is not asked for by rules")
                .instead("oifname, fib daddr oifname; for MSS clamping: tcp option maxseg size set rt mtu"));
        }
        Ok(())
    }

    /// `@th,0,16`: a header, the first bit in it, how many bits.
    fn bits_of_header(&mut self) -> Parsed<Selector> {
        let Token { kind: Word::Set(layer), span } = self.next() else { return Err(self.unexpected("a header")) };
        let layer = match layer.as_str() {
            "nh" => Layer::Network,
            "th" => Layer::Transport,
            "ih" => Layer::Inner,
            "ll" => {
                return Err(Fault::new(span, "@ll: headers of links are not seen by a router")
                    .instead("match the interface, or the IP address"));
            }
            _ => return Err(Fault::new(span, format!("@{layer}: no such header")).instead("@nh, @th or @ih")),
        };
        let (bits, kind) = self.bit_range()?;
        Ok(Selector::Field(Field { layer, bits, kind, protocol: None, v6: None, types: &[] }))
    }

    /// `,0,16`: the first bit, and how many.
    pub(super) fn bit_range(&mut self) -> Parsed<(BitRange, Kind)> {
        self.sign(",")?;
        let at = self.span();
        let from = self.number32("the first bit")?;
        let from = u16::try_from(from).map_err(|_| Fault::new(at, "no header is that long"))?;
        self.sign(",")?;
        let at = self.span();
        let count = self.number32("a number of bits")?;
        let count = u8::try_from(count).ok().filter(|count| (1..=128).contains(count));
        let count = count.ok_or_else(|| Fault::new(at, "from 1 to 128 bits can be looked at"))?;
        Ok((BitRange::new(from, count), Kind::Number(count)))
    }

    fn ip_field(&mut self, v4: bool) -> Parsed<IpField> {
        let (word, span) = self.name("a field of the header")?;
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
                return Err(Fault::new(span, format!("{word}: no such field")).instead(list));
            }
        })
    }

    fn ported(&mut self, header: &str, protocol: Option<u8>) -> Parsed<Selector> {
        if self.takes("sport") {
            return Ok(Selector::Port(protocol, End::Source));
        }
        if self.takes("dport") {
            return Ok(Selector::Port(protocol, End::Destination));
        }
        self.field(header).map(Selector::Field)
    }

    fn meta(&mut self) -> Parsed<Meta> {
        let (word, span) = self.name("what of the packet")?;
        Ok(match word.as_str() {
            "iif" => Meta::Iif,
            "oif" => Meta::Oif,
            "iifname" => Meta::IifName,
            "oifname" => Meta::OifName,
            "mark" => Meta::Mark,
            "l4proto" => Meta::L4Proto,
            "nfproto" => Meta::NfProto,
            "protocol" => Meta::Protocol,
            "length" => Meta::Length,
            "priority" => Meta::Priority,
            "pkttype" => Meta::PacketType,
            "random" => Meta::Random,
            "cpu" => Meta::Cpu,
            "skuid" | "skgid" | "cgroup" => {
                return Err(Fault::new(span, format!("meta {word} asks for a socket, and the gateway has none"))
                    .instead("match addresses, ports or marks"));
            }
            "hour" => Meta::Hour,
            "day" => Meta::Day,
            "time" => Meta::Time,
            "iifgroup" => Meta::Group(End::Source),
            "oifgroup" => Meta::Group(End::Destination),
            "ipsec" | "secpath" => Meta::Ipsec,
            _ => {
                return Err(Fault::new(span, format!("meta {word} is not supported")).instead(
                    "iif, oif, iifname, oifname, iifgroup, oifgroup, mark, l4proto, nfproto, protocol, length, priority, pkttype, random, hour, day, time",
                ));
            }
        })
    }

    fn ct(&mut self, start: Span) -> Parsed<Selector> {
        let direction = if self.takes("original") {
            Some(Direction::Original)
        } else if self.takes("reply") {
            Some(Direction::Reply)
        } else {
            None
        };
        let v6 = self.takes("ip6");
        if !v6 {
            self.takes("ip");
        }
        let (word, span) = self.name("what of the connection")?;
        let tuple = |field| Selector::Tuple(direction, field);
        let selector = match (word.as_str(), direction) {
            ("saddr", Some(_)) => tuple(if v6 { TupleField::Source6 } else { TupleField::Source4 }),
            ("daddr", Some(_)) => tuple(if v6 { TupleField::Destination6 } else { TupleField::Destination4 }),
            ("proto-src", Some(_)) => tuple(TupleField::SourcePort),
            ("proto-dst", Some(_)) => tuple(TupleField::DestinationPort),
            ("protocol", _) => tuple(TupleField::Protocol),
            ("l3proto", _) => tuple(TupleField::L3Proto),
            ("packets", _) => Selector::Count(direction, Counted::Packets),
            ("bytes", _) => Selector::Count(direction, Counted::Octets),
            ("avgpkt", _) => Selector::Count(direction, Counted::Average),
            ("zone", _) => Selector::Ct(Ct::Zone),
            ("saddr" | "daddr" | "proto-src" | "proto-dst", None) => {
                return Err(Fault::new(start.to(span), format!("ct {word} of which direction?"))
                    .instead(format!("ct original {word}, or ct reply {word}")));
            }
            ("state", None) => Selector::Ct(Ct::State),
            ("direction", None) => Selector::Ct(Ct::Direction),
            ("status", None) => Selector::Ct(Ct::Status),
            ("mark", None) => Selector::Ct(Ct::Mark),
            ("expiration", None) => Selector::Ct(Ct::Expiration),
            ("helper", None) => Selector::Ct(Ct::Helper),
            ("label", None) => Selector::Ct(Ct::Label),
            ("id", None) => Selector::Ct(Ct::Id),
            _ => {
                return Err(Fault::new(span, format!("ct {word} is not supported")).instead(
                    "state, direction, status, mark, zone, expiration, helper, label, id, packets, bytes, avgpkt, and original or reply with saddr, daddr, proto-src, proto-dst",
                ));
            }
        };
        Ok(selector)
    }

    /// `saddr . iif oif`, `daddr type`.
    fn fib(&mut self) -> Parsed<Fib> {
        let (word, span) = self.name("saddr or daddr")?;
        let end = match word.as_str() {
            "saddr" => End::Source,
            "daddr" => End::Destination,
            _ => return Err(Fault::new(span, format!("fib {word}: whose route?")).instead("fib saddr or fib daddr")),
        };
        let mut fib = Fib { end, iif: false, oif: false, tell: FibTell::Type };
        while self.takes_sign(".") {
            let (word, span) = self.name("iif, oif or mark")?;
            match word.as_str() {
                "iif" => fib.iif = true,
                "oif" => fib.oif = true,
                // There is one table of routes here, whatever the mark.
                "mark" => (),
                _ => {
                    return Err(Fault::new(span, format!("{word} does not choose a route")).instead("iif, oif or mark"));
                }
            }
        }
        let (tell, span) = self.name("type, oif or oifname")?;
        fib.tell = match tell.as_str() {
            "type" => FibTell::Type,
            "oif" => FibTell::Oif,
            "oifname" => FibTell::OifName,
            _ => {
                return Err(
                    Fault::new(span, format!("{tell}: a route has no such thing")).instead("type, oif or oifname")
                );
            }
        };
        Ok(fib)
    }
}
