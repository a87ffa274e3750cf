//! The values of options. Where conntrack reads a malformed value as zero (`-m x`, `--dport x`) or lets a number wrap (`-w 65539`),
//! these functions reject it: a wrong deletion cannot be undone.
use super::error::ConntrackError;
use crate::parse_value::{builtin_protocol, c_number, prefix_mask};
use keepstate_linux::ctnetlink::{EventKind, SctpState, Status, TcpState};
use std::net::{IpAddr, Ipv4Addr};

/// A number as in C (`0x` hexadecimal, `0` octal), within a range.
pub(super) fn parse_u32(text: &str, highest: u32, option: &str) -> Result<u32, ConntrackError> {
    // strtoul takes a plus sign; a minus sign would wrap, so it is an error.
    let read = c_number(text.strip_prefix('+').unwrap_or(text));
    read.filter(|number| *number <= highest).ok_or_else(|| {
        ConntrackError::usage(format!(
            "Invalid value `{}' for `{option}': a number from 0 to {highest} is expected",
            text.escape_debug()
        ))
    })
}

/// A number in decimal, within a range.
pub(super) fn parse_decimal(text: &str, highest: u32, option: &str) -> Result<u32, ConntrackError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= highest).ok_or_else(|| {
        ConntrackError::usage(format!(
            "Invalid value `{}' for `{option}': a number from 0 to {highest} is expected",
            text.escape_debug()
        ))
    })
}

/// A port.
pub(super) fn parse_port(text: &str, option: &str) -> Result<u16, ConntrackError> {
    parse_decimal(text, u16::MAX.into(), option).map(|number| u16::try_from(number).unwrap_or(u16::MAX))
}

/// A number of 16 bits.
pub(super) fn parse_u16(text: &str, option: &str) -> Result<u16, ConntrackError> {
    parse_u32(text, u16::MAX.into(), option).map(|number| u16::try_from(number).unwrap_or(u16::MAX))
}

/// A number of 8 bits.
pub(super) fn parse_u8(text: &str, option: &str) -> Result<u8, ConntrackError> {
    parse_u32(text, u8::MAX.into(), option).map(|number| u8::try_from(number).unwrap_or(u8::MAX))
}

/// A mark and its mask; without a mask, all bits.
pub(super) fn parse_mark(text: &str) -> Result<[u32; 2], ConntrackError> {
    let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    let mask = mask.map_or(Ok(u32::MAX), |mask| parse_u32(mask, u32::MAX, "--mark"))?;
    Ok([parse_u32(value, u32::MAX, "--mark")?, mask])
}

/// An address as inet_aton and inet_pton read them: `10.1` is 10.0.0.1.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, ConntrackError> {
    let short = || parse_inet_aton(text).map(IpAddr::V4);
    text.parse()
        .ok()
        .or_else(short)
        .ok_or_else(|| ConntrackError::usage(format!("Invalid IP address `{}'", text.escape_debug())))
}

/// One to four numbers; the last one fills the remaining bytes.
fn parse_inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let (last, leading) = parts.split_last()?;
    let mut address: u32 = 0;
    for part in leading {
        address = address << 8 | parse_u32(part, 255, "").ok()?;
    }
    let bytes = 4_u32.checked_sub(u32::try_from(leading.len()).ok()?)?;
    let highest = u32::MAX.checked_shr(32 - 8 * bytes)?;
    let last = parse_u32(last, highest, "").ok()?;
    Some(Ipv4Addr::from(address.checked_shl(8 * bytes).unwrap_or(0) | last))
}

/// An address, and the mask of its `/LENGTH` if there is one.
pub(super) fn parse_network(text: &str) -> Result<(IpAddr, Option<IpAddr>), ConntrackError> {
    let Some((text, length)) = text.split_once('/') else { return Ok((parse_address(text)?, None)) };
    let address = parse_address(text)?;
    let invalid = || ConntrackError::usage("Invalid netmask");
    let length: u32 = length.parse().map_err(|_| invalid())?;
    let mask = prefix_mask(length, address).ok_or_else(invalid)?;
    Ok((address, Some(mask)))
}

/// An address without a prefix length.
pub(super) fn parse_single_address(text: &str, option: &str) -> Result<IpAddr, ConntrackError> {
    if text.contains('/') {
        return Err(ConntrackError::usage(format!("CIDR notation unavailable for `--{option}'")));
    }
    parse_address(text)
}

