//! The feature `serde`: plain values go to JSON and back, and errors are written as their stable names.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use keepstate_wire::link::LinkType;
use keepstate_wire::reassembly::{FragmentInfo, ReassemblyLimits};
use keepstate_wire::tcp::{SynOptions, TcpFlags};
use keepstate_wire::udp::UdpHeader;
use keepstate_wire::{Addresses, Family, FragmentHeader, LinuxAction, ParseError, gre::GreHeader};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
    let text = serde_json::to_string(&value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
}

#[test]
fn plain_values_survive_json() {
    there_and_back(Family::V6);
    there_and_back(Addresses::V4 { source: [10, 0, 0, 1], destination: [10, 0, 0, 2] });
    there_and_back(Addresses::V6 { source: [1; 16], destination: [2; 16] });
    there_and_back(FragmentHeader { id: 7, offset: 1480, more: true });
    there_and_back(LinkType::LINUX_SLL2);
    there_and_back(FragmentInfo { max_size: 1500, header_len: 20 });
    there_and_back(ReassemblyLimits::default());
    there_and_back(TcpFlags(TcpFlags::SYN | TcpFlags::ACK));
    there_and_back(SynOptions { window_scale: Some(7), sack_permitted: true, mss: Some(1460) });
    there_and_back(UdpHeader { source: 53, destination: 40000, length: 12, checksum: 0 });
    there_and_back(GreHeader { version: 1, protocol: 0x880b, call_id: Some(9) });
    for action in [LinuxAction::Dropped, LinuxAction::Invalid, LinuxAction::PassedUnassembled] {
        there_and_back(action);
    }
}

#[test]
fn parse_errors_are_written_as_their_names() {
    for error in ParseError::ALL {
        assert_eq!(serde_json::to_value(error).unwrap(), error.name());
        there_and_back(*error);
    }
}
