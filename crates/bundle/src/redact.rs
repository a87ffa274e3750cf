//! Pseudonyms for addresses: the same address gets the same pseudonym everywhere in a bundle, of the same family, private if it
//! was private. The mapping is never stored.
//!
//! Addresses that name no host stay: loopback, unspecified, broadcast, multicast, netmasks.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The pseudonyms given so far.
#[derive(Debug, Default)]
pub struct Redactor {
    addresses: HashMap<IpAddr, IpAddr>,
    last_number: HashMap<AddressKind, u32>,
    mac_addresses: HashMap<[u8; 6], u32>,
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
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_address_char) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|letter| !is_address_char(letter)).unwrap_or(from.len());
            let (token, after) = from.split_at(end);
            out.push_str(before);
            // `dead` in `deadline` is no token, nor are the digits of `eth0`.
            let touches = before.chars().next_back().is_some_and(char::is_alphanumeric)
                || after.chars().next().is_some_and(char::is_alphanumeric);
            match touches {
                true => out.push_str(token),
                false => out.push_str(&self.redact_token(token)),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn redact_token(&mut self, token: &str) -> String {
        let trimmed = token.trim_end_matches(['.', ':']);
        let tail = token.get(trimmed.len()..).unwrap_or_default();
        if let Some(one) = self.redact_address(trimmed) {
            return one + tail;
        }
        if let Some(one) = self.redact_address(token) {
            return one;
        }
        // An IPv4 address and a port.
        if let Some((address, port)) = trimmed.rsplit_once(':')
            && let Ok(address) = address.parse::<Ipv4Addr>()
        {
            return format!("{}:{port}{tail}", self.pseudonym(address.into()));
        }
        token.to_owned()
    }

    fn redact_address(&mut self, text: &str) -> Option<String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(self.pseudonym(address).to_string());
        }
        if text.len() == 32 && !text.contains([':', '.']) {
            let number = u128::from_str_radix(text, 16).ok()?;
            let IpAddr::V6(pseudonym) = self.pseudonym(IpAddr::V6(Ipv6Addr::from(number))) else { return None };
            return Some(format!("{:032x}", u128::from(pseudonym)));
        }
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() == 6 && parts.iter().all(|part| part.len() == 2) {
            let mut bytes = [0; 6];
            for (byte, part) in bytes.iter_mut().zip(parts) {
                *byte = u8::from_str_radix(part, 16).ok()?;
            }
            let next = u32::try_from(self.mac_addresses.len()).unwrap_or(u32::MAX);
            let [a, b, c, d] = self.mac_addresses.entry(bytes).or_insert(next).to_be_bytes();
            return Some(format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"));
        }
        None
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
