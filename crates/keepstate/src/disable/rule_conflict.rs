//! Rules that conflict with not tracking a service: rules that translate its addresses, and rules that accept its packets only
//! because they are tracked.
//!
//! Pure: from the rules of a namespace to a list of conflicts, with the command that fixes each if there is one.
use super::rule_walk::{AssumedCtState, ChainWalk, MatchedRule, PacketDirection, WalkPacket, contains_port};
use super::service::ServicePort;
use keepstate_linux::ct_users::listed_ruleset::{
    CtFeature, ListedBaseChain, ListedChain, ListedRule, ListedTable, RuleMatch, RulesetFormat,
};
use keepstate_linux::ct_users::{CtUser, CtUserKind};

/// Packets that are not to be tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotrackRequest {
    /// The service.
    pub service: ServicePort,
    /// Which of its connections.
    pub scope: NotrackScope,
}

/// Which connections of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotrackScope {
    /// All that pass here: to this machine, from it, through it.
    All,
    /// Those to this machine.
    LocalOnly,
}

/// A rule that needs tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictingRule {
    /// The service whose packets it matches.
    pub service: ServicePort,
    /// Table and chain, and the rule's number.
    pub location: String,
    /// The rule.
    pub rule: String,
    /// Does it name the port? Otherwise it may match its packets among others.
    pub names_port: bool,
}

/// A chain that drops untracked packets which it accepts when tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFix {
    /// The service.
    pub service: ServicePort,
    /// The direction of the packets.
    pub direction: PacketDirection,
    /// Table and chain.
    pub location: String,
    /// The rules that match the state, each with its number.
    pub rules: Vec<String>,
    /// The command that lets untracked packets pass as well.
    pub command: String,
    /// Is it certain that no other rule lets them pass?
    pub certain: bool,
}

/// The conflicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleConflicts {
    /// Rules that forbid it.
    pub blocking: Vec<ConflictingRule>,
    /// Chains to fix first.
    pub fixes: Vec<RuleFix>,
    /// Rules that name a port and lose their effect on its packets: limits, marks, helpers.
    pub ineffective: Vec<ConflictingRule>,
}

impl RuleConflicts {
    /// Checks the rules of a namespace, and its other users of tracking.
    pub fn find(wishes: &[NotrackRequest], tables: &[ListedTable], dependents: &[CtUser]) -> RuleConflicts {
        let mut found = RuleConflicts::default();
        for table in tables.iter().filter(|table| ["ip", "ip6", "inet"].contains(&table.family.as_str())) {
            for wish in wishes {
                for chain in &table.chains {
                    let Some(base) = &chain.base else { continue };
                    for direction in packet_directions(base, wish.scope) {
                        let packet = WalkPacket { service: wish.service, direction: *direction };
                        found.check_chain(table, chain, base, packet);
                    }
                }
                found.check_translations_to(table, wish.service);
            }
        }
        for dependent in dependents.iter().filter(|dependent| dependent.kind == CtUserKind::Ipvs) {
            let port = |wish: &&NotrackRequest| dependent.description.contains(&format!(":{:04X} ", wish.service.port));
            found.blocking.extend(wishes.iter().filter(port).map(|wish| ConflictingRule {
                service: wish.service,
                location: dependent.location.clone(),
                rule: dependent.description.clone(),
                names_port: true,
            }));
        }
        found
    }

    /// One kind of packet in one base chain.
    fn check_chain(&mut self, table: &ListedTable, chain: &ListedChain, base: &ListedBaseChain, packet: WalkPacket) {
        let (_, new) = ChainWalk::run(table, chain, packet, AssumedCtState::New);
        for met in &new {
            let list = match met.rule.ct_features.iter().max() {
                Some(CtFeature::Nat) if base.is_nat => &mut self.blocking,
                Some(CtFeature::Synproxy) => &mut self.blocking,
                Some(
                    CtFeature::Limit
                    | CtFeature::Mark
                    | CtFeature::Label
                    | CtFeature::Helper
                    | CtFeature::Timeout
                    | CtFeature::Zone
                    | CtFeature::Flowtable,
                ) if names_port(met.rule, packet.service.port) => &mut self.ineffective,
                _ => continue,
            };
            let entry = ConflictingRule::of(table, met.chain, met.rule, packet.service);
            if !list.contains(&entry) {
                list.push(entry);
            }
        }
        // Before the priority of tracking no packet has a state.
        if base.is_nat || base.priority <= CONNTRACK_PRIORITY {
            return;
        }
        let (verdicts, untracked) = ChainWalk::run(table, chain, packet, AssumedCtState::Untracked);
        if !verdicts.drop {
            return;
        }
        let (_, established) = ChainWalk::run(table, chain, packet, AssumedCtState::Established);
        let tracked = || new.iter().chain(&established);
        let passes_now = |met: &&MatchedRule<'_>| {
            met.accepts && !untracked.iter().any(|other| same_rule(met, other) && other.accepts)
        };
        let drops_then =
            |met: &&MatchedRule<'_>| met.drops && !tracked().any(|other| same_rule(met, other) && other.drops);
        let mut offending: Vec<&MatchedRule<'_>> = tracked().filter(passes_now).collect();
        offending.extend(untracked.iter().filter(drops_then));
        offending.retain(|met| matches_ct_state(met.rule));
        offending.sort_by_key(|met| (!std::ptr::eq(met.chain, chain), &met.chain.name, met.rule.number));
        offending.dedup_by(|a, b| same_rule(a, b));
        let Some(first) = offending.first() else { return };
        let named = |met: &&MatchedRule<'_>| format!("{} #{}: {}", met.chain.name, met.rule.number, met.rule.text);
        self.fixes.push(RuleFix {
            service: packet.service,
            direction: packet.direction,
            location: format!("{} {} {}", table.family, table.name, chain.name),
            rules: offending.iter().map(named).collect(),
            command: fix_command(table, first.chain, first.rule, packet),
            certain: !verdicts.accept && !verdicts.unknown,
        });
    }

    /// Translations from another port to this one: the replies come from this one.
    fn check_translations_to(&mut self, table: &ListedTable, service: ServicePort) {
        for chain in &table.chains {
            for rule in chain.rules.iter().filter(|rule| rule.ct_features.contains(&CtFeature::Nat)) {
                let entry = ConflictingRule::of(table, chain, rule, service);
                if contains_port(&rule.nat_ports, service.port) && !self.blocking.contains(&entry) {
                    self.blocking.push(entry);
                }
            }
        }
    }
}

