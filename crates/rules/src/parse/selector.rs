//! What a rule looks at, by the words of the language.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::source::Span;
use crate::token::{Token, Word};
use crate::tree::{
    BitRange, Counted, Ct, End, Fib, FibTell, IcmpField, IpField, Layer, Meta, Selector, TcpField, TupleField,
};
use keepstate_engine::Direction;

/// Words that begin a selector, though no other word has to follow.
const BARE: [(&str, Meta); 7] = [
    ("pkttype", Meta::PacketType),
    ("cpu", Meta::Cpu),
    ("iif", Meta::Iif),
    ("oif", Meta::Oif),
    ("iifname", Meta::IifName),
    ("oifname", Meta::OifName),
    ("mark", Meta::Mark),
];

/// What is not supported, and what to write instead.
const REFUSED: [(&str, &str); 13] = [
    ("ether", "addresses of links are not seen by a router: match the interface, or the IP address"),
    ("vlan", "match the VLAN's interface: iifname \"eth0.10\""),
    ("arp", "ARP is the kernel's"),
    ("socket", "sockets are the kernel's: match addresses and ports"),
    ("osf", "match what you mean by addresses, ports or TCP options"),
    ("ipsec", "match esp, or the interface of the tunnel"),
    ("rt", "for MSS clamping: tcp option maxseg size set rt mtu"),
    ("tunnel", "match the tunnel's interface"),
    ("exthdr", "match meta l4proto; extension headers are walked by themselves"),
    ("frag", "datagrams are put together before rules see them"),
    ("hbh", "extension headers are walked by themselves"),
    ("dst", "extension headers are walked by themselves"),
    ("mh", "match meta l4proto"),
];

