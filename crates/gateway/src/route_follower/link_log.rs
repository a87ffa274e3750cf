//! Changes of interfaces and addresses, as lines for the log: whoever reads why connections ended sees that the link was down.
//!
//! It compares what the kernel tells with what was known, so a message that changes nothing here makes no line; and it is bounded, since a host with containers makes and removes interfaces all day.
use keepstate_linux::rtnetlink::{RtAddress, RtLink, RtMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant as Clock};

/// Lines in one interval; the others are counted.
const MAX_LINES: u32 = 32;
const INTERVAL: Duration = Duration::from_secs(1);

/// The gateway's: what becomes of it says nothing of the network.
const OWN_INTERFACE: &str = keepstate_linux::tc::CARRIER_NAME;

/// What is known, and how many lines there were.
#[derive(Debug, Default)]
pub(super) struct LinkLog {
    links: BTreeMap<u32, LoggedLink>,
    /// By interface: address and prefix length.
    addresses: BTreeSet<(u32, IpAddr, u8)>,
    interval_began: Option<Clock>,
    lines: u32,
    left_out: u32,
}

/// What lines tell of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LoggedLink {
    name: String,
    is_up: bool,
    has_carrier: bool,
    mtu: u32,
}

impl LoggedLink {
    fn of(link: &RtLink) -> LoggedLink {
        LoggedLink { name: link.name.clone(), is_up: link.is_up, has_carrier: link.has_carrier, mtu: link.mtu }
    }

    fn state(&self) -> &'static str {
        match (self.is_up, self.has_carrier) {
            (false, _) => "down",
            (true, false) => "up, no carrier",
            (true, true) => "up",
        }
    }
}

impl LinkLog {
    /// What is there at the start makes no line.
    pub(super) fn of_dump(messages: &[RtMessage]) -> LinkLog {
        let mut log = LinkLog::default();
        messages.iter().for_each(|message| _ = log.apply(message));
        log
    }

    /// The lines of one change, as far as there may be so many.
    pub(super) fn observe_change(&mut self, message: &RtMessage, now: Clock) -> Vec<String> {
        let lines = self.apply(message);
        self.limit(lines, now)
    }

    /// The same, after everything was read again.
    pub(super) fn observe_all(&mut self, messages: &[RtMessage], now: Clock) -> Vec<String> {
        let lines = self.compare(messages);
        self.limit(lines, now)
    }

    /// Everything was read again: what differs has changed meanwhile.
    fn compare(&mut self, messages: &[RtMessage]) -> Vec<String> {
        let now = LinkLog::of_dump(messages);
        let mut lines = Vec::new();
        let gone: Vec<_> = self.addresses.difference(&now.addresses).copied().collect();
        for (index, address, length) in gone {
            lines.push(format!("address {address}/{length} removed from {}", self.name(index)));
        }
        for index in self.links.keys().filter(|index| !now.links.contains_key(index)).copied().collect::<Vec<_>>() {
            lines.extend(self.apply(&RtMessage::LinkGone(index)));
        }
        for message in messages.iter().filter(|message| matches!(message, RtMessage::Link(_) | RtMessage::Address(_))) {
            lines.extend(self.apply(message));
        }
        self.addresses = now.addresses;
        lines
    }

