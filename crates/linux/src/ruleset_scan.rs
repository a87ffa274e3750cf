//! Which rules use connection tracking, by a text search in the output of `nft` and `iptables-save`: for the doctor.
//!
//! Not a parser: a rule is a line, and its words tell what it does. It reads collected text of another machine too, where `nft -j` is not available. The real readers, with
//! verdicts and chains, are [`ct_users::nftables`](crate::ct_users::nftables) and [`ct_users::iptables`](crate::ct_users::iptables): `disable` needs to know what a rule matches,
//! the doctor only that such a rule exists.
use crate::command::{self, CommandError};
use crate::ruleset_drops::{DroppingChains, is_unconditional, matches_invalid, word_after};
use crate::sysroot::SysRoot;
use std::net::{IpAddr, SocketAddr};

/// The rules of one namespace that touch connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesetScan {
    /// The programs whose words these are.
    pub commands: Vec<String>,
    /// What each printed.
    pub texts: Vec<String>,
    /// Rules that drop or reject what is invalid.
    pub drop_invalid: Vec<String>,
    /// Rules and policies that drop whatever an earlier rule of their chain has not accepted as established.
    pub drop_unaccepted: Vec<String>,
    /// Rules that ask for a state, or anything else that tracking knows.
    pub ct_matches: Vec<String>,
    /// Rules that translate the source.
    pub source_nat: Vec<SnatRule>,
    /// Rules that translate the destination.
    pub destination_nat: Vec<DnatRule>,
    /// Rules that keep packets from being tracked.
    pub notrack: Vec<String>,
    /// Rules that assign a helper.
    pub helpers: Vec<String>,
    /// Rules that limit or answer half-open connections.
    pub syn_protection: Vec<String>,
}

/// A rule that translates the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatRule {
    /// Its words.
    pub rule: String,
    /// The ports it may give, where it says.
    pub ports: Option<(u16, u16)>,
    /// Does it choose ports at random?
    pub is_random: bool,
}

/// A rule that translates the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnatRule {
    /// Its words.
    pub rule: String,
    /// `udp` or `tcp`, where it asks for one.
    pub protocol: Option<String>,
    /// The port it asks for.
    pub port: Option<u16>,
    /// Where to, where that is one address.
    pub to: Option<IpAddr>,
    /// And which port.
    pub to_port: Option<u16>,
}

/// Most bytes of a ruleset that are read.
const MAX_OUTPUT: u64 = 16 << 20;

/// The programs that print rules.
pub const LIST_COMMANDS: [&[&str]; 3] = [&["nft", "list", "ruleset"], &["iptables-save"], &["ip6tables-save"]];

/// Programs that print rules of iptables' older kernel interface, where the others are for the newer one. They need not be there.
pub const LEGACY_LIST_COMMANDS: [&[&str]; 2] = [&["iptables-legacy-save"], &["ip6tables-legacy-save"]];

/// The rules of this thread's namespace, or those found in files; and why a program told none.
pub fn scan(root: &SysRoot) -> (RulesetScan, Vec<CommandError>) {
    let mut rules = RulesetScan::default();
    let mut silent = Vec::new();
    for words in LIST_COMMANDS {
        match command::output(root, words, MAX_OUTPUT) {
            Ok(text) => {
                rules.commands.push(words.join(" "));
                rules.scan_text(&text);
                rules.texts.push(text);
            }
            Err(why) => silent.push(why),
        }
    }
    for words in LEGACY_LIST_COMMANDS {
        // On some machines `iptables-save` is this program.
        let Ok(text) = command::output(root, words, MAX_OUTPUT) else { continue };
        if has_rules(&text) && !rules.texts.iter().any(|known| is_same_listing(known, &text)) {
            rules.commands.push(words.join(" "));
            rules.scan_text(&text);
            rules.texts.push(text);
        }
    }
    (rules, silent)
}

impl RulesetScan {
    /// Adds what a program printed.
    pub fn scan_text(&mut self, text: &str) {
        let mut chains = ChainScan::default();
        let dropping = DroppingChains::of(text);
        for line in text.lines() {
            let line = line.trim();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            if let Some(drop) = chains.drop_behind_established(line, &words, &dropping) {
                push_unique(&mut self.drop_unaccepted, drop);
            }
            if matches_invalid(line, &words) && dropping.is_dropped_by(line, &words) {
                push_unique(&mut self.drop_invalid, line.to_owned());
            }
            self.scan_rule(line, &words);
        }
    }

