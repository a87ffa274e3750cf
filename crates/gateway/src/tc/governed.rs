//! Which interfaces are governed: the choice that a user makes by names, and what of it can be.
use anyhow::{Result, bail};
use keepstate_linux::rtnetlink::RtLink;
use keepstate_linux::tc::CARRIER_NAME;
use std::str::FromStr;

/// A name of an interface, with `*` for any characters; `!` in front leaves those interfaces out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfacePattern {
    text: String,
    excludes: bool,
}

impl FromStr for InterfacePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<InterfacePattern, String> {
        let (excludes, name) = text.strip_prefix('!').map_or((false, text), |name| (true, name));
        if name.is_empty() || name.contains(['/', ' ', ',']) {
            return Err(format!(
                "{text:?}: write the name of an interface, like eth0 or eth*, or !eth3 to leave one out"
            ));
        }
        if name == LOOPBACK {
            return Err(format!("{LOOPBACK}: what the machine sends to itself is not governed; leave it out"));
        }
        Ok(InterfacePattern { text: name.to_owned(), excludes })
    }
}

impl InterfacePattern {
    fn matches(&self, name: &str) -> bool {
        let mut parts = self.text.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.ends_with(last)
    }

    /// Does it name one interface only?
    fn is_exact(&self) -> bool {
        !self.excludes && !self.text.contains('*')
    }
}

const LOOPBACK: &str = "lo";
const ETHERNET: u16 = 1;

/// What the user has chosen.
#[derive(Clone, Debug)]
pub(crate) struct GovernedInterfaces(pub(crate) Vec<InterfacePattern>);

impl GovernedInterfaces {
    fn wants(&self, name: &str) -> bool {
        let chosen = |excludes| self.0.iter().any(|pattern| pattern.excludes == excludes && pattern.matches(name));
        name != LOOPBACK && name != CARRIER_NAME && chosen(false) && !chosen(true)
    }

    /// The chosen interfaces among these, and why others of the chosen cannot be governed.
    pub(super) fn select<'a>(&self, links: &[&'a RtLink]) -> (Vec<&'a RtLink>, Vec<String>) {
        let (mut selected, mut refused) = (Vec::new(), Vec::new());
        for link in links.iter().copied().filter(|link| self.wants(&link.name)) {
            match obstacle(link, links) {
                None => selected.push(link),
                Some(why) => refused.push(format!("{}: {why}", link.name)),
            }
        }
        (selected, refused)
    }

    /// Whether all that was named exists, at the start.
    ///
    /// # Errors
    /// What does not exist or cannot be governed.
    pub(crate) fn check(&self, links: &[&RtLink]) -> Result<()> {
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).filter(|name| *name != LOOPBACK).collect();
        for pattern in self.0.iter().filter(|pattern| pattern.is_exact()) {
            let Some(link) = links.iter().find(|link| link.name == pattern.text) else {
                bail!("--interface {}: no such interface; there are {}", pattern.text, names.join(", "));
            };
            if let Some(why) = obstacle(link, links) {
                bail!("--interface {}: {why}", pattern.text);
            }
        }
        if self.select(links).0.is_empty() {
            bail!("--interface: no interface has such a name; there are {}", names.join(", "));
        }
        Ok(())
    }

    /// Those of the chosen names that no interface has.
    pub(super) fn missing(&self, links: &[&RtLink]) -> Vec<String> {
        let exact = self.0.iter().filter(|pattern| pattern.is_exact()).map(|pattern| &pattern.text);
        exact.filter(|name| !links.iter().any(|link| link.name == **name)).cloned().collect()
    }

    /// The names of the interfaces that are not governed, but up.
    pub(super) fn others<'a>(&self, links: &[&'a RtLink]) -> Vec<&'a str> {
        let (selected, _) = self.select(links);
        let is_other = |link: &&&RtLink| {
            let known = [LOOPBACK, CARRIER_NAME].contains(&link.name.as_str());
            link.is_up && !known && !selected.iter().any(|governed| governed.index == link.index)
        };
        links.iter().filter(is_other).map(|link| link.name.as_str()).collect()
    }
}

/// Why an interface cannot be governed.
fn obstacle(link: &RtLink, links: &[&RtLink]) -> Option<String> {
    if let Some(master) = link.master {
        let name = links.iter().find(|other| other.index == master).map_or("another interface", |other| &other.name);
        return Some(format!("it is a port of {name}, which has the packets; write --interface {name}"));
    }
    if link.link_type != ETHERNET {
        return Some("it has no Ethernet frames; give its packets to the gateway by NFQUEUE (--queue)".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> RtLink {
        RtLink {
            index,
            name: name.to_owned(),
            mtu: 1500,
            mac: Some([2; 6]),
            is_up: true,
            has_carrier: true,
            group: 0,
            master: None,
            link_type: ETHERNET,
            kind: Default::default(),
            qdisc: Default::default(),
            has_xdp: false,
        }
    }

    fn governed(patterns: &[&str]) -> GovernedInterfaces {
        GovernedInterfaces(patterns.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn names_are_matched_with_wildcards() {
        let cases = [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth", true),
            ("eth*", "eth12", true),
            ("*", "wlan0", true),
            ("en*s*", "enp3s0", true),
            ("en*s*f1", "enp3s0f1", true),
            ("en*s*f1", "enp3s0f0", false),
            ("a*a", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(InterfacePattern::from_str(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        for text in ["", "!", "lo", "a/b", "a b"] {
            assert!(InterfacePattern::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn all_but_some_are_selected_and_the_others_are_named() {
        let mut links = vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "br0"), link(5, "keepstate0")];
        links[2].master = Some(4);
        links.push(RtLink { link_type: 65_534, ..link(6, "tun0") });
        let links: Vec<&RtLink> = links.iter().collect();
        let all = governed(&["*", "!br0"]);
        let (selected, refused) = all.select(&links);
        assert_eq!(selected.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
        assert!(refused[0].contains("eth1: it is a port of br0") && refused[1].contains("tun0"), "{refused:?}");
        assert_eq!(all.others(&links), ["eth1", "br0", "tun0"]);
        assert!(all.check(&links).is_ok());
        for (patterns, why) in [(["eth9"], "no such interface"), (["eth1"], "port of br0"), (["x*"], "no interface")] {
            assert!(governed(&patterns).check(&links).unwrap_err().to_string().contains(why), "{patterns:?}");
        }
    }
}
