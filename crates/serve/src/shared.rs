//! What the handlers of requests share.
use crate::document::DocumentCache;
use crate::facts::FactBoard;
use crate::metrics::MetricNames;
use keepstate_live::{FleetBoard, LiveFeed};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// The table, and what is kept between requests.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) feed: Arc<LiveFeed>,
    pub(crate) facts: Arc<FactBoard>,
    /// The fleet, if there is one.
    pub(crate) fleet: Option<Arc<FleetBoard>>,
    pub(crate) names: MetricNames,
    pub(crate) documents: Arc<DocumentCache>,
    /// Open pages.
    pub(crate) readers: Arc<AtomicUsize>,
}
