//! What stands in the way of not tracking a service: rules that translate its addresses, and rules that let its packets in only
//! because they are tracked.
//!
//! Pure: from the rules of a namespace to a list that names each rule, and for those that can be mended the command that does it.
use super::passage::{Met, Packet, Seen, Walk, Way, contain};
use super::service::Service;
use keepstate_linux::dependents::rules::{Base, Chain, Language, Need, Rule, Table, Test};
use keepstate_linux::dependents::{Dependent, Kind};

/// Which packets are not to be tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whose.
    pub service: Service,
    /// Which of its connections.
    pub reach: Reach,
}

/// Which connections of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All that pass here: to this machine, from it, through it.
    All,
    /// Those to this machine.
    Served,
}

/// A rule that forbids not to track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbids {
    /// Whose packets it touches.
    pub service: Service,
    /// Table and chain, and the rule's number.
    pub place: String,
    /// The rule.
    pub rule: String,
    /// Does it name the port? Otherwise it may touch its packets among others.
    pub names_it: bool,
}

/// A place where untracked packets are dropped that are let in now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// Whose packets.
    pub service: Service,
    /// Which of them.
    pub way: Way,
    /// Table and chain.
    pub place: String,
    /// The rules that look at the state, each with its number.
    pub rules: Vec<String>,
    /// What to type so that untracked packets pass as well.
    pub command: String,
    /// Is there no other rule that may let them pass?
    pub certain: bool,
}

/// What stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// These forbid it.
    pub forbids: Vec<Forbids>,
    /// These are to be mended first.
    pub mends: Vec<Mend>,
    /// Rules that name a port and lose their effect on its packets: limits, marks, helpers.
    pub losses: Vec<Forbids>,
}

impl Obstacles {
    /// Looks through the rules of a namespace, and what else depends on tracking there.
    pub fn to(wishes: &[Wish], tables: &[Table], dependents: &[Dependent]) -> Obstacles {
        let mut found = Obstacles::default();
        for table in tables.iter().filter(|table| ["ip", "ip6", "inet"].contains(&table.family.as_str())) {
            for wish in wishes {
                for chain in &table.chains {
                    let Some(base) = &chain.base else { continue };
                    for way in ways(base, wish.reach) {
                        let packet = Packet { service: wish.service, way: *way };
                        found.look(table, chain, base, packet);
                    }
                }
                found.translated_to(table, wish.service);
            }
        }
        for dependent in dependents.iter().filter(|dependent| dependent.need == Kind::Ipvs) {
            let port = |wish: &&Wish| dependent.what.contains(&format!(":{:04X} ", wish.service.port));
            found.forbids.extend(wishes.iter().filter(port).map(|wish| Forbids {
                service: wish.service,
                place: dependent.place.clone(),
                rule: dependent.what.clone(),
                names_it: true,
            }));
        }
        found
    }

    /// One kind of packet in one base chain.
    fn look(&mut self, table: &Table, chain: &Chain, base: &Base, packet: Packet) {
        let (_, new) = Walk::through(table, chain, packet, Seen::New);
        for met in &new {
            let list = match met.rule.needs.iter().max() {
                Some(Need::Nat) if base.nat => &mut self.forbids,
                Some(Need::Synproxy) => &mut self.forbids,
                Some(
                    Need::Limit
                    | Need::Mark
                    | Need::Label
                    | Need::Helper
                    | Need::Timeout
                    | Need::Zone
                    | Need::Flowtable,
                ) if names(met.rule, packet.service.port) => &mut self.losses,
                _ => continue,
            };
            let entry = Forbids::of(table, met.chain, met.rule, packet.service);
            if !list.contains(&entry) {
                list.push(entry);
            }
        }
        // Before its own priority tracking has told nobody a state.
        if base.nat || base.priority <= TRACKING {
            return;
        }
        let (fates, untracked) = Walk::through(table, chain, packet, Seen::Untracked);
        if !fates.drop {
            return;
        }
        let (_, established) = Walk::through(table, chain, packet, Seen::Established);
        let tracked = || new.iter().chain(&established);
        let passes_now =
            |met: &&Met<'_>| met.accepts && !untracked.iter().any(|other| same(met, other) && other.accepts);
        let drops_then = |met: &&Met<'_>| met.drops && !tracked().any(|other| same(met, other) && other.drops);
        let mut offending: Vec<&Met<'_>> = tracked().filter(passes_now).collect();
        offending.extend(untracked.iter().filter(drops_then));
        offending.retain(|met| looks_at_state(met.rule));
        offending.sort_by_key(|met| (!std::ptr::eq(met.chain, chain), &met.chain.name, met.rule.number));
        offending.dedup_by(|a, b| same(a, b));
        let Some(first) = offending.first() else { return };
        let named = |met: &&Met<'_>| format!("{} #{}: {}", met.chain.name, met.rule.number, met.rule.text);
        self.mends.push(Mend {
            service: packet.service,
            way: packet.way,
            place: format!("{} {} {}", table.family, table.name, chain.name),
            rules: offending.iter().map(named).collect(),
            command: command(table, first.chain, first.rule, packet),
            certain: !fates.accept && !fates.elsewhere,
        });
    }

