//! `ct expectation NAME { protocol tcp; dport 5432; timeout 1h; size 12; l3proto ip; }`.
use super::parser::{ParseResult, Parser};
use super::value::parse_duration_millis;
use crate::ast::{Object, ObjectBody, TableFamily};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use keepstate_engine::ExpectationPolicy;

/// What is said of an expectation so far.
#[derive(Default)]
struct Properties {
    protocol: Option<u8>,
    port: Option<u16>,
    v6: Option<bool>,
    timeout_millis: Option<u32>,
    size: Option<u8>,
}

impl Parser<'_> {
    /// After `ct expectation`.
    pub(super) fn parse_ct_expectation(&mut self, table: usize) -> ParseResult<()> {
        let (name, span) = self.expect_object_name("ct")?;
        let recording = self.start_recording();
        self.expect_punct("{")?;
        let mut said = Properties::default();
        self.parse_object_properties(|parser| parser.parse_expectation_property(table, &mut said))?;
        let policy = self.complete_expectation(table, &said, &name, span)?;
        let text = self.recorded_text(recording, ";");
        self.add_object(table, Object { name, span, body: ObjectBody::CtExpectation(policy), text, handle: 0 })
    }

    fn parse_expectation_property(&mut self, table: usize, said: &mut Properties) -> ParseResult<()> {
        let (word, at) = self.expect_word("protocol, dport, timeout, size, l3proto, comment or `}`")?;
        match word.as_str() {
            "protocol" => {
                let (protocol, at) = self.expect_word("tcp or udp")?;
                said.protocol = Some(match protocol.as_str() {
                    "tcp" => 6,
                    "udp" => 17,
                    _ => {
                        return Err(Diagnostic::new(
                            at,
                            format!("connections of protocol {protocol} are not expected"),
                        )
                        .with_help("use tcp or udp"));
                    }
                });
            }
            "dport" => {
                let (number, at) = self.expect_number("a port")?;
                let port = u16::try_from(number).ok().filter(|port| *port != 0);
                said.port =
                    Some(port.ok_or_else(|| Diagnostic::new(at, format!("a port is 1 to 65535, not {number}")))?);
            }
            "size" => {
                let (number, at) = self.expect_number("a number of connections")?;
                let size = u8::try_from(number).ok().filter(|size| *size != 0);
                let wrong = || Diagnostic::new(at, format!("a connection expects 1 to 255 others, not {number}"));
                said.size = Some(size.ok_or_else(wrong)?);
            }
            "timeout" => said.timeout_millis = Some(self.parse_expectation_timeout()?),
            "l3proto" => {
                let (family, at) = self.expect_word("ip or ip6")?;
                if family == "inet" {
                    return Err(Diagnostic::new(at, "a connection is expected of one family")
                        .with_help("use ip or ip6, and two objects for both"));
                }
                self.check_l3proto(table, &family, at)?;
                said.v6 = Some(family == "ip6");
            }
            _ => {
                return Err(Diagnostic::new(at, format!("unknown property `{word}` of an expectation"))
                    .with_help("use protocol, dport, timeout, size, l3proto or comment"));
            }
        }
        self.expect_end()
    }

    /// A duration with its units, in milliseconds.
    fn parse_expectation_timeout(&mut self) -> ParseResult<u32> {
        let at = self.span();
        self.refuse_quoted("a duration")?;
        let (word, _) = self.expect_word("a duration, like 1h30m")?;
        let millis = parse_duration_millis(&word)
            .ok_or_else(|| Diagnostic::new(at, format!("`{word}` is no duration")).with_help("write 1d2h3m4s"))?;
        // The engine counts as Linux does, in ticks of 31 bits.
        u32::try_from(millis)
            .ok()
            .filter(|millis| *millis != 0)
            .ok_or_else(|| Diagnostic::new(at, "an expectation waits for 1 ms to 49 days"))
    }

    /// As in nft, nothing but the family may be missing: that is the table's.
    fn complete_expectation(
        &self,
        table: usize,
        said: &Properties,
        name: &str,
        span: Span,
    ) -> ParseResult<ExpectationPolicy> {
        let missing = |what: &str, example: &str| {
            Diagnostic::new(span, format!("ct expectation {name} has no {what}"))
                .with_help(format!("write `{example};` in its block"))
        };
        let family = self.ruleset.tables.get(table).map(|table| table.family);
        let v6 = said.v6.or(match family {
            Some(TableFamily::Ip) => Some(false),
            Some(TableFamily::Ip6) => Some(true),
            _ => None,
        });
        Ok(ExpectationPolicy {
            protocol: said.protocol.ok_or_else(|| missing("protocol", "protocol tcp"))?,
            port: said.port.ok_or_else(|| missing("port", "dport 5432"))?,
            v6: v6.ok_or_else(|| missing("family", "l3proto ip"))?,
            timeout_millis: said.timeout_millis.ok_or_else(|| missing("timeout", "timeout 1h"))?,
            size: said.size.ok_or_else(|| missing("size", "size 12"))?,
        })
    }
}
