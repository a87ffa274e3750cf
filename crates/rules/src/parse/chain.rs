//! Chains and their rules.
use super::parser::{ParseResult, Parser};
use crate::ast::{BaseChainSpec, Chain, Hook, Rule, TableFamily};
use crate::check::ProtocolContext;
use crate::datatype::encode_name;
use crate::diagnostic::Diagnostic;
use crate::lexer::{TokenKind, tokenize};
use crate::source::Span;

/// Priority of connection tracking (NF_IP_PRI_CONNTRACK): translation needs a connection.
const CONNTRACK_PRIORITY: i32 = -200;

/// What a chain's block says besides its rules.
#[derive(Default)]
struct ChainHead {
    /// Policy `drop`, else `accept`; and its place.
    policy: Option<(bool, Span)>,
    base: Option<BaseChainSpec>,
    base_text: String,
    devices: Vec<String>,
    comment: Option<String>,
    /// Its hook is left out: no packet reaches it.
    without_hook: bool,
}

impl Parser<'_> {
    /// After the keyword `chain`.
    pub(super) fn parse_chain(&mut self, at: usize) -> ParseResult<()> {
        let (name, span) = self.expect_identifier("a chain name")?;
        let again = self.chain_mut(at, &name).is_some();
        if std::mem::take(&mut self.script.create) && again {
            return Err(Diagnostic::new(span, format!("chain {name} already exists")));
        }
        if !again {
            let registration = self.ruleset.registrations;
            self.ruleset.registrations += 1;
            let chain = Chain {
                name: name.clone(),
                span,
                base: None,
                base_text: String::new(),
                devices: Vec::new(),
                comment: None,
                handle: 0,
                registration,
                rules: Vec::new(),
            };
            if let Some(table) = self.ruleset.tables.get_mut(at) {
                table.chains.push(chain);
                self.chains.insert((at, name.clone()), table.chains.len() - 1);
            }
        }
        if !self.eat_punct("{") {
            return self.expect_end();
        }
        // Collected apart: the chain is stored when its block is complete.
        let mut head = ChainHead::default();
        let mut rules = Vec::new();
        let depth = self.brace_depth;
        loop {
            self.skip_separators();
            if self.eat_punct("}") {
                break;
            }
            if matches!(self.peek(), TokenKind::Eof) {
                return Err(self.unexpected("`}`"));
            }
            let is_type = matches!(self.peek(), TokenKind::Ident(word) if word == "type");
            let known = rules.len();
            let line = self.parse_chain_line(at, &mut head, &mut rules);
            if let Err(diagnostic) = line {
                head.without_hook |= is_type && diagnostic.unsupported;
                self.recover(diagnostic, depth)?;
            } else if let Some(rule) = rules.get(known..).and_then(<[Rule]>::first)
                && self.names_left_out(at, rule)
            {
                rules.truncate(known);
            }
        }
        if let Some(chain) = self.chain_mut(at, &name) {
            match (&mut chain.base, head.base) {
                (_, None) => (),
                (Some(known), Some(base)) => {
                    if (known.nat, known.reroutes, known.hook, known.priority)
                        != (base.nat, base.reroutes, base.hook, base.priority)
                    {
                        return Err(Diagnostic::new(
                            span,
                            format!("chain {name} is declared above with another type, hook or priority"),
                        )
                        .with_help("use one declaration, or another name"));
                    }
                }
                (None, Some(_)) if again => {
                    return Err(Diagnostic::new(span, format!("chain {name} is declared above without a hook"))
                        .with_help("write `type … hook … priority …;` where the chain is declared first"));
                }
                (None, Some(_)) => {
                    (chain.base, chain.base_text, chain.devices) = (head.base, head.base_text, head.devices);
                }
            }
            match (&mut chain.base, head.policy) {
                (Some(base), Some((policy_drop, _))) => base.policy_drop = policy_drop,
                (None, Some(_)) if head.without_hook => (),
                (None, Some((_, span))) => {
                    return Err(Diagnostic::new(span, "a chain without a hook has no policy")
                        .with_help("write `type filter hook forward priority filter;` before the policy"));
                }
                (_, None) => (),
            }
            chain.comment = head.comment.or(chain.comment.take());
            chain.rules.extend(rules);
        }
        Ok(())
    }

    /// One line of a chain's block.
    fn parse_chain_line(&mut self, at: usize, head: &mut ChainHead, rules: &mut Vec<Rule>) -> ParseResult<()> {
        if self.parse_definition()? {
            return Ok(());
        }
        let span = self.span();
        let word = match self.peek() {
            TokenKind::Ident(word) => word.clone(),
            _ => String::new(),
        };
        match word.as_str() {
            "type" => {
                let recording = self.start_recording();
                self.next_token();
                let (base, devices) = self.parse_base_chain()?;
                if base.hook == Hook::Ingress && !self.is_inet(at) {
                    return Err(Diagnostic::new(span, "hook ingress is possible in tables of family inet only")
                        .with_help("use a table of family inet, or `hook prerouting priority raw`"));
                }
                (head.base, head.devices) = (Some(base), devices);
                head.base_text = self.recorded_text(recording, "");
            }
            "policy" => {
                self.next_token();
                let policy_drop = self.parse_policy()?;
                if head.policy.is_some() {
                    return Err(Diagnostic::new(span, "the policy of this chain is given twice")
                        .with_help("remove one of them"));
                }
                head.policy = Some((policy_drop, span));
            }
            "include" => {
                self.next_token();
                return self.parse_include(span);
            }
            "comment" => {
                self.next_token();
                head.comment = Some(self.expect_only_comment(head.comment.is_some())?);
            }
            "flags" | "device" | "devices" => {
                return Err(Diagnostic::new(span, format!("`{word}` is not supported in chains of this family")));
            }
            _ => {
                let rule = self.parse_rule(Some(at))?;
                rules.push(rule);
            }
        }
        self.expect_end()
    }

    fn is_inet(&self, table: usize) -> bool {
        self.ruleset.tables.get(table).is_some_and(|table| table.family == TableFamily::Inet)
    }

    /// `device NAME` or `devices = { NAME, … }`.
    fn parse_chain_devices(&mut self) -> ParseResult<Vec<String>> {
        let mut names = Vec::new();
        let several = !self.eat_keyword("device");
        if several {
            self.expect_keyword("devices")?;
            self.expect_punct("=")?;
            self.expect_punct("{")?;
        }
        loop {
            self.skip_separators();
            if several && self.eat_punct("}") {
                break;
            }
            let (TokenKind::Ident(name) | TokenKind::Quoted(name)) = self.peek() else {
                return Err(self.unexpected("the name of an interface"));
            };
            let name = name.clone();
            let span = self.next_token().span;
            if encode_name(&name).is_none() {
                return Err(Diagnostic::new(span, "an interface name has at most 15 bytes"));
            }
            names.push(name);
            if !several {
                break;
            }
            self.eat_punct(",");
        }
        Ok(names)
    }

    /// After the keyword `type`; with the names of its devices.
    fn parse_base_chain(&mut self) -> ParseResult<(BaseChainSpec, Vec<String>)> {
        let (kind, span) = self.expect_word("filter or nat")?;
        let nat = match kind.as_str() {
            "filter" | "route" => false,
            "nat" => true,
            _ => {
                return Err(
                    Diagnostic::new(span, format!("unknown chain type `{kind}`")).with_help("use filter, nat or route")
                );
            }
        };
        self.expect_keyword("hook")?;
        let (hook, hook_span) = self.expect_word("a hook")?;
        if kind == "route" && hook != "output" {
            return Err(Diagnostic::new(hook_span, "chains of type route are only possible at hook output")
                .with_help("use `hook output`"));
        }
        let hook = match hook.as_str() {
            "prerouting" => Hook::Prerouting,
            "input" => Hook::Input,
            "forward" => Hook::Forward,
            "output" => Hook::Output,
            "postrouting" => Hook::Postrouting,
            "ingress" => Hook::Ingress,
            "egress" => {
                let what = "hook egress is not supported: it belongs to a device, behind everything that is done here";
                return Err(Diagnostic::unsupported(hook_span, what)
                    .with_help("use `hook postrouting`, with oifname for the device"));
            }
            _ => {
                return Err(Diagnostic::new(hook_span, format!("unknown hook `{hook}`"))
                    .with_help("use prerouting, input, forward, output or postrouting"));
            }
        };
        let devices = if hook == Hook::Ingress { self.parse_chain_devices()? } else { Vec::new() };
        if nat && matches!(hook, Hook::Forward | Hook::Ingress) {
            let what = format!("chains of type nat are not possible at hook {hook}");
            return Err(
                Diagnostic::new(hook_span, what).with_help("use hook prerouting for dnat, postrouting for snat")
            );
        }
        self.expect_keyword("priority")?;
        self.expand_quoted_priority()?;
        let priority_span = self.span();
        let priority = self.parse_priority(hook)?;
        if nat && priority <= CONNTRACK_PRIORITY {
            let what = format!("a chain of type nat at priority {priority} would run before connection tracking");
            return Err(Diagnostic::new(priority_span.to(self.last_span), what)
                .with_help("use dstnat (-100) at prerouting and srcnat (100) at postrouting; at least -199"));
        }
        Ok((BaseChainSpec { nat, reroutes: kind == "route", hook, priority, policy_drop: false }, devices))
    }

    /// A variable may hold a priority in quotation marks: `define p = "filter - 10"`.
    fn expand_quoted_priority(&mut self) -> ParseResult<()> {
        if self.is_variable_next()
            && let TokenKind::Quoted(text) = self.peek()
        {
            let text = text.clone();
            let quoted = self.span();
            self.tokens.pop();
            let mut tokens = tokenize(quoted.file, &text).map_err(|error| Diagnostic { span: quoted, ..error })?;
            tokens.pop();
            for token in &mut tokens {
                // Behind the quotation mark.
                let inside = quoted.start + 1;
                token.span = Span { file: quoted.file, start: inside + token.span.start, end: inside + token.span.end };
            }
            self.push_tokens(tokens, quoted)?;
        }
        Ok(())
    }

    /// A name, a number, or a name plus or minus a number.
    pub(super) fn parse_priority(&mut self, hook: Hook) -> ParseResult<i32> {
        let span = self.span();
        let mut base = 0_i64;
        let mut sign = 1_i64;
        let mut has_number = true;
        if let TokenKind::Ident(name) = self.peek() {
            base = match (name.as_str(), hook) {
                ("raw", _) => -300,
                ("mangle", _) => -150,
                ("dstnat", Hook::Prerouting | Hook::Output) => -100,
                ("filter", _) => 0,
                ("security", _) => 50,
                ("srcnat", Hook::Postrouting | Hook::Input) => 100,
                ("dstnat" | "srcnat", _) => {
                    let what = format!("priority {name} is not possible at this hook");
                    return Err(Diagnostic::new(span, what)
                        .with_help("dstnat belongs to prerouting and output, srcnat to postrouting and input"));
                }
                _ => {
                    let what = format!("unknown priority `{name}`");
                    return Err(Diagnostic::new(span, what).with_help(
                        "use raw, mangle, dstnat, filter, security, srcnat (plus or minus a number), or a number",
                    ));
                }
            };
            self.next_token();
            has_number = false;
        }
        if self.eat_punct("-") {
            sign = -1;
            has_number = true;
        } else if self.eat_punct("+") {
            has_number = true;
        }
        let number = if has_number { i64::from(self.expect_u32("a number")?) } else { 0 };
        i32::try_from(base + sign * number).map_err(|_| Diagnostic::new(span, "this priority is out of range"))
    }

    fn parse_policy(&mut self) -> ParseResult<bool> {
        let (policy, span) = self.expect_word_or_variable("accept or drop")?;
        match policy.as_str() {
            "accept" => Ok(false),
            "drop" => Ok(true),
            _ => Err(Diagnostic::new(span, format!("unknown policy `{policy}`")).with_help("use accept or drop")),
        }
    }

    /// Statements up to the end of the line.
    pub(super) fn parse_rule(&mut self, table: Option<usize>) -> ParseResult<Rule> {
        self.in_anonymous_chain = false;
        self.parse_rule_of(table)
    }

    /// The same, inside of another rule too.
    pub(super) fn parse_rule_of(&mut self, table: Option<usize>) -> ParseResult<Rule> {
        self.rule_context =
            table.and_then(|table| self.ruleset.tables.get(table)).map(|table| ProtocolContext::new(table.family));
        self.anonymous_sets = 0;
        self.rule_table = table;
        let rule = self.parse_rule_body();
        self.rule_context = None;
        rule
    }

    fn parse_rule_body(&mut self) -> ParseResult<Rule> {
        let start = self.span();
        let mut rule = Rule {
            span: start,
            statements: Vec::new(),
            places: Vec::new(),
            handle: 0,
            anonymous_sets: 0,
            replaced: 0,
            text: String::new(),
            comment: None,
        };
        let recording = self.start_recording();
        self.rule_recording = recording;
        loop {
            match self.peek() {
                TokenKind::Separator | TokenKind::Eof | TokenKind::Punct("}") => break,
                TokenKind::Ident(name) if name == "comment" => {
                    self.next_token();
                    rule.comment = Some(self.expect_comment()?);
                    // Nothing stands behind it.
                    break;
                }
                _ => (),
            }
            let begin = self.span();
            rule.span = rule.span.to(begin);
            self.unqualified = None;
            let statement = self.parse_statement()?;
            if let Some(context) = &mut self.rule_context {
                context.follow(&statement);
            }
            rule.statements.push(statement);
            rule.places.push(begin.to(self.last_span));
        }
        if rule.statements.is_empty() {
            return Err(self.unexpected("a rule"));
        }
        rule.text = self.recorded_text(recording, "");
        rule.anonymous_sets = std::mem::take(&mut self.anonymous_sets);
        Ok(rule)
    }
}
