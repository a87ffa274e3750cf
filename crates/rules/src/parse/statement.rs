//! Statements.
use super::parser::{ParseResult, Parser};
use super::unsupported::UNSUPPORTED_STATEMENTS;
use super::value::byte_unit;
use crate::ast::{
    AssignTarget, CtKey, Endpoint, Expression, ExthdrField, ExthdrOp, Icmpx, IpField, Limit, MetaKey, NftVerdict,
    ObjectKind, PayloadBase, PayloadField, Reject, Selector, SetRef, Statement,
};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;
use keepstate_engine::{Direction, ZoneDirection};

/// The header bits that a rule may write.
fn writable_payload(selector: Selector) -> Option<PayloadField> {
    let network = |field: IpField, v6| {
        let bits = field.rewritable_bits(v6)?;
        Some(PayloadField {
            base: PayloadBase::Network,
            bits,
            data_type: selector.data_type(),
            protocol: None,
            v6: Some(v6),
            icmp_types: &[],
        })
    };
    match selector {
        Selector::Ip(field) => network(field, false),
        Selector::Ip6(field) => network(field, true),
        Selector::Payload(field) if field.protocol.is_none() => Some(field),
        Selector::Payload(field) => Some(field),
        _ => None,
    }
}

/// May a rule write this field of a TCP option? As in the kernel (nft_exthdr_tcp_set_init): whole words of two or four bytes.
fn is_writable_option(field: ExthdrField) -> bool {
    field.op == ExthdrOp::TcpOptions
        && field.bits.is_some_and(|bits| matches!(bits.count, 16 | 32) && bits.offset.is_multiple_of(8))
}

/// Packets that a limit lets pass at once.
pub(crate) const DEFAULT_BURST: u64 = 5;

