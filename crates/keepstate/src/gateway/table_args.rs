//! The options for what happens when the table gets full.
use clap::Args;
use keepstate_gateway::gateway_file::{AdaptiveTimeoutsText, Given, SourceLimitText, TableReserveText, TableSettings};
use std::str::FromStr;

/// What happens when the table gets full.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "A full table, beyond Linux's")]
pub struct TableArgs {
    /// Keep entries free for some connections: "1000 for tcp 22 from 10.0.0.0/8" (repeatable)
    #[arg(long, value_name = "RESERVE", value_parser = TableReserveText::from_str)]
    table_reserve: Vec<TableReserveText>,
    /// What each source may have: "100 connections 20 new/s burst 40 per 32,64 for tcp 443"; the first that fits holds (repeatable)
    #[arg(long, value_name = "LIMIT", value_parser = SourceLimitText::from_str)]
    source_limit: Vec<SourceLimitText>,
    /// Make timeouts shorter between these numbers of connections: 60000-72000
    #[arg(long, value_name = "START-END", value_parser = AdaptiveTimeoutsText::from_str)]
    adaptive_timeouts: Option<AdaptiveTimeoutsText>,
    /// When the table is full, double nf_conntrack_max, up to this many connections
    #[arg(long, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    grow_to: Option<u32>,
}

impl TableArgs {
    /// Those of a gateway's settings that stand here.
    pub fn settings(&self) -> TableSettings {
        TableSettings {
            reserve: (!self.table_reserve.is_empty())
                .then(|| Given::flag(self.table_reserve.clone(), "--table-reserve")),
            source_limit: (!self.source_limit.is_empty())
                .then(|| Given::flag(self.source_limit.clone(), "--source-limit")),
            adaptive_timeouts: self.adaptive_timeouts.clone().map(|range| Given::flag(range, "--adaptive-timeouts")),
            grow_to: self.grow_to.map(|most| Given::flag(most, "--grow-to")),
        }
    }
}
