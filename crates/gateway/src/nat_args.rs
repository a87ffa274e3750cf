//! Translations beyond Linux's, as the command line asks for them.
use keepstate_engine::{DeterministicNat, Engine, FilteringBehaviour, Instant, MappingBehaviour, NatPolicy};
use std::net::Ipv4Addr;

/// The options.
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[derive(Clone, Debug)]
pub struct NatArgs {
    /// Which outside port a source's next connection gets: per-connection is Linux's way; endpoint-independent, the same towards every peer (RFC 4787)
    #[cfg_attr(feature = "clap", arg(long, value_name = "WAY", value_enum, default_value_t = NatMappingArg::PerConnection, help_heading = "NAT beyond Linux's"))]
    nat_mapping: NatMappingArg,
    /// Who is let in to a mapped port: only the peers of connections, as in Linux; or all ports of their addresses; or everybody
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHO", value_enum, default_value_t = NatFilteringArg::PerConnection, help_heading = "NAT beyond Linux's"))]
    nat_filtering: NatFilteringArg,
    /// Even ports become even ones, and the next one is kept free for a neighbour as long as there are others
    #[cfg_attr(feature = "clap", arg(long, help_heading = "NAT beyond Linux's"))]
    nat_parity: bool,
    /// So many ports in a row for each inside address, and no others; a line is logged when a block is taken and when it is given back
    #[cfg_attr(feature = "clap", arg(long, value_name = "PORTS", value_parser = clap::value_parser!(u16).range(1..=64_512), conflicts_with = "deterministic", help_heading = "NAT beyond Linux's"))]
    port_block: Option<u16>,
    /// Subscribers whose outside address and ports are arithmetic (RFC 7422): 100.64.0.0/16=192.0.2.0/28 (several times). Which of their connections are
    /// translated at all is the ruleset's to say
    #[cfg_attr(feature = "clap", arg(long, value_name = "INSIDE=OUTSIDE", value_parser = parse_deterministic, help_heading = "NAT beyond Linux's"))]
    deterministic: Vec<DeterministicNat>,
}

#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NatMappingArg {
    PerConnection,
    EndpointIndependent,
}

#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
                "--nat-filtering: who is to be let in cannot be told as long as a port serves several sources; add --nat-mapping endpoint-independent"
                    .to_owned(),
            );
        }
        if self.nat_parity && !independent {
            return Err("--nat-parity: add --nat-mapping endpoint-independent".to_owned());
        }
        Ok(())
    }

    /// Has the engine do so. Linux's own way costs nothing.
    pub fn apply(&self, engine: &mut Engine, now: Instant) {
        let asked = NatPolicy {
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
        };
        if asked != NatPolicy::default() {
            engine.set_nat_policy(asked, now);
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
    let wrong = || format!("{text}: write an IPv4 prefix, like 192.0.2.0/28");
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let length: u8 = length.parse().ok().filter(|length| *length <= 32).ok_or_else(wrong)?;
    let free = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    if address.to_bits() & free != 0 {
        return Err(format!(
            "{text}: a prefix ends in zeros; {}/{length}",
            Ipv4Addr::from_bits(address.to_bits() & !free)
        ));
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
            assert!(ports(text).is_err_and(|said| said.contains(wanted)), "{text}");
        }
    }
}
