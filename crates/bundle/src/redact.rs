//! Pseudonyms for addresses: the same address gets the same pseudonym everywhere in a bundle, of the same family, private if it
//! was private. The mapping is never stored.
//!
//! An address is found by itself and in a name: `node-10-0-0-5`, `ip-10-1-2-3.ec2.internal`, `veth10.0.0.5`, `2001-db8--5.example`.
//! Addresses that name no host stay: loopback, unspecified, broadcast, multicast, netmasks.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The pseudonyms given so far.
#[derive(Debug, Default)]
pub struct Redactor {
    addresses: HashMap<IpAddr, IpAddr>,
    last_number: HashMap<AddressKind, u32>,
    mac_addresses: HashMap<[u8; 6], u32>,
    counts: RedactionCounts,
}

/// How many of each class were replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedactionCounts {
    /// IP addresses.
    pub addresses: u64,
    /// IP addresses in the names of machines, interfaces and files.
    pub addresses_in_names: u64,
    /// Hardware addresses.
    pub hardware_addresses: u64,
}

/// The properties of an address that its pseudonym keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AddressKind {
    Private4,
    Shared4,
    Link4,
    Public4,
    Private6,
    Link6,
    Public6,
}

impl Redactor {
    /// Replaces every address in a text.
    pub fn redact_text(&mut self, text: &str) -> String {
        let text = self.replace_tokens(text, is_name_char, Redactor::redact_dashed);
        let text = self.replace_tokens(&text, is_address_char, Redactor::redact_token);
        self.redact_ipv4(&text)
    }

    /// How many of each class were replaced until now.
    pub fn counts(&self) -> RedactionCounts {
        self.counts
    }

