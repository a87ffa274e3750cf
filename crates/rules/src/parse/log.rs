//! The log statement.
use super::parser::{ParseResult, Parser};
use crate::ast::{Log, LogFlags};
use crate::diagnostic::Diagnostic;
use crate::lexer::{TokenKind, tokenize};

/// Log levels, by syslog's numbers.
const LOG_LEVELS: [(&str, u8); 8] =
    [("emerg", 0), ("alert", 1), ("crit", 2), ("err", 3), ("warn", 4), ("notice", 5), ("info", 6), ("debug", 7)];

impl Parser<'_> {
    /// What stands behind `log`.
    pub(super) fn parse_log(&mut self) -> ParseResult<Log> {
        let mut log = Log::default();
        let mut flags_span = None;
        loop {
            let span = self.span();
            if self.eat_keyword("prefix") {
                self.expand_in_text()?;
                log.prefix = self.expect_name("a prefix in quotation marks")?.0;
                if log.prefix.len() > 127 {
                    return Err(Diagnostic::new(span, "a log prefix has at most 127 bytes"));
                }
            } else if self.eat_keyword("level") {
                let (level, span) = self.expect_name("a log level")?;
                if level == "audit" {
                    log.audit = true;
                    let what = "log level audit writes its records to the gateway's log: the audit log is the kernel's";
                    self.note(Diagnostic::new(span, what).with_help("look for `type=NETFILTER_PKT` there"));
                    continue;
                }
                let found = LOG_LEVELS.iter().find(|(name, _)| *name == level);
                let Some((_, number)) = found else {
                    return Err(Diagnostic::new(span, format!("unknown log level `{level}`"))
                        .with_help("use emerg, alert, crit, err, warn, notice, info or debug"));
                };
                log.level = Some(*number);
            } else if self.eat_keyword("flags") {
                flags_span = Some(span);
                self.parse_log_flags(&mut log.flags)?;
            } else if self.eat_keyword("group") {
                let group = self.expect_u32("a group number")?;
                log.group =
                    Some(u16::try_from(group).map_err(|_| Diagnostic::new(span, "a log group is at most 65535"))?);
            } else if self.eat_keyword("snaplen") {
                // Lines are written immediately and hold no packet.
                log.snaplen = Some(self.expect_u32("a number of bytes")?);
            } else if self.eat_keyword("queue-threshold") {
                log.queue_threshold = Some(self.expect_u32("a number of packets")?);
            } else if log.audit && (Log { audit: true, ..Log::default() }) != log {
                return Err(Diagnostic::new(span, "log level audit has no further options")
                    .with_help("write a second log statement for them"));
            } else if let (Some(_), Some(_)) = (log.group, log.level) {
                return Err(
                    Diagnostic::new(span, "log group and log level exclude each other").with_help("remove one of them")
                );
            } else if let (Some(_), Some(span)) = (log.group, flags_span) {
                return Err(
                    Diagnostic::new(span, "log group and log flags exclude each other").with_help("remove one of them")
                );
            } else {
                return Ok(log);
            }
        }
    }

    /// Variables inside of the next text are replaced by their values, in what is listed too.
    fn expand_in_text(&mut self) -> ParseResult<()> {
        let span = self.span();
        let TokenKind::Quoted(text) = self.peek() else { return Ok(()) };
        let mut parts = text.split('$');
        let mut expanded = parts.next().unwrap_or_default().to_owned();
        let parts: Vec<String> = parts.map(str::to_owned).collect();
        if parts.is_empty() {
            return Ok(());
        }
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
            let (name, behind) = part.split_at(end);
            let Some(value) = self.variables.get(name) else {
                return Err(Diagnostic::new(span, format!("undefined variable ${name}"))
                    .with_help("define it above this line; a prefix has no other use for `$`"));
            };
            let [value] = value.as_slice() else {
                return Err(Diagnostic::new(span, format!("${name} is not one word"))
                    .with_help("use a variable of one word or one text"));
            };
            match &value.kind {
                TokenKind::Number(number) => expanded += &number.to_string(),
                TokenKind::Ident(text) | TokenKind::Quoted(text) => expanded += text,
                _ => {
                    let written = self.sources.text(value.span.file);
                    expanded += written.get(value.span.start as usize..value.span.end as usize).unwrap_or_default();
                }
            }
            expanded += behind;
        }
        let text = format!("\"{expanded}\"");
        let file = self.sources.add("log prefix", text.clone(), Some(span));
        let token = tokenize(file, &text)?.into_iter().next();
        if let (Some(last), Some(token)) = (self.tokens.last_mut(), token) {
            *last = token;
        }
        Ok(())
    }

    /// What stands behind `log flags`.
    fn parse_log_flags(&mut self, flags: &mut LogFlags) -> ParseResult<()> {
        let (of, span) = self.expect_word("tcp, ip, skuid, ether or all")?;
        match of.as_str() {
            "all" => {
                *flags = LogFlags { tcp_sequence: true, tcp_options: true, ip_options: true, ether: true, skuid: true };
                Ok(())
            }
            "skuid" => {
                flags.skuid = true;
                Ok(())
            }
            "ether" => {
                flags.ether = true;
                Ok(())
            }
            "ip" => {
                flags.ip_options = true;
                self.expect_keyword("options")
            }
            "tcp" => loop {
                let (field, span) = self.expect_word("sequence or options")?;
                match field.as_str() {
                    "sequence" => flags.tcp_sequence = true,
                    "options" => flags.tcp_options = true,
                    other => {
                        return Err(Diagnostic::new(span, format!("unknown flag `tcp {other}` of log"))
                            .with_help("use sequence, options, or both with a comma between them"));
                    }
                }
                if !self.eat_punct(",") {
                    return Ok(());
                }
            },
            other => Err(Diagnostic::new(span, format!("unknown flag `{other}` of log"))
                .with_help("use tcp sequence, tcp options, ip options, skuid, ether or all")),
        }
    }
}