impl Parser<'_> {
    /// One statement.
    pub(super) fn parse_statement(&mut self) -> ParseResult<Statement> {
        if self.is_anonymous_chain() {
            return self.parse_anonymous_chain();
        }
        if let Some(verdict) = self.parse_verdict()? {
            return Ok(Statement::Verdict(verdict));
        }
        let span = self.span();
        let raw_payload =
            matches!(self.peek(), TokenKind::SetName(_)) && matches!(self.peek_second(), TokenKind::Punct(","));
        if raw_payload || matches!(self.peek(), TokenKind::Punct("(")) {
            return self.parse_match_or_assign(span);
        }
        let TokenKind::Ident(word) = self.peek() else { return Err(self.unexpected("a statement")) };
        let word = word.clone();
        if let Some((_, why, help)) = UNSUPPORTED_STATEMENTS.iter().find(|(name, ..)| *name == word) {
            return Err(Diagnostic::unsupported(span, format!("`{word}` is not supported: {why}")).with_help(*help));
        }
        match word.as_str() {
            "flow" => {
                self.next_token();
                self.parse_flow_offload()
            }
            "last" => {
                self.next_token();
                self.parse_last()
            }
            "set" => {
                self.next_token();
                self.parse_set_statement().map(Statement::Dynset)
            }
            "counter" => {
                self.next_token();
                self.parse_counter()
            }
            "limit" => {
                self.next_token();
                if let Some(named) = self.parse_object_ref(ObjectKind::Limit)? {
                    Ok(named)
                } else {
                    self.parse_limit().map(Statement::Limit)
                }
            }
            "quota" => {
                self.next_token();
                if let Some(named) = self.parse_object_ref(ObjectKind::Quota)? {
                    return Ok(named);
                }
                let (over, bytes, used) = self.parse_quota()?;
                Ok(Statement::Quota { over, bytes, used })
            }
            "log" => {
                self.next_token();
                self.parse_log().map(Statement::Log)
            }
            "reject" => {
                self.next_token();
                self.parse_reject().map(Statement::Reject)
            }
            "dup" => {
                self.next_token();
                self.parse_dup()
            }
            "queue" => {
                self.next_token();
                self.parse_queue(span).map(Statement::Queue)
            }
            "tproxy" => {
                self.next_token();
                self.parse_tproxy(span).map(Statement::Tproxy)
            }
            "synproxy" => {
                self.next_token();
                self.parse_synproxy()
            }
            "notrack" => {
                self.next_token();
                Ok(Statement::Notrack)
            }
            "snat" | "dnat" | "masquerade" | "redirect" => {
                self.next_token();
                self.parse_nat(&word, span).map(Statement::Nat)
            }
            "add" | "update" | "delete" if matches!(self.peek_second(), TokenKind::SetName(_)) => {
                self.next_token();
                self.parse_dynset(&word).map(Statement::Dynset)
            }
            "meter" => {
                self.next_token();
                self.parse_meter().map(Statement::Dynset)
            }
            "reset" => {
                self.next_token();
                self.expect_keyword("tcp")?;
                self.expect_keyword("option")?;
                self.parse_tcp_option_number().map(Statement::TcpOptStrip)
            }
            "ct" => self.parse_ct_statement(span),
            "nftrace" | "pkttype" if self.is_keyword_ahead(1, "set") => self.parse_meta_constant(),
            "meta"
                if matches!(self.peek_second(), TokenKind::Ident(name) if matches!(name.as_str(), "nftrace" | "pkttype" | "secmark"))
                    && self.is_keyword_ahead(2, "set") =>
            {
                self.next_token();
                self.parse_meta_constant()
            }
            _ => self.parse_match_or_assign(span),
        }
    }

    /// `nftrace set 1`, `pkttype set host`, `secmark set …`: behind `meta`, or without it.
    fn parse_meta_constant(&mut self) -> ParseResult<Statement> {
        let (key, span) = self.expect_word("nftrace")?;
        self.expect_keyword("set")?;
        let (target, kind) = match key.as_str() {
            "secmark" => return self.parse_set_secmark(span),
            "pkttype" => (AssignTarget::PacketType, DataType::PacketType),
            _ => (AssignTarget::NfTrace, DataType::Number(1)),
        };
        Ok(Statement::Assign(target, Expression::Constant(self.parse_value(kind)?, kind)))
    }

    /// A match, a verdict map, or a `set` statement.
    fn parse_match_or_assign(&mut self, span: Span) -> ParseResult<Statement> {
        let left = self.parse_key()?;
        if left.is_empty() {
            return Err(self.statement_expected());
        }
        if let ([Expression::Select(selector)], TokenKind::Ident(word)) = (left.as_slice(), self.peek())
            && word == "set"
        {
            let selector = *selector;
            self.next_token();
            return self.parse_assignment(selector, span);
        }
        if self.eat_keyword("vmap") {
            let kinds: Vec<DataType> = left.iter().map(Expression::data_type).collect();
            let map = self.parse_map_ref(&kinds, &[])?;
            return Ok(Statement::Vmap(left, map));
        }
        self.parse_relational(left, span).map(Statement::Match)
    }

    fn statement_expected(&mut self) -> Diagnostic {
        let diagnostic = self.unexpected("a match, a statement or a verdict");
        match self.peek() {
            TokenKind::Ident(word) if word.contains("cept") => diagnostic.with_help("did you mean `accept`?"),
            TokenKind::Ident(_) => diagnostic
                .with_help("a rule starts with a match (ip saddr, tcp dport, iifname, ct state) or a statement"),
            _ => diagnostic,
        }
    }

    /// `ct count`, `ct helper set`, or a ct selector.
    fn parse_ct_statement(&mut self, span: Span) -> ParseResult<Statement> {
        let second = match self.peek_second() {
            TokenKind::Ident(word) => word.clone(),
            _ => String::new(),
        };
        match second.as_str() {
            "count" => {
                self.next_token();
                self.next_token();
                let over = self.eat_keyword("over");
                Ok(Statement::ConnLimit { over, count: self.expect_u32("a number of connections")? })
            }
            "timeout" | "helper" | "expectation" if self.is_keyword_ahead(2, "set") => {
                let kind = match second.as_str() {
                    "helper" => ObjectKind::CtHelper,
                    "timeout" => ObjectKind::CtTimeout,
                    _ => ObjectKind::CtExpectation,
                };
                (0..3).for_each(|_| drop(self.next_token()));
                self.parse_ct_object_set(kind)
            }
            "event" => {
                (0..2).for_each(|_| drop(self.next_token()));
                self.parse_ct_events()
            }
            "secmark" => {
                (0..2).for_each(|_| drop(self.next_token()));
                self.parse_ct_secmark(span)
            }
            _ => self.parse_match_or_assign(span),
        }
    }

    /// After `ct event`: `set new,destroy`, or `set new | destroy`.
    fn parse_ct_events(&mut self) -> ParseResult<Statement> {
        let span = self.span();
        if !self.eat_keyword("set") {
            return Err(
                Diagnostic::new(span, "`ct event` can only be set").with_help("write `ct event set new,destroy`")
            );
        }
        let kind = DataType::CtEvent;
        let Expression::Constant(mut bits, _) = self.parse_expression_of(kind)? else {
            return Err(Diagnostic::new(span, "events are constant").with_help("write `ct event set new,destroy`"));
        };
        while self.eat_punct(",") {
            bits |= self.parse_constant(kind)?;
        }
        Ok(Statement::Assign(AssignTarget::CtEvents, Expression::Constant(bits, kind)))
    }

    fn parse_assignment(&mut self, selector: Selector, span: Span) -> ParseResult<Statement> {
        let target = match selector {
            Selector::Meta(MetaKey::Mark) => AssignTarget::MetaMark,
            Selector::Meta(MetaKey::Priority) => {
                let what = "the priority that rules set stays in the rules: packets leave without it, so queueing disciplines (tc) do not see it";
                let help = "set the mark (meta mark set), and classify by it: tc filter add … handle 1 fw classid 1:10";
                self.note(Diagnostic::new(span, what).with_help(help));
                AssignTarget::MetaPriority
            }
            Selector::Ct(CtKey::Mark) => AssignTarget::CtMark,
            Selector::Ct(CtKey::Zone(direction)) => AssignTarget::CtZone(match direction {
                None => ZoneDirection::Both,
                Some(Direction::Original) => ZoneDirection::Original,
                Some(Direction::Reply) => ZoneDirection::Reply,
            }),
            Selector::Ct(CtKey::Label) => AssignTarget::CtLabel,
            Selector::Ip(IpField::Dscp) => AssignTarget::Dscp { v6: false },
            Selector::Ip6(IpField::Dscp) => AssignTarget::Dscp { v6: true },
            Selector::Ip(IpField::Ttl) => AssignTarget::Ttl { v6: false },
            Selector::Ip6(IpField::Ttl) => AssignTarget::Ttl { v6: true },
            Selector::Exthdr(ExthdrField::TCP_MSS) => AssignTarget::TcpMss,
            Selector::Exthdr(field) if is_writable_option(field) => AssignTarget::TcpOption(field),
            Selector::Port(protocol, end) => AssignTarget::Port { protocol, endpoint: end },
            Selector::Ip(IpField::Source) => AssignTarget::Address { v6: false, endpoint: Endpoint::Source },
            Selector::Ip(IpField::Destination) => AssignTarget::Address { v6: false, endpoint: Endpoint::Destination },
            Selector::Ip6(IpField::Source) => AssignTarget::Address { v6: true, endpoint: Endpoint::Source },
            Selector::Ip6(IpField::Destination) => AssignTarget::Address { v6: true, endpoint: Endpoint::Destination },
            other => match writable_payload(other) {
                Some(field) => {
                    if field.base == PayloadBase::Link {
                        self.note_link_header(span);
                    }
                    AssignTarget::Payload(field)
                }
                None => {
                    return Err(Diagnostic::new(span, "this field cannot be set (nor in Linux)").with_help(
                        "can be set: meta mark, meta priority, meta pkttype, ct mark, ct zone, ct label, ct event, ct helper, fields of the IP and transport headers, and those of TCP options that have 16 or 32 bits",
                    ));
                }
            },
        };
        if target == AssignTarget::TcpMss && self.eat_keyword("rt") {
            self.expect_keyword("mtu")?;
            return Ok(Statement::Assign(target, Expression::Constant(0, DataType::Number(16))));
        }
        let kind = selector.data_type();
        let is_symbol = matches!(self.peek(), TokenKind::Ident(word) if kind.symbol_value(word).is_some())
            && !matches!(self.peek_second(), TokenKind::Ident(_));
        // The name of a protocol, not the beginning of one of its fields.
        let mut value = if matches!(kind, DataType::Protocol | DataType::EtherType) && is_symbol {
            Expression::Constant(self.parse_value(kind)?, kind)
        } else {
            self.parse_expression_of(kind)?
        };
        if let Expression::Constant(bits, _) = &mut value {
            while kind.is_bitmask() && self.eat_punct(",") {
                *bits |= self.parse_constant(kind)?;
            }
        }
        if let Expression::Map(_, SetRef::Anonymous(map)) = &value
            && let Some(element) = map.elements.iter().find(|element| element.maps_to_range())
        {
            return Err(Diagnostic::new(element.span, "an element maps to one value here, not to a range")
                .with_help("write one value"));
        }
        Ok(Statement::Assign(target, value))
    }

    /// Of a frame that is not sent on: the next one is made anew for the packet.
    fn note_link_header(&mut self, span: Span) {
        let what = "the header of the frame that a packet came in is not changed: no frame is sent on, each packet gets a new one";
        self.note(
            Diagnostic::new(span, what)
                .with_help("in Linux too it is lost when a packet is routed; bridges are the kernel's"),
        );
    }

    /// A verdict, if one is next.
    pub(super) fn parse_verdict(&mut self) -> ParseResult<Option<NftVerdict>> {
        let TokenKind::Ident(word) = self.peek() else { return Ok(None) };
        let verdict = match word.as_str() {
            "accept" => NftVerdict::Accept,
            "drop" => NftVerdict::Drop,
            "continue" => NftVerdict::Continue,
            "return" => NftVerdict::Return,
            "jump" | "goto" => {
                let comes_back = word == "jump";
                self.next_token();
                let (name, span) = match self.is_variable_next() {
                    true => self.expect_word_or_variable("a chain name")?,
                    false => self.expect_identifier("a chain name")?,
                };
                return Ok(Some(if comes_back { NftVerdict::Jump(name, span) } else { NftVerdict::Goto(name, span) }));
            }
            _ => return Ok(None),
        };
        self.next_token();
        Ok(Some(verdict))
    }

    fn parse_counter(&mut self) -> ParseResult<Statement> {
        if let Some(named) = self.parse_object_ref(ObjectKind::Counter)? {
            return Ok(named);
        }
        let (packets, bytes) = self.parse_counter_values()?;
        Ok(Statement::Counter(packets, bytes))
    }

    /// `[over|until] N unit [used N unit]`.
    pub(super) fn parse_quota(&mut self) -> ParseResult<(bool, u64, u64)> {
        let over = self.eat_keyword("over");
        if !over {
            self.eat_keyword("until");
        }
        let span = self.span();
        let bytes = self.parse_byte_count()?;
        if i64::try_from(bytes).is_err() {
            return Err(Diagnostic::new(span.to(self.last_span), format!("a quota is at most {} bytes", i64::MAX))
                .with_help("leave the quota out to allow more"));
        }
        let used = self.parse_quota_used(bytes)?;
        Ok((over, bytes, used))
    }

    /// `used N unit`, if it is next.
    fn parse_quota_used(&mut self, quota: u64) -> ParseResult<u64> {
        let span = self.span();
        if !self.eat_keyword("used") {
            return Ok(0);
        }
        let used = self.parse_byte_count()?;
        if used > quota {
            return Err(Diagnostic::new(span.to(self.last_span), "more is used than the quota allows")
                .with_help("a quota that is used up is written with both numbers equal"));
        }
        Ok(used)
    }

    /// `rate [over] N/unit [burst N packets|bytes]`.
    pub(super) fn parse_limit(&mut self) -> ParseResult<Limit> {
        self.expect_keyword("rate")?;
        let over = self.eat_keyword("over");
        let (rate, span) = self.expect_number("a rate, like 10/second")?;
        let mut scale = 1;
        let mut bytes = false;
        let mut period = None;
        if !matches!(self.peek(), TokenKind::Punct("/")) {
            // In `10 mbytes/second`, unit and period are one token.
            let (word, span) = self.expect_word("`/`")?;
            let (unit, per) = word.split_once('/').map_or((word.as_str(), None), |(unit, per)| (unit, Some(per)));
            let Some(factor) = byte_unit(unit) else {
                return Err(Diagnostic::new(span, format!("invalid rate unit `{word}`"))
                    .with_help("write 10/second or 10 mbytes/second"));
            };
            (scale, bytes) = (factor, true);
            period = per.map(|per| (per.to_owned(), span));
        }
        let per = match period {
            Some(period) => period,
            None => {
                self.expect_punct("/")?;
                self.expect_word("second, minute, hour, day or week")?
            }
        };
        let seconds = match per.0.as_str() {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            "day" => 86_400,
            "week" => 604_800,
            other => {
                return Err(Diagnostic::new(per.1, format!("unknown rate period `{other}`"))
                    .with_help("second, minute, hour, day or week"));
            }
        };
        let too_much = || Diagnostic::new(span, "this rate is too large");
        let rate = rate.checked_mul(scale).ok_or_else(too_much)?;
        if rate == 0 {
            return Err(
                Diagnostic::new(span, "the rate must be at least 1").with_help("use `drop` to block everything")
            );
        }
        let mut burst = if bytes { 0 } else { DEFAULT_BURST };
        let span = self.span();
        if self.eat_keyword("burst") {
            burst = if bytes { self.parse_byte_count()? } else { self.expect_number("a number of packets")?.0 };
            if !bytes {
                self.eat_keyword("packets");
                if burst == 0 {
                    return Err(Diagnostic::new(span, "with a burst of 0 packets no packet would ever pass")
                        .with_help("write `burst 1 packets` or more, or leave burst out"));
                }
            }
        }
        // Linux counts tokens in nanoseconds of 64 bits.
        let nanoseconds = 1_000_000_000 * seconds;
        let fits = rate.checked_add(burst).and_then(|sum| match bytes {
            true => u64::checked_mul(nanoseconds, sum),
            false => (nanoseconds / rate).checked_mul(burst),
        });
        if fits.is_none() {
            return Err(Diagnostic::new(span, "rate and burst together are too large for this period")
                .with_help("use a shorter period: 100 kbytes/second, not 6 mbytes/minute"));
        }
        Ok(Limit { over, rate, seconds, burst, per_byte: bytes })
    }

    fn parse_reject(&mut self) -> ParseResult<Reject> {
        if !self.eat_keyword("with") {
            return Ok(Reject::Default);
        }
        let (family, span) = self.expect_word("icmp, icmpv6, icmpx or tcp reset")?;
        if family == "tcp" {
            self.expect_keyword("reset")?;
            return Ok(Reject::TcpReset);
        }
        self.eat_keyword("type");
        let kind = match family.as_str() {
            "icmp" => DataType::IcmpCode,
            "icmpv6" => DataType::Icmp6Code,
            "icmpx" => return self.parse_icmpx().map(Reject::Icmpx),
            _ => {
                return Err(Diagnostic::new(span, format!("unknown reject type `{family}`"))
                    .with_help("use icmp, icmpv6 or icmpx with a reason, or tcp reset"));
            }
        };
        let span = self.span();
        self.refuse_quoted(kind.description())?;
        // Both types have 8 bits.
        let code = self.parse_value(kind)? as u8;
        if code == u8::MAX {
            return Err(Diagnostic::new(span, "255 is no code of an ICMP error")
                .with_help("write a name like port-unreachable, or a smaller number"));
        }
        Ok(if kind == DataType::IcmpCode { Reject::Icmp(code) } else { Reject::Icmpv6(code) })
    }

    fn parse_icmpx(&mut self) -> ParseResult<Icmpx> {
        let span = self.span();
        Ok(match self.parse_value(DataType::IcmpxCode)? {
            0 => Icmpx::NoRoute,
            1 => Icmpx::PortUnreachable,
            2 => Icmpx::HostUnreachable,
            3 => Icmpx::AdminProhibited,
            _ => return Err(Diagnostic::new(span, "reject with icmpx has the reasons 0 to 3")),
        })
    }
}