    /// Gives each longest run of these characters that touches no other letter or digit to `redact`.
    fn replace_tokens(
        &mut self,
        text: &str,
        is_part: fn(char) -> bool,
        redact: fn(&mut Redactor, &str) -> Option<String>,
    ) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_part) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|letter| !is_part(letter)).unwrap_or(from.len());
            let (token, after) = from.split_at(end);
            out.push_str(before);
            // `dead` in `deadline` is no token, nor are the digits of `eth0`; dashes and dots part words.
            let touches = (before.ends_with(char::is_alphanumeric) && !token.starts_with(['-', '.']))
                || (after.starts_with(char::is_alphanumeric) && !token.ends_with(['-', '.']));
            match Some(token).filter(|_| !touches).and_then(|token| redact(self, token)) {
                Some(redacted) => out.push_str(&redacted),
                None => out.push_str(token),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// IPv6 and hardware addresses with dashes instead of colons, as names have them.
    fn redact_dashed(&mut self, token: &str) -> Option<String> {
        let name = token.trim_matches('-');
        let groups: Vec<&str> = name.split('-').collect();
        let redacted = if groups.len() == 6 && groups.iter().all(|group| group.len() == 2) {
            self.redact_mac(&groups)?
        } else {
            let filled = groups.iter().filter(|group| !group.is_empty()).count();
            // `a--b` is a word; an address in a name has more groups, and digits.
            if filled < 3 || !name.contains(|letter: char| letter.is_ascii_digit()) {
                return None;
            }
            let address: Ipv6Addr = name.replace('-', ":").parse().ok()?;
            self.counts.addresses_in_names += 1;
            self.pseudonym(address.into()).to_string()
        };
        Some(token.replacen(name, &redacted.replace(':', "-"), 1))
    }

    /// Replaces four numbers up to 255 with the same separator between them, wherever they stand.
    fn redact_ipv4(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
            let (before, from) = rest.split_at(start);
            out.push_str(before);
            let run = NumberRun::at(from);
            let is_in_name = run.separator != Some('.')
                || out.chars().next_back().is_some_and(char::is_alphabetic)
                || from.get(run.length..).is_some_and(|after| after.starts_with(char::is_alphabetic));
            out.push_str(&self.redact_run(&run, is_in_name));
            rest = from.get(run.length..).unwrap_or_default();
        }
        out.push_str(rest);
        out
    }

    fn redact_run(&mut self, run: &NumberRun<'_>, is_in_name: bool) -> String {
        let separator = run.separator.map(String::from).unwrap_or_default();
        let octet = |group: &&str| if group.len() <= 3 { group.parse::<u8>().ok() } else { None };
        let octets: Vec<Option<u8>> = run.groups.iter().map(octet).collect();
        let window = octets.windows(4).enumerate().find_map(|(at, window)| match window {
            [Some(a), Some(b), Some(c), Some(d)] => Some((at, Ipv4Addr::new(*a, *b, *c, *d))),
            _ => None,
        });
        // Six pairs with dashes are a hardware address, which has its pseudonym already.
        let is_mac = run.separator == Some('-') && octets.len() == 6 && run.groups.iter().all(|group| group.len() == 2);
        let Some((at, address)) = window.filter(|_| !is_mac) else { return run.groups.join(&separator) };
        let pseudonym = self.pseudonym(address.into());
        if pseudonym == IpAddr::V4(address) {
            return run.groups.join(&separator);
        }
        match is_in_name {
            true => self.counts.addresses_in_names += 1,
            false => self.counts.addresses += 1,
        }
        let mut groups: Vec<String> = run.groups.iter().take(at).map(|group| (*group).to_owned()).collect();
        groups.push(pseudonym.to_string().replace('.', &separator));
        // Where in a longer run of numbers the address begins is not certain: the rest may belong to it.
        groups.extend(run.groups.iter().skip(at + 4).map(|_| "x".to_owned()));
        groups.join(&separator)
    }

    fn redact_token(&mut self, token: &str) -> Option<String> {
        let start = token.trim_start_matches('.');
        let trimmed = start.trim_end_matches(['.', ':']);
        // `fd00::` ends with colons of its own.
        [start, trimmed].into_iter().find_map(|address| {
            let redacted = self.redact_address(address)?;
            Some(token.replacen(address, &redacted, 1))
        })
    }

    /// IPv6, also as 32 digits and as the digits of a name of `ip6.arpa`; a hardware address.
    fn redact_address(&mut self, text: &str) -> Option<String> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            let pseudonym = self.pseudonym(address.into());
            self.counts.addresses += u64::from(pseudonym != IpAddr::V6(address));
            return Some(pseudonym.to_string());
        }
        if text.len() == 32 && !text.contains([':', '.']) {
            return self.redact_hex(text);
        }
        let digits: Vec<&str> = text.split('.').collect();
        if digits.len() == 32 && digits.iter().all(|digit| digit.len() == 1) {
            let hex: String = digits.iter().rev().copied().collect();
            let address = Ipv6Addr::from(u128::from_str_radix(&hex, 16).ok()?);
            self.counts.addresses_in_names += 1;
            return Some(self.pseudonym(address.into()).to_string());
        }
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() == 6 && parts.iter().all(|part| part.len() == 2) { self.redact_mac(&parts) } else { None }
    }

    fn redact_hex(&mut self, digits: &str) -> Option<String> {
        let number = u128::from_str_radix(digits, 16).ok()?;
        let IpAddr::V6(pseudonym) = self.pseudonym(IpAddr::V6(Ipv6Addr::from(number))) else { return None };
        self.counts.addresses += u64::from(u128::from(pseudonym) != number);
        Some(format!("{:032x}", u128::from(pseudonym)))
    }

    fn redact_mac(&mut self, parts: &[&str]) -> Option<String> {
        let mut bytes = [0; 6];
        for (byte, part) in bytes.iter_mut().zip(parts) {
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        self.counts.hardware_addresses += 1;
        let next = u32::try_from(self.mac_addresses.len()).unwrap_or(u32::MAX);
        let [a, b, c, d] = self.mac_addresses.entry(bytes).or_insert(next).to_be_bytes();
        Some(format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
    }

    /// The pseudonym of an address.
    pub fn pseudonym(&mut self, address: IpAddr) -> IpAddr {
        let Some(kind) = address_kind(address) else { return address };
        if let Some(known) = self.addresses.get(&address) {
            return *known;
        }
        let number = self.last_number.entry(kind).or_insert(0);
        *number += 1;
        let pseudonym = kind.numbered_address(*number);
        self.addresses.insert(address, pseudonym);
        pseudonym
    }
}

impl AddressKind {
    /// The pseudonym with a number. Public addresses come from the documentation and benchmark ranges.
    fn numbered_address(self, number: u32) -> IpAddr {
        let four = |base: [u8; 4], bits: u32| -> IpAddr {
            let mask = (1_u32 << bits) - 1;
            // A range that is used up goes on in 240.0.0.0/4: no two addresses share a pseudonym.
            match number <= mask {
                true => Ipv4Addr::from(u32::from(Ipv4Addr::from(base)) | number).into(),
                false => Ipv4Addr::from(0xf000_0000 | (number & 0x0fff_ffff)).into(),
            }
        };
        let six = |base: u128| -> IpAddr { Ipv6Addr::from(base | u128::from(number)).into() };
        match self {
            AddressKind::Private4 => four([10, 0, 0, 0], 24),
            AddressKind::Shared4 => four([100, 64, 0, 0], 22),
            AddressKind::Link4 => four([169, 254, 0, 0], 16),
            AddressKind::Public4 => four([198, 18, 0, 0], 17),
            AddressKind::Private6 => six(0xfd00 << 112),
            AddressKind::Link6 => six(0xfe80 << 112),
            AddressKind::Public6 => six(0x2001_0db8 << 96),
        }
    }
}

/// The kind of an address; none if it names no host.
fn address_kind(address: IpAddr) -> Option<AddressKind> {
    match address {
        IpAddr::V4(four) => {
            let [first, second, ..] = four.octets();
            if four.is_loopback() || four.is_multicast() || first == 0 || first == 255 {
                return None;
            }
            Some(match four {
                _ if four.is_private() => AddressKind::Private4,
                _ if four.is_link_local() => AddressKind::Link4,
                _ if first == 100 && (64..128).contains(&second) => AddressKind::Shared4,
                _ => AddressKind::Public4,
            })
        }
        IpAddr::V6(six) => {
            if six.is_loopback() || six.is_multicast() || six.is_unspecified() {
                return None;
            }
            Some(match six.segments()[0] {
                first if first & 0xfe00 == 0xfc00 => AddressKind::Private6,
                first if first & 0xffc0 == 0xfe80 => AddressKind::Link6,
                _ => AddressKind::Public6,
            })
        }
    }
}

/// Numbers with the same separator between them: `10.0.0.5`, `10-0-0-5`, `10_0_0_5`.
struct NumberRun<'a> {
    groups: Vec<&'a str>,
    separator: Option<char>,
    /// In bytes.
    length: usize,
}

