//! iptables' and ip6tables' rules, as `iptables-save` prints them, legacy and nft alike.
//!
//! A line is split into words as a shell would, then read option by option. An option that is not understood becomes a condition
//! that may hold or not; the words behind it are passed over up to the next option.
use super::rules::{Base, Branch, Chain, End, Language, Need, Rule, Table, Test, Verdict, protocol_name};
use std::ops::RangeInclusive;

/// Reads what `iptables-save` printed; `family` is `ip` or `ip6`.
///
/// # Errors
/// A line that is none of iptables-save's.
pub fn parse(saved: &str, language: Language, family: &str) -> Result<Vec<Table>, String> {
    let mut tables: Vec<Table> = Vec::new();
    for line in
        saved.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#') && *line != "COMMIT")
    {
        let wrong = || format!("not a line of iptables-save: {line:?}");
        if let Some(name) = line.strip_prefix('*') {
            let (family, name) = (family.to_owned(), name.to_owned());
            tables.push(Table { language, family, name, chains: Vec::new(), objects: Vec::new() });
            continue;
        }
        let table = tables.last_mut().ok_or_else(wrong)?;
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (name, policy) = words.next().zip(words.next()).ok_or_else(wrong)?;
            let base = base(&table.name, name, policy);
            table.chains.push(Chain { name: name.to_owned(), base, rules: Vec::new() });
            continue;
        }
        // Counters stand in front of a rule where they were asked for.
        let rule = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, rule)| rule);
        let words = words(rule);
        let [append, name, options @ ..] = words.as_slice() else { return Err(wrong()) };
        let chain = table.chains.iter_mut().find(|chain| chain.name == *name);
        let (true, Some(chain)) = (append == "-A", chain) else { return Err(wrong()) };
        let number = chain.rules.len() as u64 + 1;
        chain.rules.push(Rule { number, text: rule.to_owned(), ..read(options) });
    }
    Ok(tables)
}

/// Built-in chains have a policy; others have `-`.
fn base(table: &str, chain: &str, policy: &str) -> Option<Base> {
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
    Some(Base { hook: chain.to_ascii_lowercase(), nat: table == "nat", priority, accepts: policy != "DROP" })
}

/// What a rule's options say.
fn read(options: &[String]) -> Rule {
    let mut rule = Rule::default();
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
        option(&mut rule, word, value, not);
        not = false;
    }
    rule.needs.sort_unstable();
    rule.needs.dedup();
    rule
}

fn is_option(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|first: char| first == '-' || first.is_ascii_alphabetic()))
}

fn option(rule: &mut Rule, option: &str, value: &str, not: bool) {
    let ports = |end| match ports(value) {
        Some(ports) => Test::Port { end, ports, not },
        None => Test::Other,
    };
    let test = match option {
        "-m" | "--match" => {
            rule.needs.extend(need_of_match(value));
            // What a match asks is in its own options; the modules named here without any are those of a protocol or a comment.
            match value {
                "tcp" | "udp" | "sctp" | "dccp" | "udplite" | "multiport" | "state" | "conntrack" | "comment" => return,
                // Without a connection these two never hold; the others may, if the opposite is asked for.
                "connmark" | "connbytes" => Test::Connection,
                _ => Test::Other,
            }
        }
        "-p" | "--protocol" if value == "all" => return,
        "-p" | "--protocol" => Test::Protocol { names: vec![protocol_name(value)], not },
        "--sport" | "--source-port" | "--sports" | "--source-ports" => ports(End::Source),
        "--dport" | "--destination-port" | "--dports" | "--destination-ports" => ports(End::Destination),
        "--ports" => ports(End::Any),
        "--state" | "--ctstate" => {
            let states = value.split(',').map(str::to_ascii_lowercase).collect();
            Test::State { states, not }
        }
        "--ctproto" | "--ctorigsrc" | "--ctorigdst" | "--ctreplsrc" | "--ctrepldst" | "--ctorigsrcport"
        | "--ctorigdstport" | "--ctreplsrcport" | "--ctrepldstport" | "--ctstatus" | "--ctexpire" | "--ctdir" => {
            Test::Connection
        }
        // `! --syn` is saved as the flags it stands for.
        "--tcp-flags" if not && value == "FIN,SYN,RST,ACK" => Test::NotOpening,
        "-j" | "--jump" => return target(rule, value),
        "-g" | "--goto" => return rule.branches.push(Branch { test: None, verdict: Verdict::Goto(value.to_owned()) }),
        "--comment" | "--set-counters" | "-c" => return,
        // NOTRACK in its newer writing: nothing but this is asked of CT.
        "--notrack" => return settle(rule, Need::Notrack),
        "--helper" if rule.needs.contains(&Need::Unknown) => return settle(rule, Need::Helper),
        "--timeout" if rule.needs.contains(&Need::Unknown) => return settle(rule, Need::Timeout),
        "--zone" | "--zone-orig" | "--zone-reply" => return settle(rule, Need::Zone),
        "--ctevents" | "--expevents" => return settle(rule, Need::Match),
        "--to-destination" | "--to-source" | "--to-ports" => {
            rule.translates_to.extend(translated(value));
            return;
        }
        // Behind its target stand a rule's options for the target: they decide nothing.
        _ if !rule.branches.is_empty() => return,
        _ => Test::Other,
    };
    rule.tests.push(test);
}

