//! The options of a run with a cluster.
use std::time::Duration;

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub struct ClusterLabConfig {
    /// MQTT sessions that clients hold.
    pub clients: u32,
    /// Connections that clients open and close each second.
    pub rate: u32,
    /// Transfers that run all the time.
    pub transfers: u8,
    /// The gateways' lease in seconds: an active gateway that has not renewed it for so long creates no connections.
    pub lease_secs: u32,
    /// How long NATS is away, and a link is cut.
    pub outage: Duration,
}