/// An address with an optional port: `10.0.0.1:80`, `[::1]:80`. Brackets belong to a port: an address in brackets without one is refused.
pub(super) fn parse_nat_endpoint(text: &str, option: &str) -> Result<(IpAddr, Option<u16>), ConntrackError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            None => return Err(ConntrackError::usage("No closing ']' around IPv6 address")),
            Some(("", _)) => return Err(ConntrackError::usage("No IPv6 address specified")),
            Some((host, port)) => port.strip_prefix(':').map_or((text, None), |port| (host, Some(port))),
        },
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        },
    };
    if port == Some("") {
        return Err(ConntrackError::usage("No port specified after `:'"));
    }
    let read = |port: &str| parse_decimal(port, u16::MAX.into(), option).ok().and_then(|port| u16::try_from(port).ok());
    let invalid = |port: &str| ConntrackError::usage(format!("Invalid port `{}'", port.escape_debug()));
    let port = port.map(|port| read(port).ok_or_else(|| invalid(port))).transpose()?;
    if text.starts_with('[') && port.is_none() {
        return Err(ConntrackError::usage(format!("Invalid IP address `{}'", text.escape_debug())));
    }
    Ok((parse_single_address(host, option)?, port))
}

/// A transport protocol: by name in any case, or by number.
pub(super) fn parse_protocol(text: &str) -> Result<u8, ConntrackError> {
    let listed = || lookup_etc_protocols(&std::fs::read_to_string("/etc/protocols").unwrap_or_default(), text);
    builtin_protocol(text)
        .or_else(|| text.parse().ok())
        .or_else(listed)
        .ok_or_else(|| ConntrackError::usage(format!("`{}' unsupported protocol", text.escape_debug())))
}

/// The number of a protocol in a file of lines `name number alias...`.
fn lookup_etc_protocols(file: &str, name: &str) -> Option<u8> {
    file.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, number) = (words.next()?, words.next()?.parse().ok()?);
        (first == name || words.any(|alias| alias == name)).then_some(number)
    })
}

/// Status bits that can be given; `UNSET` means none.
const STATUS: &[(&str, Status)] = &[
    ("ASSURED", Status::ASSURED),
    ("SEEN_REPLY", Status::SEEN_REPLY),
    ("UNSET", Status::empty()),
    ("FIXED_TIMEOUT", Status::FIXED_TIMEOUT),
    ("EXPECTED", Status::EXPECTED),
    ("OFFLOAD", Status::OFFLOAD),
    ("HW_OFFLOAD", Status::HW_OFFLOAD),
];

/// A list of status bits: those that must be set and, for `UNREPLIED`, those that must not. Ignored names are warned about.
pub(super) fn parse_status(list: &str, warn: impl Fn(&str)) -> Result<[Status; 2], ConntrackError> {
    let mut bits = [Status::empty(); 2];
    for name in list.split(',') {
        let upper = name.to_ascii_uppercase();
        match upper.as_str() {
            "SRC_NAT" => warn("WARNING: ignoring SRC_NAT, use --src-nat instead"),
            "DST_NAT" => warn("WARNING: ignoring DST_NAT, use --dst-nat instead"),
            "UNREPLIED" => bits[1] |= Status::SEEN_REPLY,
            _ => match STATUS.iter().find(|(known, _)| *known == upper) {
                Some((_, bit)) => bits[0] |= *bit,
                None => return Err(bad_parameter(name)),
            },
        }
    }
    Ok(bits)
}

/// Names of event types.
const EVENTS: &[(&str, &[EventKind])] = &[
    ("ALL", &[EventKind::New, EventKind::Update, EventKind::Destroy]),
    ("NEW", &[EventKind::New]),
    ("UPDATES", &[EventKind::Update]),
    ("DESTROY", &[EventKind::Destroy]),
];

/// The event types of a list.
pub(super) fn parse_event_mask(list: &str) -> Result<Vec<EventKind>, ConntrackError> {
    let mut wanted = Vec::new();
    for name in list.split(',') {
        let upper = name.to_ascii_uppercase();
        // Names may be abbreviated.
        let meant = EVENTS.iter().find(|(known, _)| !upper.is_empty() && known.starts_with(&upper));
        let (_, events) = meant.ok_or_else(|| bad_parameter(name))?;
        wanted.extend_from_slice(events);
    }
    Ok(wanted)
}

/// A TCP state's number. conntrack's name LISTEN means SYN_SENT2.
pub(super) fn parse_tcp_state(text: &str) -> Result<u8, ConntrackError> {
    let known = TcpState::ALL.iter().find(|state| state.name() == text).map(|state| state.number());
    let listen = (text == "LISTEN").then_some(TcpState::SynSent2.number());
    known.or(listen).ok_or_else(|| ConntrackError::usage(format!("unknown TCP state `{}'", text.escape_debug())))
}

