//! conntrack's command line, output formats and filters.
pub mod command;
pub mod filter;
pub mod format;
pub mod show;

#[cfg(test)]
mod test_entries;
