//! `ct timeout NAME { protocol tcp; l3proto ip; policy = { established : 100, close : 4 } }`.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::token::Word;
use crate::tree::{Object, ObjectBody, Timeout};
use keepstate_engine::Knob;

/// States by nft's names, for TCP.
const TCP: [(&str, Knob); 11] = [
    ("syn_sent", Knob::TcpTimeoutSynSent),
    ("syn_recv", Knob::TcpTimeoutSynRecv),
    ("established", Knob::TcpTimeoutEstablished),
    ("fin_wait", Knob::TcpTimeoutFinWait),
    ("close_wait", Knob::TcpTimeoutCloseWait),
    ("last_ack", Knob::TcpTimeoutLastAck),
    ("time_wait", Knob::TcpTimeoutTimeWait),
    ("close", Knob::TcpTimeoutClose),
    ("syn_sent2", Knob::TcpTimeoutSynSent),
    ("retrans", Knob::TcpTimeoutMaxRetrans),
    ("unack", Knob::TcpTimeoutUnacknowledged),
];
/// And for UDP.
const UDP: [(&str, Knob); 2] = [("unreplied", Knob::UdpTimeout), ("replied", Knob::UdpTimeoutStream)];

impl Parser<'_> {
    /// Behind `ct timeout`.
    pub(super) fn timeout(&mut self, table: usize) -> Parsed<()> {
        let (name, span) = self.name("its name")?;
        self.sign("{")?;
        let mut timeout = Timeout { protocol: 0, v6: None, seconds: Vec::new() };
        loop {
            self.skip_separators();
            let at = self.span();
            if self.takes_sign("}") {
                break;
            } else if self.takes("protocol") {
                let (protocol, at) = self.name("tcp or udp")?;
                timeout.protocol = match protocol.as_str() {
                    "tcp" => 6,
                    "udp" => 17,
                    _ => return Err(Fault::new(at, format!("{protocol} has no timeouts here")).instead("tcp or udp")),
                };
            } else if self.takes("l3proto") {
                let (family, at) = self.name("ip or ip6")?;
                timeout.v6 = match family.as_str() {
                    "ip" => Some(false),
                    "ip6" => Some(true),
                    "inet" => None,
                    _ => return Err(Fault::new(at, format!("{family}: no such family")).instead("ip, ip6 or inet")),
                };
            } else if self.takes("policy") {
                let states: &[(&str, Knob)] = match timeout.protocol {
                    6 => &TCP,
                    17 => &UDP,
                    _ => return Err(Fault::new(at, "whose policy?").instead("protocol tcp above it")),
                };
                self.seconds_of(states, &mut timeout)?;
            } else if self.takes("comment") {
                self.name("a comment")?;
            } else {
                return Err(self.unexpected("protocol, l3proto, policy or the end of the timeout"));
            }
        }
        if timeout.seconds.is_empty() {
            return Err(Fault::new(span, format!("{name} says nothing")).instead("policy = { established : 3600 }"));
        }
        self.add_object(table, Object { name, span, what: ObjectBody::Timeout(timeout) })
    }

    /// Behind `policy`: `= { state : seconds, … }`.
    fn seconds_of(&mut self, states: &[(&str, Knob)], timeout: &mut Timeout) -> Parsed<()> {
        self.sign("=")?;
        self.sign("{")?;
        loop {
            self.skip_separators();
            if self.takes_sign("}") {
                return Ok(());
            }
            let (state, at) = self.name("a state")?;
            let Some((_, knob)) = states.iter().find(|(name, _)| *name == state) else {
                let names: Vec<&str> = states.iter().map(|(name, _)| *name).collect();
                return Err(Fault::new(at, format!("{state}: no such state")).instead(names.join(", ")));
            };
            self.sign(":")?;
            let at = self.span();
            let seconds = u32::try_from(self.time()?).map_err(|_| Fault::new(at, "this time is too long"))?;
            if seconds == 0 {
                return Err(Fault::new(at, "a connection of no time").instead("1 second or more"));
            }
            timeout.seconds.push((*knob, seconds));
            if !self.takes_sign(",") && !matches!(self.peek(), Word::Sign("}")) {
                self.skip_separators();
            }
        }
    }
}
