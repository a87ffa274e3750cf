//! The multicast groups that a network namespace has joined, by interface: `/proc/net/igmp` and `/proc/net/igmp6`.
//!
//! The files are opened once: a running gateway may not open them any more (Landlock).
use std::fs::File;
use std::io::{Read, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The files of one family, of the namespace that they were opened in.
#[derive(Debug)]
pub struct MulticastGroups {
    joined: Option<File>,
    /// The interfaces between which the machine itself forwards multicast (`ip_mr_vif`); there is none without that part of the kernel.
    routed: Option<File>,
    parse: fn(&str) -> Vec<(u32, IpAddr)>,
}

impl MulticastGroups {
    /// Of this thread's namespace, of IPv4.
    pub fn open_v4() -> MulticastGroups {
        MulticastGroups::open(["igmp", "ip_mr_vif"], parse_igmp)
    }

    /// Of this thread's namespace, of IPv6.
    pub fn open_v6() -> MulticastGroups {
        MulticastGroups::open(["igmp6", "ip6_mr_vif"], parse_igmp6)
    }

    fn open(names: [&str; 2], parse: fn(&str) -> Vec<(u32, IpAddr)>) -> MulticastGroups {
        let [joined, routed] = names.map(|name| File::open(format!("/proc/thread-self/net/{name}")).ok());
        MulticastGroups { joined, routed, parse }
    }

    /// The groups, each with the index of an interface that it is joined at. `None` if that says nothing of which packets the machine takes: the file cannot be read, or the machine forwards
    /// multicast, and takes that of any group.
    pub fn read(&mut self) -> Option<Vec<(u32, IpAddr)>> {
        let routed = self.routed.as_mut().and_then(read_again).unwrap_or_default();
        // The first line is a heading.
        if routed.lines().count() > 1 {
            return None;
        }
        read_again(self.joined.as_mut()?).map(|text| (self.parse)(&text))
    }
}

fn read_again(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Parses `igmp`: a line for an interface, then one for each of its groups, a number as it lies in memory.
fn parse_igmp(text: &str) -> Vec<(u32, IpAddr)> {
    let (mut index, mut groups) = (0, Vec::new());
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        match line.starts_with(|letter: char| letter.is_ascii_digit()) {
            true => index = first.parse().unwrap_or(0),
            false => {
                let group = u32::from_str_radix(first, 16).ok().filter(|_| first.len() == 8);
                groups.extend(group.map(|group| (index, Ipv4Addr::from(group.to_ne_bytes()).into())));
            }
        }
    }
    groups
}

/// Parses `igmp6`: index, name and group in each line.
fn parse_igmp6(text: &str) -> Vec<(u32, IpAddr)> {
    let parse_line = |line: &str| {
        let mut words = line.split_whitespace();
        let index = words.next()?.parse().ok()?;
        let group = u128::from_str_radix(words.nth(1)?, 16).ok()?;
        Some((index, Ipv6Addr::from(group).into()))
    };
    text.lines().filter_map(parse_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_files() {
        let group = u32::from_ne_bytes([224, 0, 0, 251]);
        let text = format!(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\t\t\t\t{:08X}     1 0:00000000\t\t0\n2\teth0      :     2      V3\n\t\t\t\t{group:08X}     1 0:00000000\t\t0\n",
            u32::from_ne_bytes([224, 0, 0, 1])
        );
        let wanted: Vec<(u32, IpAddr)> = vec![(1, [224, 0, 0, 1].into()), (2, [224, 0, 0, 251].into())];
        assert_eq!(parse_igmp(&text), wanted);
        let text =
            "1    lo              ff020000000000000000000000000001     1 0000000C 0\n7    eth0            nonsense 1\n";
        assert_eq!(
            parse_igmp6(text),
            [(1, IpAddr::from("ff02::1".parse::<Ipv6Addr>().unwrap_or(Ipv6Addr::LOCALHOST)))]
        );
    }

    #[test]
    fn the_machines_own_groups_are_read_again_and_again() {
        let mut groups = MulticastGroups::open_v4();
        let Some(socket) = std::net::UdpSocket::bind("127.0.0.1:0").ok().filter(|_| groups.joined.is_some()) else {
            return keepstate_test_support::report_skipped("the machine's own groups: no /proc/net/igmp, or no socket");
        };
        let group = Ipv4Addr::new(239, 77, 66, 55);
        let is_joined = |groups: &mut MulticastGroups| groups.read().map(|all| all.contains(&(1, IpAddr::from(group))));
        assert_ne!(is_joined(&mut groups), Some(true));
        if socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).is_ok() {
            assert_ne!(is_joined(&mut groups), Some(false));
        }
    }
}
