//! The options of a run.

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct LabConfig {
    /// MQTT sessions that clients hold.
    pub clients: u32,
    /// Run a second time with Linux as the router, and compare.
    pub compare_with_linux: bool,
    /// Keep the laboratory up afterwards, until SIGINT or SIGTERM.
    pub hold: bool,
}