impl<'a> NumberRun<'a> {
    /// The run at the begin of a text, which begins with a digit.
    fn at(text: &'a str) -> NumberRun<'a> {
        let mut run = NumberRun { groups: Vec::new(), separator: None, length: 0 };
        loop {
            let rest = text.get(run.length..).unwrap_or_default();
            let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
            run.groups.push(rest.get(..digits).unwrap_or_default());
            run.length += digits;
            let mut behind = rest.get(digits..).unwrap_or_default().chars();
            let separator = behind.next().filter(|letter| matches!(letter, '.' | '-' | '_'));
            let goes_on = behind.next().is_some_and(|letter| letter.is_ascii_digit());
            if separator.is_none() || !goes_on || run.separator.is_some_and(|other| Some(other) != separator) {
                return run;
            }
            run.separator = separator;
            run.length += 1;
        }
    }
}

/// Characters of IPv6 and hardware addresses in names.
fn is_name_char(letter: char) -> bool {
    letter.is_ascii_hexdigit() || letter == '-'
}

/// Characters of addresses.
fn is_address_char(letter: char) -> bool {
    letter.is_ascii_hexdigit() || letter == ':' || letter == '.'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_address_keeps_pseudonym_and_kind() {
        let mut redactor = Redactor::default();
        let line =
            "src=192.168.1.7 dst=8.8.8.8 sport=53 src=8.8.8.8 dst=192.168.1.7 [fd12::1]:53 2a00:1450::5, fe80::9";
        let seen = redactor.redact_text(line);
        assert_eq!(
            seen,
            "src=10.0.0.1 dst=198.18.0.1 sport=53 src=198.18.0.1 dst=10.0.0.1 [fd00::1]:53 2001:db8::1, fe80::1"
        );
        assert_eq!(redactor.redact_text("dnat to 192.168.1.7:53;"), "dnat to 10.0.0.1:53;");
        assert_eq!(
            redactor.redact_text("fd120000000000000000000000000001 02 eth0"),
            "fd000000000000000000000000000001 02 eth0"
        );
        assert_eq!(redactor.redact_text("52:54:00:12:34:56 52:54:00:12:34:56"), "02:00:00:00:00:00 02:00:00:00:00:00");
    }

    #[test]
    fn addresses_in_names_are_redacted() {
        let mut redactor = Redactor::default();
        assert_eq!(redactor.redact_text("10.0.0.5 10.1.2.3"), "10.0.0.1 10.0.0.2");
        for (name, redacted) in [
            ("node-10-0-0-5", "node-10-0-0-1"),
            ("ip-10-1-2-3.ec2.internal", "ip-10-0-0-2.ec2.internal"),
            ("--hostname-override=ip-10-1-2-3", "--hostname-override=ip-10-0-0-2"),
            ("host_10_0_0_5_a", "host_10_0_0_1_a"),
            ("veth10.0.0.5", "veth10.0.0.1"),
            ("10.0.0.5.nip.io", "10.0.0.1.nip.io"),
            ("pod-10-0-0-5-8080", "pod-10-0-0-1-x"),
            ("node010-000-000-005x", "node10-0-0-1x"),
            ("2001-db8-0-1--5.example", "2001-db8--1.example"),
            ("port-52-54-00-12-34-56", "port-02-00-00-00-00-00"),
            ("aa-bb-cc-00-11-22", "02-00-00-00-00-01"),
            ("5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::2.ip6.arpa"),
        ] {
            assert_eq!(redactor.redact_text(name), redacted, "{name}");
        }
        let counts = redactor.counts();
        assert!(counts.addresses_in_names >= 8 && counts.hardware_addresses == 2, "{counts:?}");
    }

    #[test]
    fn names_and_numbers_without_addresses_stay() {
        let mut redactor = Redactor::default();
        let text = "2026-11-29T10:20:30Z 6.1.0-28-amd64 --add --feed-bead a--b eth0.100 1-2-3 dead-beef-cafe 300-1-2-3 \
                    550e8400-e29b-41d4-a716-446655440000 node-0-0-0-0 10,20,30,40 v1.2.3";
        assert_eq!(redactor.redact_text(text), text);
        assert_eq!(redactor.counts(), RedactionCounts::default());
    }

    #[test]
    fn special_addresses_are_not_redacted() {
        let mut redactor = Redactor::default();
        let text =
            "127.0.0.1 ::1 0.0.0.0/0 255.255.255.0 224.0.0.1 deadline 12:30:45 abcd eth0: 1.5 65536 [  22.339896] b:";
        assert_eq!(redactor.redact_text(text), text);
    }

    #[test]
    fn pseudonyms_are_unique() {
        let mut redactor = Redactor::default();
        let mut seen = std::collections::HashSet::new();
        for number in 0..200_000_u32 {
            assert!(seen.insert(redactor.pseudonym(Ipv4Addr::from(0x0800_0000 + number).into())));
        }
    }
}
