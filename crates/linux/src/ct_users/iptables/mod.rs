//! iptables' and ip6tables' rules, as `iptables-save` prints them, legacy and nft alike.
//!
//! A line is split into words as a shell would, then read option by option. An option that is not understood becomes a condition
//! that may hold or not; the words behind it are passed over up to the next option.
use super::listed_ruleset::{
    CtFeature, ListedBaseChain, ListedChain, ListedRule, ListedTable, ListedVerdict, PortSide, RuleMatch,
    RulesetFormat, VerdictBranch, protocol_name,
};
use std::ops::RangeInclusive;

/// Reads what `iptables-save` printed; `family` is `ip` or `ip6`.
///
/// # Errors
/// A line that is none of iptables-save's.
pub fn parse(saved: &str, language: RulesetFormat, family: &str) -> Result<Vec<ListedTable>, String> {
    let mut tables: Vec<ListedTable> = Vec::new();
    for line in
        saved.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#') && *line != "COMMIT")
    {
        let wrong = || format!("not a line of iptables-save: {line:?}");
        if let Some(name) = line.strip_prefix('*') {
            let (family, name) = (family.to_owned(), name.to_owned());
            tables.push(ListedTable { format: language, family, name, chains: Vec::new(), objects: Vec::new() });
            continue;
        }
        let table = tables.last_mut().ok_or_else(wrong)?;
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (name, policy) = words.next().zip(words.next()).ok_or_else(wrong)?;
            let base = builtin_chain(&table.name, name, policy);
            table.chains.push(ListedChain { name: name.to_owned(), base, rules: Vec::new() });
            continue;
        }
        // Counters stand in front of a rule where they were asked for.
        let rule = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, rule)| rule);
        let words = split_shell_words(rule);
        let [append, name, options @ ..] = words.as_slice() else { return Err(wrong()) };
        let chain = table.chains.iter_mut().find(|chain| chain.name == *name);
        let (true, Some(chain)) = (append == "-A", chain) else { return Err(wrong()) };
        let number = chain.rules.len() as u64 + 1;
        chain.rules.push(ListedRule { number, text: rule.to_owned(), ..parse_rule_options(options) });
    }
    Ok(tables)
}

/// Built-in chains have a policy; others have `-`.
fn builtin_chain(table: &str, chain: &str, policy: &str) -> Option<ListedBaseChain> {
    if policy == "-" {
        return None;
    }
    let priority = match (table, chain) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", "PREROUTING" | "OUTPUT") => -100,
        ("nat", _) => 100,
        ("security", _) => 50,
        _ => 0,
    };
    Some(ListedBaseChain {
        hook: chain.to_ascii_lowercase(),
        is_nat: table == "nat",
        priority,
        policy_accept: policy != "DROP",
    })
}

/// What a rule's options say.
fn parse_rule_options(options: &[String]) -> ListedRule {
    let mut rule = ListedRule::default();
    let mut not = false;
    let mut rest = options.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        if word == "!" {
            not = true;
            continue;
        }
        // The words that belong to this option.
        let mut values = Vec::new();
        // Free text may look like an option.
        if ["--comment", "--log-prefix", "--nflog-prefix", "--string"].contains(&word) {
            values.extend(rest.next());
        }
        while let Some(value) = rest.next_if(|next| *next != "!" && !is_option(next)) {
            values.push(value);
        }
        let value = values.first().copied().unwrap_or_default();
        apply_option(&mut rule, word, value, not);
        not = false;
    }
    rule.ct_features.sort_unstable();
    rule.ct_features.dedup();
    rule
}

fn is_option(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|first: char| first == '-' || first.is_ascii_alphabetic()))
}

fn apply_option(rule: &mut ListedRule, option: &str, value: &str, not: bool) {
    let ports = |end| match parse_ports(value) {
        Some(ports) => RuleMatch::Port { side: end, ports, not },
        None => RuleMatch::Unknown,
    };
    let test = match option {
        "-m" | "--match" => {
            rule.ct_features.extend(match_ct_feature(value));
            // What a match asks is in its own options; the modules named here without any are those of a protocol or a comment.
            match value {
                "tcp" | "udp" | "sctp" | "dccp" | "udplite" | "multiport" | "state" | "conntrack" | "comment" => return,
                // Without a connection these two never hold; the others may, if the opposite is asked for.
                "connmark" | "connbytes" => RuleMatch::CtField,
                _ => RuleMatch::Unknown,
            }
        }
        "-p" | "--protocol" if value == "all" => return,
        "-p" | "--protocol" => RuleMatch::Protocol { names: vec![protocol_name(value)], not },
        "--sport" | "--source-port" | "--sports" | "--source-ports" => ports(PortSide::Source),
        "--dport" | "--destination-port" | "--dports" | "--destination-ports" => ports(PortSide::Destination),
        "--ports" => ports(PortSide::Any),
        "--state" | "--ctstate" => {
            let states = value.split(',').map(str::to_ascii_lowercase).collect();
            RuleMatch::CtState { states, not }
        }
        "--ctproto" | "--ctorigsrc" | "--ctorigdst" | "--ctreplsrc" | "--ctrepldst" | "--ctorigsrcport"
        | "--ctorigdstport" | "--ctreplsrcport" | "--ctrepldstport" | "--ctstatus" | "--ctexpire" | "--ctdir" => {
            RuleMatch::CtField
        }
        // `! --syn` is saved as the flags it stands for.
        "--tcp-flags" if not && value == "FIN,SYN,RST,ACK" => RuleMatch::NotSyn,
        "-j" | "--jump" => return apply_target(rule, value),
        "-g" | "--goto" => {
            return rule
                .branches
                .push(VerdictBranch { condition: None, verdict: ListedVerdict::Goto(value.to_owned()) });
        }
        "--comment" | "--set-counters" | "-c" => return,
        // NOTRACK in its newer writing: nothing but this is asked of CT.
        "--notrack" => return set_ct_target_feature(rule, CtFeature::Notrack),
        "--helper" if rule.ct_features.contains(&CtFeature::Unknown) => {
            return set_ct_target_feature(rule, CtFeature::Helper);
        }
        "--timeout" if rule.ct_features.contains(&CtFeature::Unknown) => {
            return set_ct_target_feature(rule, CtFeature::Timeout);
        }
        "--zone" | "--zone-orig" | "--zone-reply" => return set_ct_target_feature(rule, CtFeature::Zone),
        "--ctevents" | "--expevents" => return set_ct_target_feature(rule, CtFeature::Match),
        "--to-destination" | "--to-source" | "--to-ports" => {
            rule.nat_ports.extend(parse_nat_ports(value));
            return;
        }
        // Behind its target stand a rule's options for the target: they decide nothing.
        _ if !rule.branches.is_empty() => return,
        _ => RuleMatch::Unknown,
    };
    rule.matches.push(test);
}

