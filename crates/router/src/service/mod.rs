//! Services: a virtual address, and backends that share its connections, as Docker's published ports, Kubernetes' services and LVS do it.
//!
//! Services choose the backend of a *new* connection and translate it; its later packets are translated by the connection, like those of any DNAT. So a backend
//! can be drained, reweighted or removed without cutting a connection. Services are replaced as a whole; a service or backend that is still named keeps its
//! connections, its state and its counts.
//!
//! Nothing here reads a file or a clock, or checks a backend: health is reported from outside ([`Router::set_health`](crate::Router::set_health)).
mod affinity;
mod backend;
mod candidate;
mod config;
mod connections;
mod maglev;
mod schedule;
mod services;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use backend::BackendChoice;
pub use backend::BackendId;
pub use config::{
    BackendConfig, HashInput, HealthCheckConfig, Masquerade, Probe, Scheduler, ServiceConfig, ServiceConfigError,
    Transport, WhenDown, validate,
};
pub use services::Services;
pub(crate) use services::{ServiceCtx, ServiceVerdict};
pub use state::{BackendState, BackendStatus, ServiceState};