/// Options of TCP by nft's names.
const OPTIONS: [(&str, u8); 10] = [
    ("maxseg", 2),
    ("window", 3),
    ("sack-perm", 4),
    ("sack-permitted", 4),
    ("sack", 5),
    ("timestamp", 8),
    ("md5sig", 19),
    ("mptcp", 30),
    ("fastopen", 34),
    ("echo", 6),
];

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
        let known = matches!(
            word.as_str(),
            "ip" | "ip6"
                | "tcp"
                | "udp"
                | "udplite"
                | "sctp"
                | "dccp"
                | "th"
                | "icmp"
                | "icmpv6"
                | "ah"
                | "esp"
                | "meta"
                | "ct"
                | "fib"
        );
        if !known {
            return Ok(None);
        }
        self.next();
        match word.as_str() {
            "ip" => self.ip_field(true).map(|field| Some(Selector::Ip(field))),
            "ip6" => self.ip_field(false).map(|field| Some(Selector::Ip6(field))),
            "tcp" => self.tcp().map(Some),
            "udp" => self.ported(Some(17)).map(Some),
            "udplite" => self.ported(Some(136)).map(Some),
            "sctp" => self.ported(Some(132)).map(Some),
            "dccp" => self.ported(Some(33)).map(Some),
            "th" => self.ported(None).map(Some),
            "icmp" => self.icmp(1).map(Some),
            "icmpv6" => self.icmp(58).map(Some),
            "esp" if self.takes("sequence") => {
                Ok(Some(Selector::Bits(Layer::Transport, BitRange::new(32, 32), Some(50))))
            }
            "ah" if self.takes("sequence") => {
                Ok(Some(Selector::Bits(Layer::Transport, BitRange::new(64, 32), Some(51))))
            }
            "ah" | "esp" => {
                self.keyword("spi")?;
                Ok(Some(Selector::Spi(if word == "ah" { 51 } else { 50 })))
            }
            "meta" => self.meta().map(|meta| Some(Selector::Meta(meta))),
            "ct" => self.ct(span).map(Some),
            _ => self.fib().map(|fib| Some(Selector::Fib(fib))),
        }
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
        self.sign(",")?;
        let at = self.span();
        let from = self.number32("the first bit")?;
        let from = u16::try_from(from).map_err(|_| Fault::new(at, "no header is that long"))?;
        self.sign(",")?;
        let at = self.span();
        let count = self.number32("a number of bits")?;
        let count = u8::try_from(count).ok().filter(|count| (1..=128).contains(count));
        let count = count.ok_or_else(|| Fault::new(at, "from 1 to 128 bits can be looked at"))?;
        Ok(Selector::Bits(layer, BitRange::new(from, count), None))
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

    fn tcp(&mut self) -> Parsed<Selector> {
        let (word, span) = self.name("a field of TCP")?;
        Ok(match word.as_str() {
            "sport" => Selector::Port(Some(6), End::Source),
            "dport" => Selector::Port(Some(6), End::Destination),
            "flags" => Selector::Tcp(TcpField::Flags),
            "sequence" => Selector::Tcp(TcpField::Sequence),
            "ackseq" => Selector::Tcp(TcpField::Acknowledgement),
            "window" => Selector::Tcp(TcpField::Window),
            "urgptr" => Selector::Tcp(TcpField::Urgent),
            "option" => {
                let (option, option_span) = self.name("maxseg")?;
                if option == "maxseg" && self.takes("size") {
                    return Ok(Selector::Tcp(TcpField::MaxSegment));
                }
                let known = OPTIONS.iter().find(|(name, _)| *name == option).map(|(_, number)| *number);
                let number = known.or_else(|| option.parse().ok()).ok_or_else(|| {
                    let names: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).collect();
                    Fault::new(option_span, format!("{option}: no such option of TCP")).instead(names.join(", "))
                })?;
                if !matches!(self.peek(), Word::Name(word) if word == "exists" || word == "missing") {
                    return Err(Fault::new(option_span, format!("tcp option {option}: its fields are not supported"))
                        .instead(format!("tcp option maxseg size, or tcp option {option} exists")));
                }
                Selector::TcpOption(number)
            }
            "doff" => Selector::Bits(Layer::Transport, BitRange::new(96, 4), Some(6)),
            "checksum" => Selector::Bits(Layer::Transport, BitRange::new(128, 16), Some(6)),
            _ => {
                return Err(Fault::new(span, format!("{word}: no such field"))
                    .instead("sport, dport, flags, sequence, ackseq, doff, window, checksum, urgptr, option"));
            }
        })
    }

    fn ported(&mut self, protocol: Option<u8>) -> Parsed<Selector> {
        let (word, span) = self.name("sport or dport")?;
        match (word.as_str(), protocol) {
            ("sport", _) => Ok(Selector::Port(protocol, End::Source)),
            ("dport", _) => Ok(Selector::Port(protocol, End::Destination)),
            ("length", Some(17)) => Ok(Selector::UdpLength),
            ("checksum", Some(17 | 136)) => Ok(Selector::Bits(Layer::Transport, BitRange::new(48, 16), protocol)),
            ("vtag", Some(132)) => Ok(Selector::Bits(Layer::Transport, BitRange::new(32, 32), protocol)),
            ("checksum", Some(132)) => Ok(Selector::Bits(Layer::Transport, BitRange::new(64, 32), protocol)),
            _ => Err(Fault::new(span, format!("{word}: no such field")).instead("sport or dport")),
        }
    }

    fn icmp(&mut self, protocol: u8) -> Parsed<Selector> {
        let (word, span) = self.name("type or code")?;
        let field = match word.as_str() {
            "type" => IcmpField::Type,
            "code" => IcmpField::Code,
            "id" => IcmpField::Id,
            "sequence" => IcmpField::Sequence,
            "mtu" => IcmpField::Mtu,
            _ => {
                return Err(Fault::new(span, format!("{word}: no such field")).instead("type, code, id, sequence, mtu"));
            }
        };
        Ok(Selector::Icmp(protocol, field))
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
            "time" | "day" | "hour" => {
                return Err(Fault::new(span, format!("meta {word} is not supported")).instead(
                    "load another ruleset at that hour: keepstate gateway reloads without losing connections",
                ));
            }
            _ => {
                return Err(Fault::new(span, format!("meta {word} is not supported")).instead(
                    "iif, oif, iifname, oifname, mark, l4proto, nfproto, protocol, length, priority, pkttype, random",
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
