//! Metrics, health and a page over HTTP: the live connection table, read only.
//!
//! [`Exporter`] is a server with its own thread and runtime: the packet path does not know of it. It shows a
//! [`LiveFeed`](keepstate_live::LiveFeed) and the [`OwnerFacts`] that the program puts on a [`FactBoard`]. A scrape reads numbers that are there already: it
//! causes no dump and asks the table's owner nothing. No address and no port is ever a label. Nothing here writes to a table.
mod document;
mod exporter;
mod facts;
mod fleet_page;
mod guard;
mod metrics;
mod page;
mod shared;

pub use exporter::{Exporter, ExporterOptions};
pub use facts::{ActiveFinding, ChainDropFacts, FactBoard, InterfaceFacts, OffloadFacts, OwnerFacts, ServiceFacts};
pub use metrics::{Exposition, MetricNames, exposition};