    /// Translations from another port to this one: the answers come from this one.
    fn translated_to(&mut self, table: &Table, service: Service) {
        for chain in &table.chains {
            for rule in chain.rules.iter().filter(|rule| rule.needs.contains(&Need::Nat)) {
                let entry = Forbids::of(table, chain, rule, service);
                if contain(&rule.translates_to, service.port) && !self.forbids.contains(&entry) {
                    self.forbids.push(entry);
                }
            }
        }
    }
}

impl Mend {
    /// Which packets it is about.
    pub fn packets(&self) -> String {
        let way = if self.way == Way::To { "to" } else { "from" };
        format!("packets {way} {}", self.service)
    }
}

impl Forbids {
    fn of(table: &Table, chain: &Chain, rule: &Rule, service: Service) -> Forbids {
        Forbids {
            service,
            place: format!("{} {} {} #{}", table.family, table.name, chain.name, rule.number),
            rule: rule.text.clone(),
            names_it: names(rule, service.port),
        }
    }
}

/// The packets of a service that pass a hook untracked.
fn ways(base: &Base, reach: Reach) -> &'static [Way] {
    match (base.hook.as_str(), reach) {
        ("prerouting" | "input" | "forward" | "output" | "postrouting", Reach::All) => &[Way::To, Way::From],
        ("prerouting" | "input", Reach::Served) => &[Way::To],
        ("output" | "postrouting", Reach::Served) if !base.nat => &[Way::From],
        _ => &[],
    }
}

/// Does a rule name this port, among few others?
fn names(rule: &Rule, port: u16) -> bool {
    let branches = rule.branches.iter().filter_map(|branch| branch.test.as_ref());
    let named = rule.tests.iter().chain(branches).any(|test| match test {
        Test::Port { ports, not, .. } => !not && contain(ports, port),
        _ => false,
    });
    let everything = rule.translates_to.contains(&(0..=u16::MAX));
    named || !everything && contain(&rule.translates_to, port)
}

fn looks_at_state(rule: &Rule) -> bool {
    let branches = rule.branches.iter().filter_map(|branch| branch.test.as_ref());
    rule.tests.iter().chain(branches).any(|test| matches!(test, Test::State { .. } | Test::Connection))
}

fn same(a: &Met<'_>, b: &Met<'_>) -> bool {
    std::ptr::eq(a.rule, b.rule)
}

/// The command, as a shell takes it, that puts a rule for untracked packets in front of the one that misses them.
fn command(table: &Table, chain: &Chain, rule: &Rule, packet: Packet) -> String {
    let Packet { service, way } = packet;
    let (protocol, port, tcp) = (service.protocol.name(), service.port, service.protocol.name() == "tcp");
    let end = if way == Way::To { "dport" } else { "sport" };
    if table.language == Language::Nftables {
        // What claims to come from the service must not open connections.
        let answer = if tcp && way == Way::From { " tcp flags & (fin|syn|rst|ack) != syn" } else { "" };
        return format!(
            "nft insert rule {} {} {} handle {} '{protocol} {end} {port}{answer} ct state untracked accept'",
            table.family, table.name, chain.name, rule.number
        );
    }
    let program = match (table.family.as_str(), table.language) {
        ("ip6", Language::IptablesLegacy) => "ip6tables-legacy",
        ("ip6", _) => "ip6tables-nft",
        (_, Language::IptablesLegacy) => "iptables-legacy",
        _ => "iptables-nft",
    };
    let answer = if tcp && way == Way::From { " ! --syn" } else { "" };
    format!(
        "{program} -t {} -I {} {} -p {protocol} --{end} {port}{answer} -m conntrack --ctstate UNTRACKED -j ACCEPT",
        table.name, chain.name, rule.number
    )
}

/// The priority at which tracking looks at packets: `NF_IP_PRI_CONNTRACK`.
const TRACKING: i64 = -200;

#[cfg(test)]
mod tests;
