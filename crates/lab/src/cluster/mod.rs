//! The laboratory of a cluster: two gateways that share their table over three NATS servers, and what their clients see when one is changed, killed or cut off, and when NATS is away.
mod address_mover;
mod config;
mod loads;
mod mqtt_processes;
mod site;
mod step_results;
mod steps;
mod transfers;

pub use config::ClusterLabConfig;

use crate::requirements;
use crate::signals;
use anyhow::Result;
use steps::ClusterScenario;

/// Runs it and prints what clients saw. True if all checks passed. The process must have no threads yet.
///
/// # Errors
/// A program or a permission is missing, a gateway does not start, or the run was interrupted.
pub fn run_cluster(config: &ClusterLabConfig) -> Result<bool> {
    // Before there is a second thread.
    requirements::check_cluster()?;
    // After a signal the run stops at its next check, and dropping the scenario cleans up.
    let interrupted = signals::termination_flag()?;
    let mut scenario = ClusterScenario::set_up(config, &interrupted)?;
    scenario.change_as_planned()?;
    scenario.kill_gateway()?;
    scenario.kill_machine()?;
    scenario.stop_nats()?;
    scenario.cut_active_off()?;
    scenario.finish()
}
