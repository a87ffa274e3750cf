//! `vxlan vni 10`, `geneve ip saddr …`, `gre tcp dport …`: the tunnel's own header, and the packet in it.
use super::parser::{ParseResult, Parser};
use crate::ast::{PayloadBase, Selector, Tunnel, TunnelField, TunnelPart};
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;

impl Parser<'_> {
    /// After the keyword of a tunnel.
    pub(super) fn parse_tunnel_field(&mut self, tunnel: Tunnel) -> ParseResult<TunnelField> {
        let name = tunnel.keyword();
        let span = self.span();
        let TokenKind::Ident(word) = self.peek() else {
            return Err(self.unexpected("a field of the tunnel, or of the packet in it"));
        };
        let own = tunnel.header_fields().iter().find(|(field, ..)| field == word);
        if let Some((_, bits, kind)) = own {
            self.next_token();
            return Ok(TunnelField { tunnel, part: TunnelPart::Header(*bits, *kind) });
        }
        let part = match self.parse_selector()? {
            Some(Selector::Ip(field)) => TunnelPart::Ip(field),
            Some(Selector::Ip6(field)) => TunnelPart::Ip6(field),
            Some(Selector::Port(protocol, end)) => TunnelPart::Port(protocol, end),
            Some(Selector::Payload(field)) if field.base == PayloadBase::Link && tunnel.carries_frames() => {
                TunnelPart::Link(field.bits, field.data_type)
            }
            Some(Selector::Payload(field)) if field.protocol.is_some() => TunnelPart::Transport(field),
            _ => {
                let mut fields: Vec<&str> = tunnel.header_fields().iter().map(|(field, ..)| *field).collect();
                fields.extend(if tunnel.carries_frames() { &["ether", "vlan"][..] } else { &[] });
                return Err(Diagnostic::new(span, format!("this is nothing that can be read in {name}")).with_help(
                    format!(
                        "use {}, or a field of ip, ip6, tcp, udp, icmp, icmpv6, igmp, ah, esp, comp",
                        fields.join(", ")
                    ),
                ));
            }
        };
        Ok(TunnelField { tunnel, part })
    }
}
