//! How connections and events are written: the formats of `conntrack` 1.4.7, to the byte, and JSON.
//!
//! A [`FlowWriter`] takes connections or events as they come, keeps one buffer for all of them, and writes whole lines. Nothing here
//! reads a table or keeps a connection. No control character of a name reaches the output (only the tab after an event's time and the
//! newline are written).
mod brief;
mod datetime;
pub mod engine_flow;
mod expectation;
mod flow_view;
mod json;
mod labels;
mod line;
mod output;
mod protocol;
mod save;
mod saved_attributes;
mod stats;
mod style;
mod text_buf;
mod writer;
mod xml;

#[cfg(test)]
mod golden;

pub use brief::brief_line;
pub use expectation::ExpectationWriter;
pub use flow_view::{EventInfo, EventOrigin};
pub use labels::LabelNames;
pub use output::{OutputFormat, OutputOptions};
pub use protocol::{L4Keys, protocol_and_keys, protocol_name, state_name};
pub(crate) use save::vtag_as_conntrack;
pub(crate) use saved_attributes::{LEAD as SAVED_LEAD, SavedAttributes, liberal_tcp_flags};
pub use stats::named_counters as counters;
pub use stats::write_stats;
pub use writer::FlowWriter;
