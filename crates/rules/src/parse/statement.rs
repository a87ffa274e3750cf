//! Statements: what a rule asks, does and decides.
use super::selector::begins_selector;
use super::value::octet_unit;
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::Kind;
use crate::source::Span;
use crate::token::{Token, Word};
use crate::tree::{
    BitRange, Ct, End, Expression, Field, Icmpx, IpField, Layer, Limit, Log, Meta, ObjectKind, Piece, Reject, Selector,
    Statement, Target, Verdict,
};

/// Statements that are not supported, and what to write instead.
const REFUSED: [(&str, &str); 8] = [
    ("queue", "nothing: the gateway is itself where packets would be handed to"),
    ("tproxy", "redirect, where the proxy asks for the original destination"),
    ("dup", "capture with keepstate watch"),
    ("fwd", "a route"),
    ("flow", "leave it away: established connections take the short way by themselves"),
    ("tc", "leave it to the kernel"),
    ("secmark", "leave it away"),
    ("xt", "write what the extension did in nftables' own words: iptables-translate helps"),
];

/// Levels of the log, by syslog's numbers.
const LEVELS: [(&str, u8); 9] = [
    ("emerg", 0),
    ("alert", 1),
    ("crit", 2),
    ("err", 3),
    ("warn", 4),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];

/// The bits that a rule may set in place; not those that say how long something is, or how it sums up.
fn changeable(selector: Selector) -> Option<Field> {
    let network = |field: IpField, v6| {
        let bits = field.changeable(v6)?;
        Some(Field { layer: Layer::Network, bits, kind: selector.kind(), protocol: None, v6: Some(v6), types: &[] })
    };
    match selector {
        Selector::Ip(field) => network(field, false),
        Selector::Ip6(field) => network(field, true),
        Selector::Field(field) if field.protocol.is_none() => (field.layer != Layer::Inner).then_some(field),
        Selector::Field(field) => {
            let kept: &[BitRange] = match field.protocol {
                Some(6) => &[BitRange::new(96, 4), BitRange::new(128, 16)],
                Some(17 | 136) => &[BitRange::new(32, 16), BitRange::new(48, 16)],
                Some(132) => &[BitRange::new(64, 32)],
                Some(1 | 2 | 58) => &[BitRange::new(16, 16)],
                _ => return None,
            };
            (!kept.contains(&field.bits)).then_some(field)
        }
        _ => None,
    }
}

