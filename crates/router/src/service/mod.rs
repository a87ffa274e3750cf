//! Services: a virtual address, and backends that share its connections, as Docker's published ports, Kubernetes' services and LVS do it.
//!
//! Services decide where a *new* connection goes, and translate it there; from then on its packets follow its tuples like any translated connection's, and
//! nothing asked here again. So a backend can be drained, weighed anew or taken out of the file without cutting anybody off. Services are loaded whole, and loaded
//! again: who is still named stays who it was, with its connections, its state and its counts.
//!
//! Nothing here reads a file, a clock or a device, or asks a backend how it is: that is said from outside ([`Router::set_health`](crate::Router::set_health)).
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
