//! The options for NAT behaviour beyond Linux's.
use clap::{Args, ValueEnum};
use keepstate_gateway::gateway_file::{DeterministicText, Given, NatFilteringSetting, NatMappingSetting, NatSettings};
use std::str::FromStr;

/// NAT behaviour beyond Linux's.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "NAT beyond Linux's")]
pub struct NatArgs {
    /// Port mapping: per-connection as in Linux, or endpoint-independent: one outside port per inside address and port, towards every peer (RFC 4787) [default: per-connection]
    #[arg(long, value_name = "MODE", value_enum)]
    nat_mapping: Option<NatMappingArg>,
    /// Which peers may send to a mapped port: those of its connections, as in Linux; all ports of their addresses; or any [default: per-connection]
    #[arg(long, value_name = "MODE", value_enum)]
    nat_filtering: Option<NatFilteringArg>,
    /// Map even ports to even ports, and keep the next one free for a companion (RTP, RTCP) while there are others
    #[arg(long)]
    nat_parity: bool,
    /// Allocate ports in blocks of this size, one block per inside address; allocation and release are logged
    #[arg(long, value_name = "PORTS", value_parser = clap::value_parser!(u16).range(1..=64_512), conflicts_with = "deterministic")]
    port_block: Option<u16>,
    /// Compute outside address and ports from the inside address (RFC 7422): 100.64.0.0/16=192.0.2.0/28 (repeatable). The ruleset decides which connections are translated
    #[arg(long, value_name = "INSIDE=OUTSIDE", value_parser = DeterministicText::from_str)]
    deterministic: Vec<DeterministicText>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NatMappingArg {
    PerConnection,
    EndpointIndependent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NatFilteringArg {
    PerConnection,
    AddressDependent,
    EndpointIndependent,
}

impl NatArgs {
    /// Those of a gateway's settings that stand here.
    pub fn settings(&self) -> NatSettings {
        NatSettings {
            mapping: self.nat_mapping.map(|mode| Given::flag(mode.into(), "--nat-mapping")),
            filtering: self.nat_filtering.map(|mode| Given::flag(mode.into(), "--nat-filtering")),
            parity: self.nat_parity.then(|| Given::flag(true, "--nat-parity")),
            port_block: self.port_block.map(|size| Given::flag(size, "--port-block")),
            deterministic: (!self.deterministic.is_empty())
                .then(|| Given::flag(self.deterministic.clone(), "--deterministic")),
        }
    }
}

impl From<NatMappingArg> for NatMappingSetting {
    fn from(mode: NatMappingArg) -> NatMappingSetting {
        match mode {
            NatMappingArg::PerConnection => NatMappingSetting::PerConnection,
            NatMappingArg::EndpointIndependent => NatMappingSetting::EndpointIndependent,
        }
    }
}

impl From<NatFilteringArg> for NatFilteringSetting {
    fn from(mode: NatFilteringArg) -> NatFilteringSetting {
        match mode {
            NatFilteringArg::PerConnection => NatFilteringSetting::PerConnection,
            NatFilteringArg::AddressDependent => NatFilteringSetting::AddressDependent,
            NatFilteringArg::EndpointIndependent => NatFilteringSetting::EndpointIndependent,
        }
    }
}