impl Parser<'_> {
    /// One statement.
    pub(super) fn statement(&mut self) -> Parsed<Statement> {
        if let Some(verdict) = self.verdict()? {
            return Ok(Statement::Verdict(verdict));
        }
        let span = self.span();
        if matches!(self.peek(), Word::Set(_)) && matches!(self.second(), Word::Sign(",")) {
            return self.look(span);
        }
        let Word::Name(word) = self.peek() else { return Err(self.unexpected("a statement")) };
        let word = word.clone();
        if let Some((_, instead)) = REFUSED.iter().find(|(name, _)| *name == word) {
            return Err(Fault::new(span, format!("{word} is not supported")).instead(*instead));
        }
        match word.as_str() {
            "counter" => {
                self.next();
                self.counter()
            }
            "limit" => {
                self.next();
                if let Some(named) = self.named_object(ObjectKind::Limit)? {
                    Ok(named)
                } else {
                    self.limit().map(Statement::Limit)
                }
            }
            "quota" => {
                self.next();
                if let Some(named) = self.named_object(ObjectKind::Quota)? {
                    return Ok(named);
                }
                let (over, octets) = self.quota()?;
                if self.takes("used") {
                    self.octets()?;
                }
                Ok(Statement::Quota { over, octets })
            }
            "log" => {
                self.next();
                self.log().map(Statement::Log)
            }
            "reject" => {
                self.next();
                self.reject().map(Statement::Reject)
            }
            "synproxy" => {
                self.next();
                self.synproxy()
            }
            "notrack" => {
                self.next();
                Ok(Statement::Notrack)
            }
            "snat" | "dnat" | "masquerade" | "redirect" => {
                self.next();
                self.nat(&word, span).map(Statement::Nat)
            }
            "add" | "update" | "delete" if matches!(self.second(), Word::Set(_)) => {
                self.next();
                self.dynamic(&word).map(Statement::Dynamic)
            }
            "meter" => {
                self.next();
                self.meter().map(Statement::Dynamic)
            }
            "reset" => {
                self.next();
                self.keyword("tcp")?;
                self.keyword("option")?;
                self.tcp_option_number().map(Statement::Strip)
            }
            "ct" => self.ct_statement(span),
            "meta" if matches!(self.second(), Word::Name(name) if name == "nftrace") => {
                self.next();
                self.next();
                self.keyword("set")?;
                let value = self.value(Kind::Number(8))?;
                Ok(Statement::Set(Target::NfTrace, Expression::Constant(value, Kind::Number(8))))
            }
            _ => self.look(span),
        }
    }

    /// A match, a verdict map, or something set.
    fn look(&mut self, span: Span) -> Parsed<Statement> {
        let left = self.key()?;
        if left.is_empty() {
            return Err(self.no_statement());
        }
        if let ([Expression::Select(selector)], Word::Name(word)) = (left.as_slice(), self.peek())
            && word == "set"
        {
            let selector = *selector;
            self.next();
            return self.set_target(selector, span);
        }
        if self.takes("vmap") {
            let kinds: Vec<Kind> = left.iter().map(Expression::kind).collect();
            let map = self.map_ref(&kinds, &[])?;
            return Ok(Statement::Vmap(left, map));
        }
        self.against(left, span).map(Statement::Match)
    }

    fn no_statement(&mut self) -> Fault {
        let fault = self.unexpected("a match, a statement or a verdict");
        match self.peek() {
            Word::Name(word) if word.contains("cept") => fault.instead("accept"),
            Word::Name(_) => fault.instead(
                "a line begins with what is matched (ip saddr, tcp dport, iifname, ct state), or what is done",
            ),
            _ => fault,
        }
    }

    /// `ct count`, `ct helper set`, or any look at a connection.
    fn ct_statement(&mut self, span: Span) -> Parsed<Statement> {
        let second = match self.second() {
            Word::Name(word) => word.clone(),
            _ => String::new(),
        };
        match second.as_str() {
            "count" => {
                self.next();
                self.next();
                let over = self.takes("over");
                Ok(Statement::Connections { over, count: self.number32("a number of connections")? })
            }
            "timeout" => {
                self.next();
                self.next();
                self.keyword("set")?;
                let (name, span) = self.name("the name of a ct timeout")?;
                Ok(Statement::Timeout(name, span))
            }
            "event" | "expectation" => {
                Err(Fault::new(span, format!("ct {second} is not supported")).instead(match second.as_str() {
                    "event" => "choose events where they are followed: keepstate conntrack -E -e NEW,DESTROY",
                    _ => "a helper: ct helper set",
                }))
            }
            _ => self.look(span),
        }
    }

    fn set_target(&mut self, selector: Selector, span: Span) -> Parsed<Statement> {
        let target = match selector {
            Selector::Meta(Meta::Mark) => Target::MetaMark,
            Selector::Meta(Meta::Priority) => Target::MetaPriority,
            Selector::Ct(Ct::Mark) => Target::CtMark,
            Selector::Ct(Ct::Zone) => Target::CtZone,
            Selector::Ct(Ct::Label) => Target::CtLabel,
            Selector::Ct(Ct::Helper) => {
                let (name, span) = self.name("the name of a ct helper")?;
                return Ok(Statement::Helper(name, span));
            }
            Selector::Ip(IpField::Dscp) => Target::Dscp { v6: false },
            Selector::Ip6(IpField::Dscp) => Target::Dscp { v6: true },
            Selector::Ip(IpField::Ttl) => Target::Ttl { v6: false },
            Selector::Ip6(IpField::Ttl) => Target::Ttl { v6: true },
            Selector::Piece(Piece::MAX_SEGMENT) => Target::MaxSegment,
            Selector::Port(protocol, end) => Target::Port { protocol, end },
            Selector::Ip(IpField::Source) => Target::Address { v6: false, end: End::Source },
            Selector::Ip(IpField::Destination) => Target::Address { v6: false, end: End::Destination },
            Selector::Ip6(IpField::Source) => Target::Address { v6: true, end: End::Source },
            Selector::Ip6(IpField::Destination) => Target::Address { v6: true, end: End::Destination },
            other => match changeable(other) {
                Some(field) => Target::Field(field),
                None => {
                    return Err(Fault::new(span, "this cannot be set").instead(
                        "meta mark, meta priority, ct mark, ct zone, ct label, ct helper, ip dscp, ip ecn, ip ttl, ip saddr, ip daddr, ports, fields of TCP and ICMP, tcp option maxseg size",
                    ));
                }
            },
        };
        if target == Target::MaxSegment && self.takes("rt") {
            self.keyword("mtu")?;
            return Ok(Statement::Set(target, Expression::Constant(0, Kind::Number(16))));
        }
        let kind = selector.kind();
        let value = match self.expression(&[kind])? {
            Some(value) => value,
            None => Expression::Constant(self.bits(kind)?, kind),
        };
        Ok(Statement::Set(target, value))
    }

    /// A verdict, if one is next.
    pub(super) fn verdict(&mut self) -> Parsed<Option<Verdict>> {
        let Word::Name(word) = self.peek() else { return Ok(None) };
        let verdict = match word.as_str() {
            "accept" => Verdict::Accept,
            "drop" => Verdict::Drop,
            "continue" => Verdict::Continue,
            "return" => Verdict::Return,
            "jump" | "goto" => {
                let comes_back = word == "jump";
                self.next();
                let (name, span) = self.name("a chain's name")?;
                return Ok(Some(if comes_back { Verdict::Jump(name, span) } else { Verdict::Goto(name, span) }));
            }
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(verdict))
    }

    fn counter(&mut self) -> Parsed<Statement> {
        if let Some(named) = self.named_object(ObjectKind::Counter)? {
            return Ok(named);
        }
        let (packets, octets) = self.counted()?;
        Ok(Statement::Counter(packets, octets))
    }

    /// `name "x"`, if it is next.
    pub(super) fn named_object(&mut self, kind: ObjectKind) -> Parsed<Option<Statement>> {
        if !self.takes("name") {
            return Ok(None);
        }
        if matches!(self.peek(), Word::Name(word) if begins_selector(word)) {
            let key = self.key()?;
            self.keyword("map")?;
            let kinds: Vec<Kind> = key.iter().map(Expression::kind).collect();
            let map = self.map_ref(&kinds, &[Kind::Object(kind)])?;
            return Ok(Some(Statement::ObjectBy(kind, key, map)));
        }
        let (name, span) = self.name("its name")?;
        Ok(Some(Statement::Object(kind, name, span)))
    }

    /// `[over|until] N unit`.
    pub(super) fn quota(&mut self) -> Parsed<(bool, u64)> {
        let over = self.takes("over");
        if !over {
            self.takes("until");
        }
        Ok((over, self.octets()?))
    }

    /// `rate [over] N/unit [burst N packets|bytes]`.
    pub(super) fn limit(&mut self) -> Parsed<Limit> {
        self.keyword("rate")?;
        let over = self.takes("over");
        let (rate, span) = self.number("a rate, like 10/second")?;
        let mut scale = 1;
        let mut octets = false;
        let per = if self.takes_sign("/") {
            self.name("second, minute, hour, day or week")?
        } else {
            // `10 mbytes/second` is one word behind the number.
            let (word, span) = self.name("`/`")?;
            let parts = word.split_once('/').and_then(|(unit, per)| Some((octet_unit(unit)?, per.to_owned())));
            let Some((unit, per)) = parts else {
                return Err(Fault::new(span, format!("{word} is no rate")).instead("10/second, or 10 mbytes/second"));
            };
            (scale, octets) = (unit, true);
            (per, span)
        };
        let seconds = match per.0.as_str() {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            "day" => 86_400,
            "week" => 604_800,
            other => {
                return Err(
                    Fault::new(per.1, format!("{other} is no time")).instead("second, minute, hour, day or week")
                );
            }
        };
        let too_much = || Fault::new(span, "this rate is beyond all measure");
        let rate = rate.checked_mul(scale).ok_or_else(too_much)?;
        if rate == 0 {
            return Err(Fault::new(span, "a rate of nothing lets nothing pass").instead("drop"));
        }
        let mut burst = if octets { 0 } else { 5 };
        if self.takes("burst") {
            burst = if octets { self.octets()? } else { self.number("a number of packets")?.0 };
            self.takes("packets");
        }
        Ok(Limit { over, rate, seconds, burst, octets })
    }

    fn log(&mut self) -> Parsed<Log> {
        let mut log = Log::default();
        loop {
            let span = self.span();
            if self.takes("prefix") {
                log.prefix = self.name("a prefix in quotation marks")?.0;
                if log.prefix.len() > 127 {
                    return Err(Fault::new(span, "a prefix has at most 127 letters"));
                }
            } else if self.takes("level") {
                let (level, span) = self.name("a level")?;
                let found = LEVELS.iter().find(|(name, _)| *name == level);
                let Some((_, number)) = found else {
                    return Err(Fault::new(span, format!("{level} is no level"))
                        .instead("emerg, alert, crit, err, warn, notice, info, debug"));
                };
                log.level = Some(*number);
            } else if self.takes("flags") {
                // What the flags add is in the line anyway.
                self.name("flags")?;
                while self.takes_sign(",")
                    || matches!(self.peek(), Word::Name(name) if matches!(name.as_str(), "sequence" | "options" | "all"))
                {
                    self.next();
                }
            } else if self.takes("group") {
                let group = self.number32("the group's number")?;
                log.group = Some(u16::try_from(group).map_err(|_| Fault::new(span, "a group is at most 65535"))?);
            } else if self.takes("snaplen") || self.takes("queue-threshold") {
                // Lines are written at once, and hold no packet.
                self.number32("a number")?;
            } else if let (Some(_), Some(_)) = (log.group, log.level) {
                return Err(Fault::new(span, "a line with a group has no level").instead("one of the two"));
            } else {
                return Ok(log);
            }
        }
    }

    fn reject(&mut self) -> Parsed<Reject> {
        if !self.takes("with") {
            return Ok(Reject::Default);
        }
        let (family, span) = self.name("icmp, icmpv6, icmpx or tcp reset")?;
        if family == "tcp" {
            self.keyword("reset")?;
            return Ok(Reject::Reset);
        }
        self.takes("type");
        let kind = match family.as_str() {
            "icmp" => Kind::IcmpCode,
            "icmpv6" => Kind::Icmp6Code,
            "icmpx" => return self.icmpx().map(Reject::Icmpx),
            _ => {
                return Err(Fault::new(span, format!("reject with {family}: there is no such answer"))
                    .instead("icmp, icmpv6, icmpx with a reason, or tcp reset"));
            }
        };
        // The kinds have 8 bits.
        let code = self.value(kind)? as u8;
        Ok(if kind == Kind::IcmpCode { Reject::Icmp(code) } else { Reject::Icmp6(code) })
    }

    fn icmpx(&mut self) -> Parsed<Icmpx> {
        let Token { kind, span } = self.next();
        Ok(match &kind {
            Word::Name(name) if name == "no-route" => Icmpx::NoRoute,
            Word::Name(name) if name == "port-unreachable" => Icmpx::Port,
            Word::Name(name) if name == "host-unreachable" => Icmpx::Host,
            Word::Name(name) if name == "admin-prohibited" => Icmpx::Admin,
            other => {
                return Err(Fault::new(span, format!("{}: no such reason", other.shown()))
                    .instead("no-route, port-unreachable, host-unreachable, admin-prohibited"));
            }
        })
    }
}