/// What the target CT was asked for.
fn settle(rule: &mut Rule, need: Need) {
    rule.needs.retain(|need| *need != Need::Unknown);
    rule.needs.push(need);
}

fn target(rule: &mut Rule, name: &str) {
    rule.needs.extend(need_of_target(name));
    let verdict = match name {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => Verdict::Accept,
        "QUEUE" | "NFQUEUE" | "TPROXY" | "SYNPROXY" => Verdict::Elsewhere,
        // These go on to the next rule, as does a chain that comes back.
        "CT" => {
            rule.needs.push(Need::Unknown);
            return;
        }
        "NOTRACK" | "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "CONNSECMARK" | "SECMARK" | "TCPMSS" | "TCPOPTSTRIP"
        | "CLASSIFY" | "DSCP" | "TOS" | "TTL" | "HL" | "SET" | "TRACE" | "TEE" | "CHECKSUM" | "AUDIT" | "ECN" => return,
        chain => Verdict::Jump(chain.to_owned()),
    };
    rule.branches.push(Branch { test: None, verdict });
}

/// What a match module needs of connection tracking.
pub fn need_of_match(name: &str) -> Option<Need> {
    match name {
        "state" | "conntrack" => Some(Need::State),
        "connmark" => Some(Need::Mark),
        "connlabel" => Some(Need::Label),
        "connbytes" => Some(Need::Match),
        "helper" => Some(Need::Helper),
        "connlimit" => Some(Need::Limit),
        _ => None,
    }
}

/// What a target needs of connection tracking. That of `CT` depends on its options.
pub fn need_of_target(name: &str) -> Option<Need> {
    match name {
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" | "FULLCONENAT" => Some(Need::Nat),
        "CONNMARK" | "CONNSECMARK" => Some(Need::Mark),
        "SYNPROXY" => Some(Need::Synproxy),
        "NOTRACK" => Some(Need::Notrack),
        "FLOWOFFLOAD" => Some(Need::Flowtable),
        _ => None,
    }
}

/// `80`, `80:90`, `80,81:90`, `:1023`.
fn ports(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    text.split(',').map(|part| range(part, ':')).collect()
}

fn range(text: &str, separator: char) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once(separator).unwrap_or((text, text));
    let low = if low.is_empty() { 0 } else { low.parse().ok()? };
    Some(low..=if high.is_empty() { u16::MAX } else { high.parse().ok()? })
}

/// The ports in `10.0.0.1:1883`, `[fc00::1]:1883-1890` or, of `--to-ports`, `8080-8090`. An address alone names none.
fn translated(text: &str) -> Option<RangeInclusive<u16>> {
    let ports = match text.rsplit_once(':') {
        Some((address, ports)) if address.ends_with(']') || !address.contains(':') => ports,
        Some(_) => return None,
        None if text.contains(['.', '[']) => return None,
        None => text,
    };
    // What is behind a slash shifts the range; where to is not worked out.
    let ports = ports.split('/').next().unwrap_or(ports);
    Some(range(ports, '-').unwrap_or(0..=u16::MAX))
}

/// Splits a line into words: spaces part them, quotes and backslashes keep them together.
fn words(line: &str) -> Vec<String> {
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