    fn apply(&mut self, message: &RtMessage) -> Vec<String> {
        match message {
            RtMessage::Link(link) => self.set_link(link),
            RtMessage::LinkGone(index) => {
                self.addresses.retain(|(owner, ..)| owner != index);
                let gone = self.links.remove(index).filter(|gone| gone.name != OWN_INTERFACE);
                gone.map(|gone| format!("interface {} is gone", gone.name)).into_iter().collect()
            }
            RtMessage::Address(RtAddress { ifindex, address, prefix_length, .. }) => {
                let is_new = self.addresses.insert((*ifindex, *address, *prefix_length));
                let line =
                    is_new.then(|| format!("address {address}/{prefix_length} added to {}", self.name(*ifindex)));
                line.into_iter().collect()
            }
            RtMessage::AddressGone(RtAddress { ifindex, address, prefix_length, .. }) => {
                let was_known = self.addresses.remove(&(*ifindex, *address, *prefix_length));
                let line = was_known
                    .then(|| format!("address {address}/{prefix_length} removed from {}", self.name(*ifindex)));
                line.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn set_link(&mut self, link: &RtLink) -> Vec<String> {
        let new = LoggedLink::of(link);
        let old = self.links.insert(link.index, new.clone());
        if link.name == OWN_INTERFACE {
            return Vec::new();
        }
        let Some(old) = old else { return vec![format!("interface {} is new: {}", new.name, new.state())] };
        let mut lines = Vec::new();
        if old.name != new.name {
            lines.push(format!("interface {} is now named {}", old.name, new.name));
        }
        if old.state() != new.state() {
            lines.push(format!("interface {} is {}", new.name, new.state()));
        }
        if old.mtu != new.mtu {
            lines.push(format!("interface {}: MTU {} instead of {}", new.name, new.mtu, old.mtu));
        }
        lines
    }

    fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }

    fn limit(&mut self, mut lines: Vec<String>, now: Clock) -> Vec<String> {
        if lines.is_empty() {
            return lines;
        }
        let mut shown = Vec::new();
        if self.interval_began.is_none_or(|began| now.saturating_duration_since(began) >= INTERVAL) {
            self.interval_began = Some(now);
            self.lines = 0;
            let left_out = std::mem::take(&mut self.left_out);
            shown.extend(
                (left_out > 0).then(|| format!("{left_out} more changes of interfaces and addresses, not shown")),
            );
        }
        let room = MAX_LINES.saturating_sub(self.lines) as usize;
        let cut = lines.len().saturating_sub(room);
        lines.truncate(room);
        self.left_out = self.left_out.saturating_add(u32::try_from(cut).unwrap_or(u32::MAX));
        self.lines = self.lines.saturating_add(u32::try_from(lines.len()).unwrap_or(u32::MAX));
        shown.extend(lines);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, is_up: bool, mtu: u32) -> RtMessage {
        RtMessage::Link(RtLink {
            index,
            name: name.to_owned(),
            mtu,
            mac: None,
            is_up,
            has_carrier: is_up,
            group: 0,
            master: None,
            link_type: 1,
            kind: String::new(),
            qdisc: String::new(),
            has_xdp: false,
        })
    }

    fn address(ifindex: u32, last: u8) -> RtAddress {
        let address = IpAddr::from([10, 0, 0, last]);
        RtAddress { ifindex, address, network: address, prefix_length: 24, scope: 0, flags: 0 }
    }

    #[test]
    fn changes_make_lines_and_repetitions_make_none() {
        let now = Clock::now();
        let mut log = LinkLog::of_dump(&[link(2, "wan0", true, 1500), RtMessage::Address(address(2, 1))]);
        let mut lines = |message: RtMessage| log.observe_change(&message, now);
        assert!(lines(link(2, "wan0", true, 1500)).is_empty());
        assert!(lines(RtMessage::Address(address(2, 1))).is_empty());
        assert_eq!(
            lines(link(2, "wan0", false, 1400)),
            ["interface wan0 is down", "interface wan0: MTU 1400 instead of 1500"]
        );
        assert_eq!(lines(RtMessage::AddressGone(address(2, 1))), ["address 10.0.0.1/24 removed from wan0"]);
        assert_eq!(lines(RtMessage::Address(address(2, 7))), ["address 10.0.0.7/24 added to wan0"]);
        assert_eq!(lines(link(3, "ppp0", true, 1492)), ["interface ppp0 is new: up"]);
        assert_eq!(lines(link(3, "dsl0", true, 1492)), ["interface ppp0 is now named dsl0"]);
        assert_eq!(lines(RtMessage::LinkGone(3)), ["interface dsl0 is gone"]);
        let own = [link(4, "keepstate0", true, 1500), link(4, "keepstate0", false, 1500), RtMessage::LinkGone(4)];
        assert!(own.into_iter().all(|message| lines(message).is_empty()));
    }

    #[test]
    fn what_was_missed_is_told_after_everything_was_read_again() {
        let mut log = LinkLog::of_dump(&[
            link(2, "wan0", true, 1500),
            link(3, "lan0", true, 1500),
            RtMessage::Address(address(2, 1)),
        ]);
        let all = [link(2, "wan0", false, 1500), RtMessage::Address(address(2, 2))];
        let lines = log.observe_all(&all, Clock::now());
        let expected = [
            "address 10.0.0.1/24 removed from wan0",
            "interface lan0 is gone",
            "interface wan0 is down",
            "address 10.0.0.2/24 added to wan0",
        ];
        assert_eq!(lines, expected);
        assert!(log.observe_all(&all, Clock::now()).is_empty());
    }

    #[test]
    fn lines_are_bounded_and_the_others_counted() {
        let now = Clock::now();
        let mut log = LinkLog::default();
        let mut lines = |index, now| log.observe_change(&link(index, "veth", true, 1500), now).len();
        let shown: usize = (1..=100).map(|index| lines(index, now)).sum();
        assert_eq!(shown, MAX_LINES as usize);
        assert_eq!(lines(101, now + INTERVAL), 2, "how many were left out, and the new one");
        assert_eq!(lines(102, now + INTERVAL), 1);
    }
}
