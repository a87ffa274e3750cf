//! The options for NAT behaviour beyond Linux's.
use clap::{Args, ValueEnum};
use keepstate_engine::{DeterministicNat, FilteringBehaviour, MappingBehaviour, NatPolicy};
use std::net::Ipv4Addr;

/// NAT behaviour beyond Linux's.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "NAT beyond Linux's")]
pub struct NatArgs {
    /// Port mapping: per-connection as in Linux, or endpoint-independent: one outside port per inside address and port, towards every peer (RFC 4787)
    #[arg(long, value_name = "MODE", value_enum, default_value_t = NatMappingArg::PerConnection)]
    nat_mapping: NatMappingArg,
    /// Which peers may send to a mapped port: those of its connections, as in Linux; all ports of their addresses; or any
    #[arg(long, value_name = "MODE", value_enum, default_value_t = NatFilteringArg::PerConnection)]
    nat_filtering: NatFilteringArg,
    /// Map even ports to even ports, and keep the next one free for a companion (RTP, RTCP) while there are others
    #[arg(long)]
    nat_parity: bool,
    /// Allocate ports in blocks of this size, one block per inside address; allocation and release are logged
    #[arg(long, value_name = "PORTS", value_parser = clap::value_parser!(u16).range(1..=64_512), conflicts_with = "deterministic")]
    port_block: Option<u16>,
    /// Compute outside address and ports from the inside address (RFC 7422): 100.64.0.0/16=192.0.2.0/28 (repeatable). The ruleset decides which connections are translated
    #[arg(long, value_name = "INSIDE=OUTSIDE", value_parser = parse_deterministic)]
    deterministic: Vec<DeterministicNat>,
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
    /// Do they fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let independent = self.nat_mapping == NatMappingArg::EndpointIndependent;
        if self.nat_filtering != NatFilteringArg::PerConnection && !independent {
            return Err(
                "--nat-filtering needs one port per source, but per-connection mapping shares ports: add --nat-mapping endpoint-independent"
                    .to_owned(),
            );
        }
        if self.nat_parity && !independent {
            return Err("--nat-parity: add --nat-mapping endpoint-independent".to_owned());
        }
        Ok(())
    }

    /// As the engine takes them.
    pub fn policy(&self) -> NatPolicy {
        NatPolicy {
            mapping: match self.nat_mapping {
                NatMappingArg::PerConnection => MappingBehaviour::AddressAndPortDependent,
                NatMappingArg::EndpointIndependent => MappingBehaviour::EndpointIndependent,
            },
            filtering: match self.nat_filtering {
                NatFilteringArg::PerConnection => FilteringBehaviour::AddressAndPortDependent,
                NatFilteringArg::AddressDependent => FilteringBehaviour::AddressDependent,
                NatFilteringArg::EndpointIndependent => FilteringBehaviour::EndpointIndependent,
            },
            parity: self.nat_parity,
            port_block_size: self.port_block,
            deterministic: self.deterministic.clone(),
        }
    }
}

/// `100.64.0.0/16=192.0.2.0/28`
fn parse_deterministic(text: &str) -> Result<DeterministicNat, String> {
    let (inside, outside) =
        text.split_once('=').ok_or("write INSIDE=OUTSIDE, two prefixes, like 100.64.0.0/16=192.0.2.0/28")?;
    let (inside, outside) = (parse_prefix(inside)?, parse_prefix(outside)?);
    DeterministicNat::new(inside, outside).ok_or_else(|| {
        format!("{text}: more than 64512 subscribers would share an address; make the outside prefix shorter")
    })
}

fn parse_prefix(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let usage = || format!("{text}: write an IPv4 prefix, like 192.0.2.0/28");
    let (address, length) = text.split_once('/').ok_or_else(usage)?;
    let address: Ipv4Addr = address.parse().map_err(|_| usage())?;
    let length: u8 = length.parse().ok().filter(|length| *length <= 32).ok_or_else(usage)?;
    let host_bits = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    if address.to_bits() & host_bits != 0 {
        let prefix = Ipv4Addr::from_bits(address.to_bits() & !host_bits);
        return Err(format!("{text}: the host bits of a prefix are 0; write {prefix}/{length}"));
    }
    Ok((address, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deterministic_prefixes_are_validated() {
        let ports = |text: &str| parse_deterministic(text).map(|mapping| mapping.ports_per_subscriber());
        assert_eq!(ports("100.64.0.0/16=192.0.2.0/28"), Ok(15));
        for (text, wanted) in [
            ("100.64.0.0/16", "INSIDE=OUTSIDE"),
            ("100.64.0.0=192.0.2.0/28", "IPv4 prefix"),
            ("100.64.0.1/16=192.0.2.0/28", "100.64.0.0/16"),
            ("100.64.0.0/33=192.0.2.0/28", "IPv4 prefix"),
            ("10.0.0.0/8=192.0.2.1/32", "64512"),
        ] {
            assert!(ports(text).is_err_and(|error| error.contains(wanted)), "{text}");
        }
    }
}