/// What the target CT was asked for.
fn set_ct_target_feature(rule: &mut ListedRule, need: CtFeature) {
    rule.ct_features.retain(|need| *need != CtFeature::Unknown);
    rule.ct_features.push(need);
}

fn apply_target(rule: &mut ListedRule, name: &str) {
    rule.ct_features.extend(target_ct_feature(name));
    let verdict = match name {
        "ACCEPT" => ListedVerdict::Accept,
        "DROP" | "REJECT" => ListedVerdict::Drop,
        "RETURN" => ListedVerdict::Return,
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => ListedVerdict::Accept,
        "QUEUE" | "NFQUEUE" | "TPROXY" | "SYNPROXY" => ListedVerdict::Unknown,
        // These go on to the next rule, as does a chain that comes back.
        "CT" => {
            rule.ct_features.push(CtFeature::Unknown);
            return;
        }
        "NOTRACK" | "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "CONNSECMARK" | "SECMARK" | "TCPMSS" | "TCPOPTSTRIP"
        | "CLASSIFY" | "DSCP" | "TOS" | "TTL" | "HL" | "SET" | "TRACE" | "TEE" | "CHECKSUM" | "AUDIT" | "ECN" => return,
        chain => ListedVerdict::Jump(chain.to_owned()),
    };
    rule.branches.push(VerdictBranch { condition: None, verdict });
}

/// What a match module needs of connection tracking.
pub fn match_ct_feature(name: &str) -> Option<CtFeature> {
    match name {
        "state" | "conntrack" => Some(CtFeature::State),
        "connmark" => Some(CtFeature::Mark),
        "connlabel" => Some(CtFeature::Label),
        "connbytes" => Some(CtFeature::Match),
        "helper" => Some(CtFeature::Helper),
        "connlimit" => Some(CtFeature::Limit),
        _ => None,
    }
}

/// What a target needs of connection tracking. That of `CT` depends on its options.
pub fn target_ct_feature(name: &str) -> Option<CtFeature> {
    match name {
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" | "FULLCONENAT" => Some(CtFeature::Nat),
        "CONNMARK" | "CONNSECMARK" => Some(CtFeature::Mark),
        "SYNPROXY" => Some(CtFeature::Synproxy),
        "NOTRACK" => Some(CtFeature::Notrack),
        "FLOWOFFLOAD" => Some(CtFeature::Flowtable),
        _ => None,
    }
}

/// `80`, `80:90`, `80,81:90`, `:1023`.
fn parse_ports(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    text.split(',').map(|part| parse_port_range(part, ':')).collect()
}

fn parse_port_range(text: &str, separator: char) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once(separator).unwrap_or((text, text));
    let low = if low.is_empty() { 0 } else { low.parse().ok()? };
    Some(low..=if high.is_empty() { u16::MAX } else { high.parse().ok()? })
}

/// The ports in `10.0.0.1:1883`, `[fc00::1]:1883-1890` or, of `--to-ports`, `8080-8090`. An address alone names none.
fn parse_nat_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let ports = match text.rsplit_once(':') {
        Some((address, ports)) if address.ends_with(']') || !address.contains(':') => ports,
        Some(_) => return None,
        None if text.contains(['.', '[']) => return None,
        None => text,
    };
    // What is behind a slash shifts the range; where to is not worked out.
    let ports = ports.split('/').next().unwrap_or(ports);
    Some(parse_port_range(ports, '-').unwrap_or(0..=u16::MAX))
}

/// Splits a line into words: spaces part them, quotes and backslashes keep them together.
fn split_shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut open) = (String::new(), false, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => (quoted, open) = (!quoted, true),
            '\\' => word.extend(letters.next()),
            letter if letter.is_whitespace() && !quoted => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            letter => word.push(letter),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests;
