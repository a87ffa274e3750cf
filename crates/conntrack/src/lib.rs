//! conntrack's command line, output formats and filters: the same options and the same bytes as `conntrack` 1.4.7, for the kernel's
//! table, a gateway's, or the engine's own connections.
//!
//! - [`command`]: the command `conntrack`, from its arguments to its exit code;
//! - [`format`](mod@format): lines, XML, `save` and JSON;
//! - `flow_filter`: which connections an option selects, compared as conntrack compares them;
//! - [`OutputArgs`], [`FilterArgs`]: the output and filter options of other commands (`clap` arguments with the feature `clap`).
pub mod command;
mod filter_args;
mod flow_filter;
pub mod format;
mod output_args;
mod parse_value;

pub use command::{FlowSelection, parse_saved_line, saved_line};
pub use filter_args::FilterArgs;
pub use output_args::OutputArgs;

#[cfg(test)]
mod test_entries;
