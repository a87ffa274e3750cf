//! `tproxy to :50080`, `tproxy ip6 to [::1]:50080`.
use super::parser::{ParseResult, Parser};
use crate::ast::{Nat, NatPorts, NatTarget, TproxySpec};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use keepstate_engine::{Manip, PortSelection};

impl Parser<'_> {
    /// After the keyword `tproxy`.
    pub(super) fn parse_tproxy(&mut self, start: Span) -> ParseResult<TproxySpec> {
        let is_family =
            (self.is_keyword_ahead(0, "ip") || self.is_keyword_ahead(0, "ip6")) && self.is_keyword_ahead(1, "to");
        if !is_family && !self.is_keyword_ahead(0, "to") {
            return Err(self.unexpected("`to`, `ip to` or `ip6 to`"));
        }
        let mut nat = Nat {
            manip: Manip::Destination,
            v6: None,
            target: NatTarget::Unchanged,
            ports: None,
            port_selection: PortSelection::PreferOriginal,
            fully_random: false,
            persistent: false,
            netmap: false,
        };
        self.parse_nat_target(&mut nat, start)?;
        let span = start.to(self.last_span);
        let is_range = matches!(nat.target, NatTarget::Addresses(first, last) if first != last)
            || matches!(nat.ports, Some(NatPorts::Range(first, last)) if first != last);
        if is_range {
            return Err(Diagnostic::new(span, "tproxy takes one address and one port, no ranges")
                .with_help("write `tproxy to 127.0.0.1:50080`"));
        }
        Ok(TproxySpec { v6: nat.v6, target: nat.target, port: nat.ports })
    }
}
