//! `ct timeout NAME { protocol tcp; l3proto ip; policy = { established : 100, close : 4 } }`.
use super::parser::{ParseResult, Parser};
use crate::ast::{CtTimeoutPolicy, Object, ObjectBody};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use crate::lexer::TokenKind;
use keepstate_engine::Sysctl;

/// States by nft's names, for TCP.
const TCP_STATES: [(&str, Sysctl); 11] = [
    ("syn_sent", Sysctl::TcpTimeoutSynSent),
    ("syn_recv", Sysctl::TcpTimeoutSynRecv),
    ("established", Sysctl::TcpTimeoutEstablished),
    ("fin_wait", Sysctl::TcpTimeoutFinWait),
    ("close_wait", Sysctl::TcpTimeoutCloseWait),
    ("last_ack", Sysctl::TcpTimeoutLastAck),
    ("time_wait", Sysctl::TcpTimeoutTimeWait),
    ("close", Sysctl::TcpTimeoutClose),
    ("syn_sent2", Sysctl::TcpTimeoutSynSent2),
    ("retrans", Sysctl::TcpTimeoutMaxRetrans),
    ("unack", Sysctl::TcpTimeoutUnacknowledged),
];
/// The same for UDP.
const UDP_STATES: [(&str, Sysctl); 2] = [("unreplied", Sysctl::UdpTimeout), ("replied", Sysctl::UdpTimeoutStream)];

/// Name of a state of TCP or UDP, by the sysctl of its timeout.
#[cfg(feature = "json")]
pub(crate) fn timeout_state_name(protocol: u8, sysctl: Sysctl) -> Option<&'static str> {
    let states: &[(&str, Sysctl)] = if protocol == 6 { &TCP_STATES } else { &UDP_STATES };
    states.iter().find(|(_, known)| *known == sysctl).map(|(name, _)| *name)
}

impl Parser<'_> {
    /// After `ct timeout`.
    pub(super) fn parse_ct_timeout(&mut self, table: usize) -> ParseResult<()> {
        let (name, span) = self.expect_object_name("ct")?;
        let recording = self.start_recording();
        self.expect_punct("{")?;
        let mut timeout = CtTimeoutPolicy { protocol: 0, v6: None, seconds: Vec::new() };
        self.parse_object_properties(|parser| parser.parse_timeout_property(&mut timeout))?;
        if timeout.seconds.is_empty() {
            return Err(Diagnostic::new(span, format!("ct timeout {name} has no policy"))
                .with_help("write `policy = { established : 3600 }`"));
        }
        let text = self.recorded_text(recording, ";");
        self.add_object(table, Object { name, span, body: ObjectBody::CtTimeout(timeout), text, handle: 0 })
    }

    /// `protocol tcp`, `l3proto ip` or `policy = { … }`.
    fn parse_timeout_property(&mut self, timeout: &mut CtTimeoutPolicy) -> ParseResult<()> {
        let at = self.span();
        if self.eat_keyword("protocol") {
            let (protocol, at) = self.expect_word("tcp or udp")?;
            timeout.protocol = match protocol.as_str() {
                "tcp" => 6,
                "udp" => 17,
                _ => {
                    return Err(Diagnostic::new(at, format!("timeouts for protocol {protocol} are not supported"))
                        .with_help("use tcp or udp"));
                }
            };
        } else if self.eat_keyword("l3proto") {
            let (family, at) = self.expect_word("ip or ip6")?;
            timeout.v6 = match family.as_str() {
                "ip" => Some(false),
                "ip6" => Some(true),
                "inet" => None,
                _ => {
                    return Err(
                        Diagnostic::new(at, format!("unknown family `{family}`")).with_help("use ip, ip6 or inet")
                    );
                }
            };
        } else if self.eat_keyword("policy") {
            let states: &[(&str, Sysctl)] = match timeout.protocol {
                6 => &TCP_STATES,
                17 => &UDP_STATES,
                _ => {
                    return Err(Diagnostic::new(at, "a policy needs a protocol")
                        .with_help("write `protocol tcp;` above the policy"));
                }
            };
            self.parse_timeout_policy(states, timeout)?;
        } else {
            return Err(self.unexpected("protocol, l3proto, policy, comment or `}`"));
        }
        self.expect_end()
    }

    /// After `policy`: `= { state : seconds, … }`.
    fn parse_timeout_policy(&mut self, states: &[(&str, Sysctl)], timeout: &mut CtTimeoutPolicy) -> ParseResult<()> {
        self.expect_punct("=")?;
        self.expect_punct("{")?;
        loop {
            self.skip_separators();
            if self.eat_punct("}") {
                return Ok(());
            }
            let (state, at) = self.expect_word("a state")?;
            let Some((_, sysctl)) = states.iter().find(|(name, _)| *name == state) else {
                let names: Vec<&str> = states.iter().map(|(name, _)| *name).collect();
                return Err(Diagnostic::new(at, format!("unknown state `{state}`"))
                    .with_help(format!("states: {}", names.join(", "))));
            };
            self.expect_punct(":")?;
            let at = self.span();
            self.refuse_quoted("a duration")?;
            // Here seconds need no unit.
            let seconds = u32::try_from(self.parse_value(DataType::Duration)?)
                .map_err(|_| Diagnostic::new(at, "this timeout is too long"))?;
            if seconds == 0 {
                return Err(Diagnostic::new(at, "a timeout of 0 is not possible").with_help("use 1s or more"));
            }
            timeout.seconds.push((*sysctl, seconds));
            if !self.eat_punct(",") && !matches!(self.peek(), TokenKind::Punct("}")) {
                self.skip_separators();
            }
        }
    }
}
