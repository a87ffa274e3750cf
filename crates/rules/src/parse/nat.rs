//! snat, dnat, masquerade and redirect.
use super::parser::{ParseResult, Parser};
use crate::ast::{Nat, NatPorts, NatTarget, Statement};
use crate::datatype::{DataType, encode_name};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use crate::source::Span;
use keepstate_engine::{Manip, PortSelection};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Parser<'_> {
    /// After `snat`, `dnat`, `masquerade` or `redirect`.
    pub(super) fn parse_nat(&mut self, word: &str, start: Span) -> ParseResult<Nat> {
        let manip = if matches!(word, "snat" | "masquerade") { Manip::Source } else { Manip::Destination };
        let to = match word {
            "masquerade" => NatTarget::Masquerade,
            "redirect" => NatTarget::Redirect,
            _ => NatTarget::Unchanged,
        };
        let mut nat = Nat {
            manip,
            v6: None,
            target: to,
            ports: None,
            port_selection: PortSelection::PreferOriginal,
            fully_random: false,
            persistent: false,
            netmap: false,
        };
        if matches!(nat.target, NatTarget::Unchanged) {
            self.parse_nat_target(&mut nat, start)?;
        } else if self.eat_keyword("to") {
            self.eat_punct(":");
            nat.ports = Some(self.parse_nat_ports()?);
        }
        self.parse_nat_flags(&mut nat)?;
        Ok(nat)
    }

    /// `[ip|ip6] [prefix] [addr . port] [to] ADDRESS[-ADDRESS][:PORT[-PORT]]`, or an expression.
    pub(super) fn parse_nat_target(&mut self, nat: &mut Nat, start: Span) -> ParseResult<()> {
        let family = match self.peek() {
            TokenKind::Ident(word) if word == "ip" || word == "ip6" => {
                let is_family = matches!(self.peek_second(), TokenKind::Ident(next) if matches!(next.as_str(), "to" | "prefix" | "addr" | "interval"));
                let v6 = matches!(self.peek(), TokenKind::Ident(word) if word == "ip6");
                if is_family {
                    self.next_token();
                }
                is_family.then_some(if v6 { DataType::Address6 } else { DataType::Address4 })
            }
            _ => None,
        };
        nat.v6 = family.map(|family| family == DataType::Address6);
        nat.netmap = self.eat_keyword("prefix");
        self.eat_keyword("interval");
        if self.eat_keyword("addr") {
            self.expect_punct(".")?;
            self.expect_keyword("port")?;
        }
        self.eat_keyword("to");
        if self.eat_punct(":") {
            nat.ports = Some(self.parse_nat_ports()?);
            return Ok(());
        }
        self.unquote_address();
        match self.peek() {
            TokenKind::Address4(_) => self.parse_nat_addresses(nat, DataType::Address4),
            TokenKind::Address6(_) | TokenKind::Punct("[") => self.parse_nat_addresses(nat, DataType::Address6),
            _ => {
                // Without a family, the first value of an anonymous map tells the family.
                let kind = family.unwrap_or_else(|| self.infer_map_family());
                let Some(value) = self.parse_expression(&[kind, DataType::Port])? else {
                    return Err(self.unexpected(if start == Span::default() {
                        "an address"
                    } else {
                        "an address or an expression with a map"
                    }));
                };
                nat.target = NatTarget::Value(value);
                if self.eat_punct(":") {
                    nat.ports = Some(self.parse_nat_ports()?);
                }
                Ok(())
            }
        }
    }

    /// After `dup`: `to ADDRESS [device NAME]`.
    pub(super) fn parse_dup(&mut self) -> ParseResult<Statement> {
        self.expect_keyword("to")?;
        self.unquote_address();
        let kind = match self.peek() {
            TokenKind::Address4(_) => DataType::Address4,
            TokenKind::Address6(_) | TokenKind::Punct("[") => DataType::Address6,
            _ => self.infer_map_family(),
        };
        let to = self.parse_expression_of(kind)?;
        let device = if self.eat_keyword("device") {
            let (TokenKind::Ident(name) | TokenKind::Quoted(name)) = self.peek() else {
                return Err(self.unexpected("the name of an interface"));
            };
            let name = name.clone();
            let span = self.next_token().span;
            if encode_name(&name).is_none() {
                return Err(Diagnostic::new(span, "an interface name has at most 15 bytes"));
            }
            Some(name)
        } else {
            None
        };
        Ok(Statement::Dup { to, device })
    }

    /// Of an anonymous map: is the first value, after the colon, an IPv6 address?
    fn infer_map_family(&self) -> DataType {
        let ahead = self.tokens.iter().rev().take(200);
        let value = ahead.skip_while(|token| token.kind != TokenKind::Punct(":")).nth(1).map(|token| &token.kind);
        if matches!(value, Some(TokenKind::Address6(_))) { DataType::Address6 } else { DataType::Address4 }
    }

    fn parse_nat_addresses(&mut self, nat: &mut Nat, kind: DataType) -> ParseResult<()> {
        let bracketed = matches!(self.peek(), TokenKind::Punct("["));
        let (first, last) = if bracketed {
            let first = self.parse_value(kind)?;
            let last = if self.eat_punct("-") { self.parse_value(kind)? } else { first };
            (first, last)
        } else {
            self.parse_range(kind)?
        };
        let address = |bits: u128| match kind {
            // The type has 32 bits.
            DataType::Address4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        nat.target = NatTarget::Addresses(address(first), address(last));
        if self.eat_punct(":") || self.eat_punct(".") {
            nat.ports = Some(self.parse_nat_ports()?);
        }
        Ok(())
    }

    fn parse_nat_ports(&mut self) -> ParseResult<NatPorts> {
        if let TokenKind::Number(_) = self.peek() {
            let (first, last) = self.parse_range(DataType::Port)?;
            // The type has 16 bits.
            return Ok(NatPorts::Range(first as u16, last as u16));
        }
        match self.parse_expression(&[DataType::Port])? {
            Some(value) => Ok(NatPorts::Value(value)),
            None => {
                let (first, last) = self.parse_range(DataType::Port)?;
                Ok(NatPorts::Range(first as u16, last as u16))
            }
        }
    }

    fn parse_nat_flags(&mut self, nat: &mut Nat) -> ParseResult<()> {
        let mut is_behind_comma = false;
        loop {
            let span = self.span();
            if self.eat_keyword("random") {
                nat.port_selection = PortSelection::Random;
            } else if self.eat_keyword("fully-random") {
                (nat.port_selection, nat.fully_random) = (PortSelection::Random, true);
            } else if self.eat_keyword("persistent") {
                nat.persistent = true;
            } else if let TokenKind::Ident(word) = self.peek()
                && word == "netmap"
            {
                return Err(Diagnostic::new(span, "netmap is written as `prefix` before the address")
                    .with_help("write `snat ip prefix to ip saddr map { … }`"));
            } else if is_behind_comma {
                return Err(self.unexpected("random, fully-random or persistent"));
            } else {
                return Ok(());
            }
            is_behind_comma = self.eat_punct(",");
        }
    }
}