    fn scan_rule(&mut self, line: &str, words: &[&str]) {
        let has = |word: &str| words.contains(&word);
        let jumps = |target: &str| word_after(words, "-j") == Some(target);
        let rule = || line.to_owned();
        let is_iptables = words.first() == Some(&"-A");
        if is_iptables {
            let state = word_after(words, "--ctstate").or_else(|| word_after(words, "--state"));
            if state.is_some() || has("connmark") || has("connlimit") || has("helper") {
                push_unique(&mut self.ct_matches, rule());
            }
        } else if has("ct") {
            push_unique(&mut self.ct_matches, rule());
        }
        if has("notrack") || jumps("NOTRACK") || (jumps("CT") && has("--notrack")) {
            push_unique(&mut self.notrack, rule());
        }
        if line.contains("ct helper set") || (jumps("CT") && has("--helper")) {
            push_unique(&mut self.helpers, rule());
        }
        if has("synproxy") || jumps("SYNPROXY") || (line.contains("ct state new") && has("limit")) {
            push_unique(&mut self.syn_protection, rule());
        }
        self.scan_nat(line, words, is_iptables);
    }

    fn scan_nat(&mut self, line: &str, words: &[&str], is_iptables: bool) {
        let source = if is_iptables {
            let jump = word_after(words, "-j");
            matches!(jump, Some("MASQUERADE" | "SNAT")).then(|| {
                word_after(words, "--to-ports").or_else(|| {
                    word_after(words, "--to-source").and_then(|to| to.rsplit_once(':')).map(|(_, ports)| ports)
                })
            })
        } else if words.contains(&"masquerade") {
            Some(word_after_pair(words, "masquerade", "to").map(|to| to.trim_start_matches(':')))
        } else if words.contains(&"snat") {
            Some(word_after_pair(words, "snat", "to").and_then(|to| to.rsplit_once(':')).map(|(_, ports)| ports))
        } else {
            None
        };
        if let Some(ports) = source {
            let is_random = ["random", "fully-random", "--random", "--random-fully"]
                .iter()
                .any(|word| words.iter().any(|have| have.split(',').any(|have| have == *word)));
            let found = SnatRule { rule: line.to_owned(), ports: ports.and_then(parse_port_range), is_random };
            if !self.source_nat.contains(&found) {
                self.source_nat.push(found);
            }
        }
        let to = if is_iptables {
            (word_after(words, "-j") == Some("DNAT")).then(|| word_after(words, "--to-destination"))
        } else if words.contains(&"dnat") {
            Some(word_after_pair(words, "dnat", "to"))
        } else {
            None
        };
        // To this machine itself; the address is the interface's.
        if words.contains(&"redirect") || word_after(words, "-j") == Some("REDIRECT") {
            let rule = DnatRule { rule: line.to_owned(), protocol: None, port: None, to: None, to_port: None };
            if !self.destination_nat.contains(&rule) {
                self.destination_nat.push(rule);
            }
        }
        if let Some(to) = to {
            let (to, to_port) = to.map_or((None, None), parse_endpoint);
            let protocol = match is_iptables {
                true => word_after(words, "-p"),
                false => ["udp", "tcp"]
                    .into_iter()
                    .find(|protocol| words.windows(2).any(|pair| pair == [*protocol, "dport"])),
            };
            let port =
                word_after(words, if is_iptables { "--dport" } else { "dport" }).and_then(|port| port.parse().ok());
            let protocol = protocol.map(str::to_owned);
            let found = DnatRule { rule: line.to_owned(), protocol, port, to, to_port };
            if !self.destination_nat.contains(&found) {
                self.destination_nat.push(found);
            }
        }
    }
}

/// The chain that is being read: does it accept what is established, and drop the rest?
#[derive(Default)]
struct ChainScan<'a> {
    /// nftables: the `policy drop` of this chain.
    policy: Option<&'a str>,
    /// nftables: a rule of this chain accepts what is established.
    accepts: bool,
    /// iptables: chains whose policy is DROP.
    policies: Vec<(&'a str, &'a str)>,
    /// iptables: chains that accept what is established.
    accepting: Vec<&'a str>,
}

