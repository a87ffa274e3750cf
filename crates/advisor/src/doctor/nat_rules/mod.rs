//! What a ruleset would make of a new connection's destination: its NAT rules, read from what `nft` and `iptables-save` print.
//!
//! A rule is read as far as a connection's tuple decides it. Whatever is not understood here may hold or not, and both are followed:
//! the answer is every destination that the kernel might choose, and it is empty or wide rather than wrong.
mod evaluate;
mod iptables;
mod model;
mod nft;
mod nft_rule;
#[cfg(test)]
mod tests;
mod words;

pub use evaluate::NatCandidate;

use super::observations::ObservedRulesetText;
use model::{NatTable, NatTables};

/// Reads what the programs printed.
pub fn read_tables(listings: &[ObservedRulesetText]) -> NatTables {
    let mut tables = Vec::new();
    for listing in listings {
        match listing.command.as_str() {
            "iptables-save" | "iptables-legacy-save" => tables.extend(iptables::read(&listing.text, false)),
            "ip6tables-save" | "ip6tables-legacy-save" => tables.extend(iptables::read(&listing.text, true)),
            _ => tables.extend(nft::read(&listing.text)),
        }
    }
    let is_saved = |is_ipv6| tables.iter().any(|table: &NatTable| table.is_of_iptables && table.is_ipv6 == is_ipv6);
    let saved = [Some(false), Some(true)].map(|is_ipv6| (is_ipv6, is_saved(is_ipv6)));
    // nft lists iptables' tables too, less exactly.
    tables.retain(|table| {
        let is_twin = table.chains.contains_key("PREROUTING") || table.chains.contains_key("OUTPUT");
        table.is_of_iptables || !(is_twin && saved.contains(&(table.is_ipv6, true)))
    });
    NatTables(tables)
}