impl RuleFix {
    /// Which packets it is about.
    pub fn packets(&self) -> String {
        let way = if self.direction == PacketDirection::ToService { "to" } else { "from" };
        format!("packets {way} {}", self.service)
    }
}

impl ConflictingRule {
    fn of(table: &ListedTable, chain: &ListedChain, rule: &ListedRule, service: ServicePort) -> ConflictingRule {
        ConflictingRule {
            service,
            location: format!("{} {} {} #{}", table.family, table.name, chain.name, rule.number),
            rule: rule.text.clone(),
            names_port: names_port(rule, service.port),
        }
    }
}

/// The directions in which a service's packets pass a hook untracked.
fn packet_directions(base: &ListedBaseChain, reach: NotrackScope) -> &'static [PacketDirection] {
    match (base.hook.as_str(), reach) {
        ("prerouting" | "input" | "forward" | "output" | "postrouting", NotrackScope::All) => {
            &[PacketDirection::ToService, PacketDirection::FromService]
        }
        ("prerouting" | "input", NotrackScope::LocalOnly) => &[PacketDirection::ToService],
        ("output" | "postrouting", NotrackScope::LocalOnly) if !base.is_nat => &[PacketDirection::FromService],
        _ => &[],
    }
}

/// Does a rule name this port, among few others?
fn names_port(rule: &ListedRule, port: u16) -> bool {
    let branches = rule.branches.iter().filter_map(|branch| branch.condition.as_ref());
    let named = rule.matches.iter().chain(branches).any(|test| match test {
        RuleMatch::Port { ports, not, .. } => !not && contains_port(ports, port),
        _ => false,
    });
    let everything = rule.nat_ports.contains(&(0..=u16::MAX));
    named || !everything && contains_port(&rule.nat_ports, port)
}

fn matches_ct_state(rule: &ListedRule) -> bool {
    let branches = rule.branches.iter().filter_map(|branch| branch.condition.as_ref());
    rule.matches.iter().chain(branches).any(|test| matches!(test, RuleMatch::CtState { .. } | RuleMatch::CtField))
}

fn same_rule(a: &MatchedRule<'_>, b: &MatchedRule<'_>) -> bool {
    std::ptr::eq(a.rule, b.rule)
}

/// The shell command that inserts a rule for untracked packets before the one that does not match them.
fn fix_command(table: &ListedTable, chain: &ListedChain, rule: &ListedRule, packet: WalkPacket) -> String {
    let WalkPacket { service, direction: way } = packet;
    let (protocol, port, tcp) = (service.protocol.name(), service.port, service.protocol.name() == "tcp");
    let end = if way == PacketDirection::ToService { "dport" } else { "sport" };
    if table.format == RulesetFormat::Nftables {
        // Packets from the service's port must not open connections.
        let answer =
            if tcp && way == PacketDirection::FromService { " tcp flags & (fin|syn|rst|ack) != syn" } else { "" };
        return format!(
            "nft insert rule {} {} {} handle {} '{protocol} {end} {port}{answer} ct state untracked accept'",
            table.family, table.name, chain.name, rule.number
        );
    }
    let program = match (table.family.as_str(), table.format) {
        ("ip6", RulesetFormat::IptablesLegacy) => "ip6tables-legacy",
        ("ip6", _) => "ip6tables-nft",
        (_, RulesetFormat::IptablesLegacy) => "iptables-legacy",
        _ => "iptables-nft",
    };
    let answer = if tcp && way == PacketDirection::FromService { " ! --syn" } else { "" };
    format!(
        "{program} -t {} -I {} {} -p {protocol} --{end} {port}{answer} -m conntrack --ctstate UNTRACKED -j ACCEPT",
        table.name, chain.name, rule.number
    )
}

/// The priority of tracking: `NF_IP_PRI_CONNTRACK`.
const CONNTRACK_PRIORITY: i64 = -200;

#[cfg(test)]
mod tests;
