//! The laboratory: clients, a gateway and servers in network namespaces of one machine, and MQTT sessions by the thousands.
//!
//! A run checks its requirements, builds a topology, runs the scenario step by step, prints what it measured and removes
//! everything again, however it ends. It changes nothing on the machine outside of its own namespaces and its work directory.
mod builtin_servers;
mod cluster;
mod config;
mod hold;
mod line_process;
pub mod mqtt;
mod mqtt_load;
mod peers;
mod process;
mod reporter;
mod requirements;
mod results;
mod router;
mod scenario;
mod signals;
mod table_full;
mod topology;
mod work_dir;

pub use cluster::{ClusterLabConfig, run_cluster};
pub use config::LabConfig;

use anyhow::Result;
use router::RouterKind;
use scenario::Scenario;

/// Runs the laboratory and prints its story. True if all checks passed. The process must have no threads yet.
///
/// # Errors
/// A program or a permission is missing, the gateway does not start, or the run was interrupted.
pub fn run(config: &LabConfig) -> Result<bool> {
    // Before there is a second thread.
    requirements::check(config)?;
    // After a signal the run stops at its next check, and dropping the topology cleans up.
    let interrupted = signals::termination_flag()?;
    let processes = mqtt_load::process_count(config.clients)
        .max(mqtt_load::process_count(table_full::extra_clients(config.clients)));
    let mut results = Vec::new();
    let mut scenario = Scenario::set_up(RouterKind::Keepstate, processes, &interrupted)?;
    scenario.print_intro();
    run_steps(&mut scenario, config.clients)?;
    results.push(scenario.results.clone());
    if config.compare_with_linux {
        // One after the other: side by side they would slow each other down.
        drop(scenario);
        scenario = Scenario::set_up(RouterKind::Linux, processes, &interrupted)?;
        anstream::println!();
        scenario.reporter.title("The same with Linux's own conntrack and nftables as the router");
        run_steps(&mut scenario, config.clients)?;
        results.push(scenario.results.clone());
    }
    anstream::println!("\n{}", results::render_table(&results).trim_end());
    if config.hold {
        hold::hold_until_interrupted(&scenario.topology, &interrupted)?;
    }
    Ok(results.iter().all(|result| result.passed))
}

fn run_steps(scenario: &mut Scenario<'_>, clients: u32) -> Result<()> {
    scenario.run(clients)?;
    match scenario.results.kind {
        RouterKind::Keepstate => {
            table_full::run(scenario, clients)?;
            scenario.show_top()?;
        }
        RouterKind::Linux => {
            scenario.reporter.section("A full table: skipped with Linux as the router");
            scenario
                .reporter
                .text("nf_conntrack_max is global: it can be set in the initial network namespace only, and");
            scenario
                .reporter
                .text("the laboratory changes nothing on the machine. keepstate gateway has its own limit.");
            scenario.ping_all()?;
        }
    }
    scenario.finish();
    Ok(())
}
