//! snat, dnat, masquerade and redirect.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::kind::Kind;
use crate::source::Span;
use crate::token::Word;
use crate::tree::{Nat, Ports, To};
use keepstate_engine::{Choice, Manip};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Parser<'_> {
    /// Behind `snat`, `dnat`, `masquerade` or `redirect`.
    pub(super) fn nat(&mut self, word: &str, start: Span) -> Parsed<Nat> {
        let manip = if matches!(word, "snat" | "masquerade") { Manip::Source } else { Manip::Destination };
        let to = match word {
            "masquerade" => To::Masquerade,
            "redirect" => To::Redirect,
            _ => To::Kept,
        };
        let mut nat = Nat { manip, to, ports: None, choice: Choice::Keep, persistent: false, prefix: false };
        if matches!(nat.to, To::Kept) {
            self.destination(&mut nat, start)?;
        } else if self.takes("to") {
            self.takes_sign(":");
            nat.ports = Some(self.ports()?);
        }
        self.flags(&mut nat)?;
        Ok(nat)
    }

    /// `[ip|ip6] [prefix] [addr . port] [to] ADDRESS[-ADDRESS][:PORT[-PORT]]`, or a value that is looked up.
    fn destination(&mut self, nat: &mut Nat, start: Span) -> Parsed<()> {
        let family = match self.peek() {
            Word::Name(word) if word == "ip" || word == "ip6" => {
                let is_family = matches!(self.second(), Word::Name(next) if matches!(next.as_str(), "to" | "prefix" | "addr" | "interval"));
                let v6 = matches!(self.peek(), Word::Name(word) if word == "ip6");
                if is_family {
                    self.next();
                }
                is_family.then_some(if v6 { Kind::Address6 } else { Kind::Address4 })
            }
            _ => None,
        };
        nat.prefix = self.takes("prefix");
        self.takes("interval");
        if self.takes("addr") {
            self.sign(".")?;
            self.keyword("port")?;
        }
        self.takes("to");
        if self.takes_sign(":") {
            nat.ports = Some(self.ports()?);
            return Ok(());
        }
        match self.peek() {
            Word::Address4(_) => self.addresses(nat, Kind::Address4),
            Word::Address6(_) | Word::Sign("[") => self.addresses(nat, Kind::Address6),
            _ => {
                // Without a family a map in place gives what its first value looks like.
                let kind = family.unwrap_or_else(|| self.family_ahead());
                let Some(value) = self.expression(&[kind, Kind::Port])? else {
                    return Err(self.unexpected(if start == Span::default() {
                        "an address"
                    } else {
                        "an address, or a value from a map"
                    }));
                };
                nat.to = To::Value(value);
                if self.takes_sign(":") {
                    nat.ports = Some(self.ports()?);
                }
                Ok(())
            }
        }
    }

    /// Of a map in place: is an IPv6 address the first behind a colon?
    fn family_ahead(&self) -> Kind {
        let ahead = self.tokens.iter().rev().take(200);
        let value = ahead.skip_while(|token| token.kind != Word::Sign(":")).nth(1).map(|token| &token.kind);
        if matches!(value, Some(Word::Address6(_))) { Kind::Address6 } else { Kind::Address4 }
    }

    fn addresses(&mut self, nat: &mut Nat, kind: Kind) -> Parsed<()> {
        let bracketed = matches!(self.peek(), Word::Sign("["));
        let (first, last) = if bracketed {
            let first = self.value(kind)?;
            let last = if self.takes_sign("-") { self.value(kind)? } else { first };
            (first, last)
        } else {
            self.range(kind)?
        };
        let address = |bits: u128| match kind {
            // The kind has 32 bits.
            Kind::Address4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        nat.to = To::Addresses(address(first), address(last));
        if self.takes_sign(":") {
            nat.ports = Some(self.ports()?);
        }
        Ok(())
    }

    fn ports(&mut self) -> Parsed<Ports> {
        if let Word::Number(_) = self.peek() {
            let (first, last) = self.range(Kind::Port)?;
            // The kind has 16 bits.
            return Ok(Ports::Range(first as u16, last as u16));
        }
        match self.expression(&[Kind::Port])? {
            Some(value) => Ok(Ports::Value(value)),
            None => {
                let (first, last) = self.range(Kind::Port)?;
                Ok(Ports::Range(first as u16, last as u16))
            }
        }
    }

    fn flags(&mut self, nat: &mut Nat) -> Parsed<()> {
        loop {
            let span = self.span();
            if self.takes("random") || self.takes("fully-random") {
                nat.choice = Choice::Random;
            } else if self.takes("persistent") {
                nat.persistent = true;
            } else if let Word::Name(word) = self.peek()
                && word == "netmap"
            {
                return Err(Fault::new(span, "netmap is written before the address")
                    .instead("snat ip prefix to ip saddr map { … }"));
            } else {
                return Ok(());
            }
            self.takes_sign(",");
        }
    }
}
