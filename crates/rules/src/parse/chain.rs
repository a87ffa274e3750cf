//! Chains and their rules.
use super::{Parsed, Parser};
use crate::fault::Fault;
use crate::token::Word;
use crate::tree::{Base, Chain, Hook, Rule};

impl Parser<'_> {
    /// Behind the word `chain`.
    pub(super) fn chain(&mut self, at: usize) -> Parsed<()> {
        let (name, span) = self.name("the chain's name")?;
        if self.chain_of(at, &name).is_none() {
            let chain = Chain { name: name.clone(), span, base: None, rules: Vec::new() };
            if let Some(table) = self.ruleset.tables.get_mut(at) {
                table.chains.push(chain);
                self.chains.insert((at, name.clone()), table.chains.len() - 1);
            }
        }
        if !self.takes_sign("{") {
            return self.ends();
        }
        // Filled apart: rules do not look at the chains before them.
        let mut base = None;
        let mut rules = Vec::new();
        let depth = self.depth;
        loop {
            self.skip_separators();
            if self.takes_sign("}") {
                break;
            }
            if matches!(self.peek(), Word::End) {
                return Err(self.unexpected("`}`"));
            }
            let line = self.line(&mut base, &mut rules);
            if let Err(fault) = line {
                self.recover(fault, depth)?;
            }
        }
        if let Some(chain) = self.chain_of(at, &name) {
            chain.base = base.or(chain.base);
            chain.rules.extend(rules);
        }
        Ok(())
    }

    /// One line of a chain's block.
    fn line(&mut self, base: &mut Option<Base>, rules: &mut Vec<Rule>) -> Parsed<()> {
        if self.definition()? {
            return Ok(());
        }
        let span = self.span();
        let word = match self.peek() {
            Word::Name(word) => word.clone(),
            _ => String::new(),
        };
        match word.as_str() {
            "type" => {
                self.next();
                *base = Some(self.base()?);
            }
            "policy" => {
                self.next();
                let drops = self.policy()?;
                match base {
                    Some(base) => base.drops = drops,
                    None => {
                        return Err(Fault::new(span, "only a chain with a hook has a policy")
                            .instead("write `type filter hook forward priority filter;` before it"));
                    }
                }
            }
            "include" => {
                self.next();
                return self.include(span);
            }
            "comment" => {
                self.next();
                self.name("a comment")?;
            }
            "flags" | "device" | "devices" => {
                return Err(Fault::new(span, format!("{word} has no meaning in these chains")));
            }
            _ => {
                let rule = self.rule()?;
                rules.push(rule);
            }
        }
        self.ends()
    }

    /// Behind the word `type`.
    fn base(&mut self) -> Parsed<Base> {
        let (kind, span) = self.name("filter or nat")?;
        let nat = match kind.as_str() {
            // There is one table of routes, whatever the mark: what is routed again goes the same way.
            "filter" | "route" => false,
            "nat" => true,
            _ => return Err(Fault::new(span, format!("{kind}: no such type of chain")).instead("filter or nat")),
        };
        self.keyword("hook")?;
        let (hook, hook_span) = self.name("a hook")?;
        if kind == "route" && hook != "output" {
            return Err(Fault::new(hook_span, "chains of type route stand at the hook output").instead("output"));
        }
        let hook = match hook.as_str() {
            "prerouting" => Hook::Prerouting,
            "input" => Hook::Input,
            "forward" => Hook::Forward,
            "output" => Hook::Output,
            "postrouting" => Hook::Postrouting,
            "ingress" | "egress" => {
                let what = format!("{hook} belongs to a device");
                return Err(Fault::new(hook_span, what).instead("prerouting with priority raw"));
            }
            _ => {
                return Err(Fault::new(hook_span, format!("{hook}: no such hook"))
                    .instead("prerouting, input, forward, output or postrouting"));
            }
        };
        if nat && hook == Hook::Forward {
            return Err(Fault::new(hook_span, "nat chains have no place in forward")
                .instead("prerouting for dnat, postrouting for snat"));
        }
        self.keyword("priority")?;
        let priority = self.priority(hook)?;
        Ok(Base { nat, hook, priority, drops: false })
    }

    /// A name, a number, or a name with a number behind it.
    fn priority(&mut self, hook: Hook) -> Parsed<i32> {
        let span = self.span();
        let mut base = 0_i64;
        let mut sign = 1_i64;
        let mut has_number = true;
        if let Word::Name(name) = self.peek() {
            base = match (name.as_str(), hook) {
                ("raw", _) => -300,
                ("mangle", _) => -150,
                ("dstnat", Hook::Prerouting | Hook::Output) => -100,
                ("filter", _) => 0,
                ("security", _) => 50,
                ("srcnat", Hook::Postrouting | Hook::Input) => 100,
                ("dstnat" | "srcnat", _) => {
                    let what = format!("{name} is no priority of this hook");
                    return Err(Fault::new(span, what).instead("dstnat goes with prerouting, srcnat with postrouting"));
                }
                _ => {
                    let what = format!("{name}: no such priority");
                    return Err(Fault::new(span, what)
                        .instead("raw, mangle, dstnat, filter, security, srcnat, or a number; with + or - a number"));
                }
            };
            self.next();
            has_number = false;
        }
        if self.takes_sign("-") {
            sign = -1;
            has_number = true;
        } else if self.takes_sign("+") {
            has_number = true;
        }
        let number = if has_number { i64::from(self.number32("a number")?) } else { 0 };
        i32::try_from(base + sign * number).map_err(|_| Fault::new(span, "this priority is out of bounds"))
    }

    fn policy(&mut self) -> Parsed<bool> {
        let (policy, span) = self.name("accept or drop")?;
        match policy.as_str() {
            "accept" => Ok(false),
            "drop" => Ok(true),
            _ => Err(Fault::new(span, format!("{policy} is no policy")).instead("accept or drop")),
        }
    }

    /// Statements to the end of the line.
    pub(super) fn rule(&mut self) -> Parsed<Rule> {
        let start = self.span();
        let mut rule = Rule { span: start, statements: Vec::new(), comment: None };
        loop {
            match self.peek() {
                Word::Separator | Word::End | Word::Sign("}") => break,
                Word::Name(name) if name == "comment" => {
                    self.next();
                    rule.comment = Some(self.name("a comment")?.0);
                    continue;
                }
                _ => (),
            }
            rule.span = rule.span.to(self.span());
            let statement = self.statement()?;
            rule.statements.push(statement);
        }
        if rule.statements.is_empty() && rule.comment.is_none() {
            return Err(self.unexpected("a rule"));
        }
        Ok(rule)
    }
}