impl<'a> ChainScan<'a> {
    /// The rule or policy that drops the rest, once its chain is known to accept what is established.
    fn drop_behind_established(
        &mut self,
        line: &'a str,
        words: &[&'a str],
        dropping: &DroppingChains<'_>,
    ) -> Option<String> {
        match words {
            ["chain", ..] => (self.policy, self.accepts) = (None, false),
            ["type", ..] if line.contains("policy drop") => self.policy = Some(line),
            [chain, "DROP", ..] if chain.starts_with(':') => self.policies.push((chain.trim_start_matches(':'), line)),
            ["-A", chain, ..] => return self.iptables_rule(chain, line, words, dropping),
            _ if line.contains("ct state") && line.contains("established") && line.contains("accept") => {
                self.accepts = true;
                return self.policy.map(str::to_owned);
            }
            // Without a match: `drop`, `counter packets 1 bytes 2 drop`, `reject with …`, `goto` a chain that drops.
            rule if self.accepts && is_unconditional(rule) && dropping.is_dropped_by(line, rule) => {
                return Some(line.to_owned());
            }
            _ => (),
        }
        None
    }

    fn iptables_rule(
        &mut self,
        chain: &'a str,
        line: &str,
        words: &[&str],
        dropping: &DroppingChains<'_>,
    ) -> Option<String> {
        let target = word_after(words, "-j")?;
        let state = word_after(words, "--ctstate").or_else(|| word_after(words, "--state"));
        if target == "ACCEPT" && state.is_some_and(|state| state.contains("ESTABLISHED")) {
            self.accepting.push(chain);
            let policy = self.policies.iter().find(|(name, _)| *name == chain);
            return policy.map(|(_, line)| (*line).to_owned());
        }
        let is_last = words.get(2) == Some(&"-j") && dropping.is_dropped_by(line, words);
        (is_last && self.accepting.contains(&chain)).then(|| line.to_owned())
    }
}

/// Does `iptables-save` print any rule?
pub fn has_rules(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("-A ") || line.contains(" DROP ["))
}

/// Two listings of the same rules: their comments hold the time.
fn is_same_listing(one: &str, other: &str) -> bool {
    let rules = |text: &str| text.lines().filter(|line| line.starts_with("-A ")).map(str::to_owned).collect::<Vec<_>>();
    rules(one) == rules(other)
}

/// The word behind `second`, which comes some words behind `first`.
fn word_after_pair<'a>(words: &[&'a str], first: &str, second: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == first)?;
    word_after(words.get(at..)?, second)
}

/// `1024-1040`, or one port.
fn parse_port_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some((low.parse().ok()?, high.parse().ok()?))
}

/// `10.0.0.2:53`, `10.0.0.2`, `[fd00::2]:53`.
fn parse_endpoint(text: &str) -> (Option<IpAddr>, Option<u16>) {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return (Some(both.ip()), Some(both.port()));
    }
    (text.parse().ok(), text.strip_prefix(':').and_then(|port| port.parse().ok()))
}

