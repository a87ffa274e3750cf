//! Values of filter options, as people write them.
use crate::format::{L4Keys, protocol_and_keys};
use crate::parse_value::c_number;
use keepstate_engine::{SctpState, Status, TcpState};
use keepstate_linux::ctnetlink::CtFamily;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// TCP's number.
pub(super) const TCP: u8 = 6;
/// SCTP's number.
pub(super) const SCTP: u8 = 132;

/// Does this protocol have ports?
pub(super) fn has_ports(protocol: u8) -> bool {
    protocol_and_keys(protocol).1 == L4Keys::Ports
}

/// Status bits by name, in any case, separated by commas.
pub(super) fn parse_status(text: &str) -> Result<Status, String> {
    text.split(',').try_fold(Status::default(), |sum, name| {
        let known = Status::from_name(&name.trim().to_ascii_uppercase());
        known.map(|status| sum | status).ok_or_else(|| {
            let names: Vec<_> = Status::all().iter_names().map(|(name, _)| name).collect();
            format!("unknown status '{}': it is one of {}", name.escape_debug(), names.join(", "))
        })
    })
}

/// Status bits are serialized as their names, separated by commas.
pub(super) fn serialize_status<S: Serializer>(status: &Option<Status>, serializer: S) -> Result<S::Ok, S::Error> {
    let names = status.map(|status| status.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(","));
    names.serialize(serializer)
}

/// The reverse of [`serialize_status`].
pub(super) fn deserialize_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Status>, D::Error> {
    let names = Option::<String>::deserialize(deserializer)?;
    names.map(|names| parse_status(&names)).transpose().map_err(serde::de::Error::custom)
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FamilyArg {
    #[serde(rename = "ipv4")]
    V4,
    #[serde(rename = "ipv6")]
    V6,
}

impl FamilyArg {
    pub(super) fn ct_family(self) -> CtFamily {
        match self {
            FamilyArg::V4 => CtFamily::V4,
            FamilyArg::V6 => CtFamily::V6,
        }
    }
}

impl FromStr for FamilyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<FamilyArg, String> {
        match text {
            "ipv4" => Ok(FamilyArg::V4),
            "ipv6" => Ok(FamilyArg::V6),
            _ => Err(format!("'{}' unsupported family: it is ipv4 or ipv6", text.escape_debug())),
        }
    }
}

/// A mark, and which of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MarkMask {
    pub(super) value: u32,
    pub(super) mask: u32,
}

impl FromStr for MarkMask {
    type Err = String;

    fn from_str(text: &str) -> Result<MarkMask, String> {
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (c_number(value), c_number(mask)),
            None => (c_number(text), Some(u32::MAX)),
        };
        match (value, mask) {
            (Some(value), Some(mask)) => Ok(MarkMask { value, mask }),
            _ => Err(format!(
                "invalid mark '{}': give MARK or MARK/MASK, decimal or 0x and hexadecimal",
                text.escape_debug()
            )),
        }
    }
}

/// The name of a state, and what it is in each protocol that has states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct StateArg {
    pub(super) tcp: Option<TcpState>,
    pub(super) sctp: Option<SctpState>,
}

impl FromStr for StateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<StateArg, String> {
        // LISTEN is the old name of the state a second SYN makes; conntrack still takes it.
        let tcp_name = if text == "LISTEN" { TcpState::SynSent2.name() } else { text };
        let name = StateArg {
            tcp: TcpState::ALL.iter().copied().find(|state| state.name() == tcp_name),
            sctp: SctpState::ALL.iter().copied().find(|state| state.name() == text),
        };
        match name {
            StateArg { tcp: None, sctp: None } => {
                Err(format!("unknown state '{}': {}; {}", text.escape_debug(), tcp_state_names(), sctp_state_names()))
            }
            name => Ok(name),
        }
    }
}

impl fmt::Display for StateArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tcp.map(TcpState::name).or(self.sctp.map(SctpState::name)).unwrap_or_default())
    }
}

impl From<StateArg> for String {
    fn from(state: StateArg) -> String {
        state.to_string()
    }
}

impl TryFrom<String> for StateArg {
    type Error = String;

    fn try_from(text: String) -> Result<StateArg, String> {
        text.parse()
    }
}

impl StateArg {
    pub(super) fn check_tcp(&self) -> Result<(), String> {
        self.tcp.map(|_| ()).ok_or_else(|| format!("unknown TCP state: {}", tcp_state_names()))
    }

    pub(super) fn check_sctp(&self) -> Result<(), String> {
        self.sctp.map(|_| ()).ok_or_else(|| format!("unknown SCTP state: {}", sctp_state_names()))
    }
}

fn tcp_state_names() -> String {
    let names: Vec<_> = TcpState::ALL.iter().map(|state| state.name()).collect();
    format!("TCP has {}", names.join(", "))
}

fn sctp_state_names() -> String {
    let names: Vec<_> = SctpState::ALL.iter().map(|state| state.name()).collect();
    format!("SCTP has {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_protocols_have_ports() {
        assert!(has_ports(6) && has_ports(136) && !has_ports(1) && !has_ports(47) && !has_ports(50));
    }

    #[test]
    fn parses_status_lists() {
        assert_eq!(parse_status("assured,SEEN_REPLY"), Ok(Status::ASSURED | Status::SEEN_REPLY));
        assert!(["FOO", "", "ASSURED,", "UNSET"].into_iter().all(|bad| parse_status(bad).is_err()));
    }

    #[test]
    fn parses_marks_as_c_numbers() {
        let mark = |text: &str| text.parse::<MarkMask>().ok().map(|mark| (mark.value, mark.mask));
        assert_eq!(mark("5"), Some((5, u32::MAX)));
        assert_eq!(mark("0x1f/0XFF"), Some((31, 255)));
        assert_eq!(mark("010/0"), Some((8, 0)));
        for bad in ["", "x", "5/", "/5", "4294967296", "+5", "-1", "0x", "0x+1", "1/2/3", "08"] {
            assert_eq!(mark(bad), None, "{bad}");
        }
    }

    #[test]
    fn parses_kernel_state_names() {
        let state = |text: &str| text.parse::<StateArg>().ok().map(|name| (name.tcp, name.sctp));
        assert_eq!(state("ESTABLISHED"), Some((Some(TcpState::Established), Some(SctpState::Established))));
        assert_eq!(state("LISTEN"), Some((Some(TcpState::SynSent2), None)));
        assert_eq!(state("COOKIE_WAIT"), Some((None, Some(SctpState::CookieWait))));
        assert_eq!(state("established"), None, "conntrack takes them in upper case only");
        assert!("COOKIE_WAIT".parse::<StateArg>().unwrap().check_tcp().is_err());
        assert!("SYN_SENT".parse::<StateArg>().unwrap().check_sctp().is_err());
    }
}