/// An SCTP state.
pub(super) fn parse_sctp_state(text: &str) -> Result<SctpState, ConntrackError> {
    let known = SctpState::ALL.iter().find(|state| state.name() == text).copied();
    known.ok_or_else(|| ConntrackError::usage(format!("unknown SCTP state `{}'", text.escape_debug())))
}

/// A DCCP state or role: checked, then ignored, since recent kernels do not track DCCP.
pub(super) fn check_dccp_value(text: &str, kind: &str, known: &[&str]) -> Result<(), ConntrackError> {
    let any_case = kind == "role";
    if known.iter().any(|name| *name == text || (any_case && name.eq_ignore_ascii_case(text))) {
        Ok(())
    } else {
        Err(ConntrackError::usage(format!("Unknown DCCP {kind} `{}'", text.escape_debug())))
    }
}

/// DCCP's states.
pub(super) const DCCP_STATES: &[&str] =
    &["NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT"];

/// An unknown value.
pub(super) fn bad_parameter(name: &str) -> ConntrackError {
    ConntrackError::usage(format!("Bad parameter `{}'", name.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_addresses_like_inet_aton() {
        let read = |text| parse_address(text).map(|address| address.to_string()).ok();
        assert_eq!(read("10.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(read("999").as_deref(), Some("0.0.3.231"));
        assert_eq!(read("1.2.3").as_deref(), Some("1.2.0.3"));
        assert_eq!(read("0x7f.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(read("4294967295").as_deref(), Some("255.255.255.255"));
        assert_eq!(read("::1").as_deref(), Some("::1"));
        for nonsense in ["", "x", "1.2.3.4.5", "256.1.1.1", "1..2", "4294967296", "-1", "1.2.3.4 "] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn parses_networks_and_nat_endpoints() {
        assert_eq!(
            parse_network("10.9.8.7/8").unwrap(),
            ("10.9.8.7".parse().unwrap(), Some("255.0.0.0".parse().unwrap()))
        );
        assert_eq!(parse_network("::/0").unwrap().1, Some("::".parse().unwrap()));
        assert!(
            parse_network("10.0.0.0/").is_err()
                && parse_network("10.0.0.0/33").is_err()
                && parse_network("::/129").is_err()
        );
        assert_eq!(parse_nat_endpoint("[::9]:33", "dst-nat").unwrap(), ("::9".parse().unwrap(), Some(33)));
        assert_eq!(parse_nat_endpoint("::9", "dst-nat").unwrap(), ("::9".parse().unwrap(), None));
        assert_eq!(parse_nat_endpoint("1.2.3.4:55", "dst-nat").unwrap(), ("1.2.3.4".parse().unwrap(), Some(55)));
        assert!(
            parse_nat_endpoint("1.2.3.4:33-40", "dst-nat").is_err() && parse_nat_endpoint("[::9", "dst-nat").is_err()
        );
        // Each is refused by conntrack.
        for text in ["[::9]", "[::9]x", "[::9]/64", "[]:5", "[]", "[", "[::9]:", "[1.2.3.4]", "1.2.3.4:+5", "::9]"] {
            assert!(parse_nat_endpoint(text, "dst-nat").is_err(), "{text}");
        }
    }

    #[test]
    fn parses_marks_and_rejects_bad_numbers() {
        assert_eq!(parse_mark("0x10/0xff").unwrap(), [16, 255]);
        assert_eq!(parse_mark("010").unwrap(), [8, u32::MAX]);
        for nonsense in ["", "x", "5/", "/5", "4294967296", "-1", "08"] {
            assert!(parse_mark(nonsense).is_err(), "{nonsense}");
        }
        assert!(parse_u16("65536", "zone").is_err());
    }

    #[test]
    fn parses_protocols_by_name_number_and_etc_protocols() {
        assert_eq!(
            [parse_protocol("TCP").unwrap(), parse_protocol("132").unwrap(), parse_protocol("esp").unwrap()],
            [6, 132, 50]
        );
        assert!(parse_protocol("256").is_err() && parse_protocol("nosuch").is_err());
        let file = "# x\nip\t0\tIP\nmptcp 262 MPTCP\nospf 89 OSPFIGP # routing\n";
        assert_eq!([lookup_etc_protocols(file, "OSPFIGP"), lookup_etc_protocols(file, "mptcp")], [Some(89), None]);
    }
}