/// Both families' programs may print the same rule, and some rulesets have a thousand alike.
fn push_unique(rules: &mut Vec<String>, rule: String) {
    if rules.len() < 50 && !rules.contains(&rule) {
        rules.push(rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_nft_rules() {
        let mut rules = RulesetScan::default();
        rules.scan_text(
            "table ip nat {\n chain post {\n type nat hook postrouting priority srcnat; policy accept;\n\
             \tudp dport 9000 masquerade to :1024-1040 fully-random\n\
             \tudp dport 53 dnat to 10.0.0.2:5353\n\
             \ttcp dport 80 dnat to 10.0.0.3\n\
             \tct state invalid drop\n\ttcp dport 22 notrack\n\tct state vmap { invalid : drop, new : accept }\n }\n}\n",
        );
        assert_eq!((rules.source_nat[0].ports, rules.source_nat[0].is_random), (Some((1024, 1040)), true));
        let first = &rules.destination_nat[0];
        assert_eq!((first.protocol.as_deref(), first.port, first.to_port), (Some("udp"), Some(53), Some(5353)));
        assert_eq!(rules.destination_nat[1].to, Some("10.0.0.3".parse().unwrap()));
        assert_eq!((rules.drop_invalid.len(), rules.notrack.len(), rules.ct_matches.len()), (2, 1, 2));
    }

    #[test]
    fn finds_what_drops_the_rest_behind_established() {
        let dropping = |text: &str| {
            let mut rules = RulesetScan::default();
            rules.scan_text(text);
            rules.drop_unaccepted
        };
        let chain = |policy: &str, rules: &str| {
            format!(
                "chain in {{\ntype filter hook input priority filter; policy {policy};\n{rules}\n}}\nchain other {{\ndrop\n}}\n"
            )
        };
        let accept = "ct state { established, related } accept";
        assert_eq!(dropping(&chain("drop", accept)), ["type filter hook input priority filter; policy drop;"]);
        let last = chain("accept", &format!("{accept}\ncounter packets 1 bytes 2 drop"));
        assert_eq!(dropping(&last), ["counter packets 1 bytes 2 drop"]);
        assert!(dropping(&chain("accept", &format!("{accept}\ntcp dport 1 drop"))).is_empty());
        assert!(dropping(&chain("drop", "tcp dport 22 accept")).is_empty());
        let established = "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n";
        assert_eq!(dropping(&format!(":INPUT DROP [0:0]\n{established}")), [":INPUT DROP [0:0]"]);
        assert_eq!(
            dropping(&format!(":INPUT ACCEPT [0:0]\n{established}-A INPUT -j REJECT\n")),
            ["-A INPUT -j REJECT"]
        );
        assert!(dropping(&format!(":INPUT ACCEPT [0:0]\n{established}-A FORWARD -j DROP\n")).is_empty());
    }

    #[test]
    fn finds_what_drops_invalid_packets_by_whatever_words() {
        let dropping = |text: &str| {
            let mut rules = RulesetScan::default();
            rules.scan_text(text);
            rules.drop_invalid.len()
        };
        let logged = "chain ld {\nlimit rate 1/minute log prefix \"x\"\ncounter packets 1 bytes 2 drop\n}\nchain far {\ngoto ld\n}\nchain passing {\nlog\n}\n";
        for rule in [
            "ct state invalid drop",
            "ct state invalid counter packets 1 bytes 2 reject with tcp reset",
            "ct state { invalid, untracked } drop",
            "ct state invalid,untracked drop",
            "ct state invalid jump ld",
            "iif \"eth0\" ct state invalid goto far",
            "ct state vmap { invalid : jump ld, established : accept }",
            "ct state != { established, related, new, untracked } drop",
            "ct state ! established,related,new drop",
        ] {
            assert_eq!(dropping(&format!("{logged}chain c {{\n{rule}\n}}\n")), 1, "{rule}");
        }
        for rule in [
            "ct state invalid jump passing",
            "ct state invalid counter packets 1 bytes 2",
            "ct state established drop",
            "ct state vmap { established : accept, invalid : jump passing }",
            "ct state != { invalid, established } drop",
            "tcp dport 1 drop",
        ] {
            assert_eq!(dropping(&format!("{logged}chain c {{\n{rule}\n}}\n")), 0, "{rule}");
        }
        let chains = "-A LOGDROP -m limit --limit 1/min -j LOG\n-A LOGDROP -j DROP\n-A ON -j LOGDROP\n-A PASS -j LOG\n";
        for (rule, number) in [
            ("-m conntrack --ctstate INVALID -j DROP", 1),
            ("-m state --state INVALID,UNTRACKED -j LOGDROP", 1),
            ("-m conntrack --ctstate INVALID -g ON", 1),
            ("-m conntrack ! --ctstate NEW,RELATED,ESTABLISHED -j DROP", 1),
            ("-m conntrack ! --ctstate INVALID -j DROP", 0),
            ("-m conntrack --ctstate INVALID -j PASS", 0),
            ("-m conntrack --ctstate NEW -j DROP", 0),
        ] {
            assert_eq!(dropping(&format!("{chains}-A FORWARD {rule}\n")), number, "{rule}");
        }
    }

    #[test]
    fn scans_iptables_rules() {
        let mut rules = RulesetScan::default();
        rules.scan_text(
            "*nat\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n\
             -A POSTROUTING -j SNAT --to-source 1.2.3.4:1024-65535 --random-fully\n\
             -A DOCKER ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.17.0.2:53\n\
             -A INPUT -m conntrack --ctstate INVALID -j DROP\n-A PREROUTING -p tcp --dport 22 -j CT --notrack\n\
             -A PREROUTING -p tcp --dport 21 -j CT --helper ftp\nCOMMIT\n",
        );
        assert_eq!(rules.source_nat.len(), 2);
        assert_eq!((rules.source_nat[1].ports, rules.source_nat[1].is_random), (Some((1024, 65535)), true));
        assert_eq!((rules.destination_nat[0].port, rules.destination_nat[0].to_port), (Some(53), Some(53)));
        assert_eq!((rules.drop_invalid.len(), rules.notrack.len(), rules.helpers.len()), (1, 1, 1));
    }
}
