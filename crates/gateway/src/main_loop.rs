//! The main loop of a running gateway: packets first, and between batches a bounded part of everything else: signals, control clients, expiry, log lines, health, the state file.
//!
//! A [`Driver`] carries packets between the router and the network; the loop knows nothing of how. What else is done in one turn is bounded, so that packets
//! do not wait for it. The cluster's thread shares the router, one batch at a time.
use super::clock::TimeSource;
use super::cluster::{ClusterHandle, ClusterNode};
use super::control_handler;
use super::control_protocol::ControlRequest;
use super::control_server::ControlServer;
use super::driver::Driver;
use super::flow_log::FlowLogs;
use super::health::HealthMonitor;
use super::icmp_sysctls::IcmpSysctls;
use super::load::AppliedConfig;
use super::reload::{ReloadOrigin, Reloader};
use super::route_follower::FibUpdate;
use super::sd_notify::ServiceNotifier;
use super::shared::{GatewayState, SharedGateway};
use super::signals::SignalFlags;
use super::state_store::StateStore;
use super::turns::TurnKind;
use anyhow::{Context, Result, anyhow};
use keepstate_router::{FlowOffloadStats, LogLine, Router, RouterCounters};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Clock};

/// Milliseconds to wait for a packet: expiry goes on and signals are seen meanwhile.
const POLL_TIMEOUT_MS: i32 = 20;
/// Log lines written in one turn; others wait, up to the router's limit.
const MAX_LINES_PER_TURN: usize = 4096;
/// Requests answered in one turn.
const MAX_REQUESTS_PER_TURN: usize = 16;
/// Batches of changed routes taken over in one turn.
const MAX_FIB_BATCHES_PER_TURN: usize = 16;
/// Turns with nothing but packets.
const MAX_BUSY_TURNS: u32 = 16;

/// What the loop uses beside router, driver, control socket and state file.
pub(super) struct LoopContext {
    pub(super) time: Arc<dyn TimeSource>,
    /// How long to busy-poll before sleeping.
    pub(super) busy_poll: Duration,
    /// Reads the configuration again, at SIGHUP.
    pub(super) reloader: Reloader,
    pub(super) health: HealthMonitor,
    pub(super) flow_logs: FlowLogs,
    pub(super) cluster: Option<ClusterNode>,
    pub(super) icmp_sysctls: IcmpSysctls,
    pub(super) signals: SignalFlags,
}

/// What goes on beside packets.
struct BackgroundWork<'a> {
    reloader: Reloader,
    health: HealthMonitor,
    flow_logs: &'a mut FlowLogs,
    cluster: Option<ClusterHandle>,
    icmp_sysctls: IcmpSysctls,
}

#[cfg(test)]
impl BackgroundWork<'_> {
    /// Without health checks and a cluster.
    fn alone(reloader: Reloader, flow_logs: &mut FlowLogs) -> BackgroundWork<'_> {
        let (health, icmp_sysctls) = (HealthMonitor::default(), IcmpSysctls::open());
        BackgroundWork { reloader, health, flow_logs, cluster: None, icmp_sysctls }
    }
}

/// Routes until SIGINT or SIGTERM.
///
/// # Errors
/// The driver fails.
pub(super) fn run(
    router: Router,
    driver: &mut dyn Driver,
    control: Option<&ControlServer>,
    store: Option<StateStore>,
    context: LoopContext,
) -> Result<()> {
    let LoopContext { time, busy_poll, reloader, health, mut flow_logs, cluster, icmp_sysctls, signals } = context;
    let gateway = SharedGateway::new(router, store, Arc::clone(&time));
    driver.start()?;
    let jobs = control.map(ControlServer::jobs);
    flow_logs.attach(&gateway, jobs);
    let cluster_stop = AtomicBool::new(false);
    let handle = cluster.as_ref().map(ClusterNode::handle);
    if let (Some(jobs), Some(handle)) = (jobs, &handle) {
        jobs.show_cluster(handle.clone());
    }
    let ended = std::thread::scope(|scope| -> Result<()> {
        let cluster = cluster.map(|node| {
            let (gateway, stop) = (&gateway, &cluster_stop);
            std::thread::Builder::new().name("cluster".into()).spawn_scoped(scope, move || node.run(gateway, stop))
        });
        let cluster = cluster.transpose().context("starting the cluster's thread")?;
        let background = BackgroundWork { reloader, health, flow_logs: &mut flow_logs, cluster: handle, icmp_sysctls };
        let result = control_loop(&gateway, driver, control, busy_poll, &signals, background);
        // Last: what has changed until now is handed over too.
        cluster_stop.store(true, Ordering::Relaxed);
        let cluster =
            cluster.map_or(Ok(()), |thread| thread.join().map_err(|_| anyhow!("the cluster's thread panicked")));
        result.and(cluster)
    });
    flush_log(&gateway, &flow_logs);
    flow_logs.finish(&gateway, jobs);
    let GatewayState { mut router, store } = gateway.into_inner();
    if let Some(store) = store {
        store.close(router.engine_mut(), time.now());
    }
    tracing::info!("{}", closing_line(&router, &driver.drop_counts()));
    ended.and(driver.close())
}

/// `rx 5 forwarded 3 dropped 2 (tx ring full 1, neighbour unresolved 1)`: what the router counted, then what the driver dropped of what the router gave it; and what has passed beside it.
fn closing_line(router: &Router, drops: &[(&str, u64)]) -> String {
    let counted = counted_line(router.counters(), drops);
    match router.flow_offload_stats() {
        Some(FlowOffloadStats { packets, sent_at_xdp, .. }) => {
            format!("{counted}; passed in the kernel {packets}, at XDP {sent_at_xdp} of them")
        }
        None => counted,
    }
}

fn counted_line(counters: &RouterCounters, drops: &[(&str, u64)]) -> String {
    let drops: Vec<String> =
        drops.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| format!("{reason} {count}")).collect();
    let drops = if drops.is_empty() { String::new() } else { format!(" ({})", drops.join(", ")) };
    format!("rx {} forwarded {} dropped {}{drops}", counters.received, counters.forwarded, counters.dropped)
}

/// The loop of the main thread: its driver's packets, and all the rest. The router is locked for each part by itself, so that other threads come in between.
fn control_loop(
    gateway: &SharedGateway,
    driver: &mut dyn Driver,
    control: Option<&ControlServer>,
    busy_poll: Duration,
    signals: &SignalFlags,
    background: BackgroundWork<'_>,
) -> Result<()> {
    let BackgroundWork { mut reloader, mut health, flow_logs, cluster, mut icmp_sysctls } = background;
    let mut notifier = ServiceNotifier::ready();
    while !signals.is_stopped() {
        if signals.take_reload() {
            notifier.reloading();
            reloader.request(ReloadOrigin::Signal);
        }
        if let Some((origins, applied)) = reloader.poll(gateway) {
            sync_flows(gateway, driver)?;
            if let (Some(cluster), Ok(applied)) = (&cluster, &applied) {
                applied.digests().into_iter().for_each(|digests| cluster.reloaded(digests));
            }
            answer_reload(origins, applied, &notifier);
        }
        for _ in 0..MAX_FIB_BATCHES_PER_TURN {
            let Some(update) = driver.poll_fib()? else { break };
            apply_fib(gateway, update);
        }
        if let Some(limits) = icmp_sysctls.poll() {
            gateway.lock(TurnKind::Upkeep).router.set_icmp_limits(limits);
        }
        upkeep(gateway, &mut health);
        sync_flows(gateway, driver)?;
        if let Some(control) = control {
            serve_control(gateway, driver, control, &mut reloader)?;
        }
        // Before the next wait: what packets and control clients have changed is handed to the state file by then.
        gateway.persist();
        let timeout = control.map_or(POLL_TIMEOUT_MS, |control| control.poll_timeout(POLL_TIMEOUT_MS));
        packet_loop(gateway, driver, busy_poll, timeout)?;
        flush_log(gateway, flow_logs);
        flow_logs.poll(gateway);
        notifier.tick(|| status_text(gateway));
    }
    Ok(())
}

/// The driver forwards no packet any more by what has changed.
fn sync_flows(gateway: &SharedGateway, driver: &mut dyn Driver) -> Result<()> {
    let router = &mut gateway.lock(TurnKind::Upkeep).router;
    driver.sync_flows(router, gateway.now())?;
    gateway.note_flows_synced(router.flow_generation());
    Ok(())
}

/// Takes over what the kernel has changed of interfaces and routes.
fn apply_fib(gateway: &SharedGateway, update: FibUpdate) {
    match update {
        FibUpdate::Table(fib) => {
            let old = gateway.lock(TurnKind::Routes).router.replace_fib(*fib);
            tracing::debug!("routes: all were read again, so every flow is judged anew");
            drop_elsewhere(old);
        }
        FibUpdate::Changes(changes) => {
            let told = tracing::enabled!(tracing::Level::DEBUG).then(|| changes.clone());
            let is_for_all = {
                let router = &mut gateway.lock(TurnKind::Routes).router;
                let before = router.flow_generation();
                router.change_fib(changes);
                router.flow_generation() != before
            };
            if let (true, Some(changes)) = (is_for_all, told) {
                tracing::debug!("routes: every flow is judged anew, for one of these changes: {changes:?}");
            }
        }
    }
}

/// What is due by the clock, and what health checks have found.
fn upkeep(gateway: &SharedGateway, health: &mut HealthMonitor) {
    let wall_clock = gateway.time.wall_clock();
    let mut turn = gateway.lock(TurnKind::Upkeep);
    let router = &mut turn.router;
    router.set_wall_clock(wall_clock);
    let now = gateway.now();
    router.poll(now);
    health.poll(router, now);
    drop(turn);
    health.finish_poll();
}

/// Answers control clients: a bounded part of what they want.
fn serve_control(
    gateway: &SharedGateway,
    driver: &mut dyn Driver,
    control: &ControlServer,
    reloader: &mut Reloader,
) -> Result<()> {
    for _ in 0..MAX_REQUESTS_PER_TURN {
        let Some(pending) = control.next_request() else { break };
        if pending.request == ControlRequest::Reload {
            reloader.request(ReloadOrigin::Request(Box::new(pending)));
            continue;
        }
        let answer = {
            let mut turn = gateway.lock(TurnKind::Control);
            let answer = control_handler::handle_request(&pending.request, &mut turn.router);
            driver.sync_flows(&mut turn.router, gateway.now())?;
            answer
        };
        pending.reply(answer);
    }
    let now = gateway.now();
    let mut turn = gateway.lock(TurnKind::Control);
    let finished = control.run_jobs(&mut turn.router, &gateway.turns, now);
    driver.sync_flows(&mut turn.router, now)?;
    drop(turn);
    finished.answer();
    Ok(())
}

/// Packets, as long as they come and nothing else is due; without packets a wait, after busy-polling for `busy_poll` (a process that sleeps is woken late).
/// With a state file there is no wait before the changes that packets made are in it.
fn packet_loop(gateway: &SharedGateway, driver: &mut dyn Driver, busy_poll: Duration, timeout: i32) -> Result<()> {
    let mut idle_since: Option<Clock> = None;
    let mut turns = 0;
    while turns < MAX_BUSY_TURNS {
        if driver.process_batch(gateway, gateway.now())? > 0 {
            (idle_since, turns) = (None, turns + 1);
            continue;
        }
        match idle_since {
            None => idle_since = Some(Clock::now()),
            // Other processes get the CPU at once: mostly those that the next packet is for, or from.
            Some(since) if since.elapsed() < busy_poll => std::thread::yield_now(),
            Some(_) if gateway.has_store() && turns > 0 => return Ok(()),
            Some(_) => return driver.wait(timeout),
        }
    }
    Ok(())
}

/// Tells those who asked for a reload how it went.
fn answer_reload(origins: Vec<ReloadOrigin>, mut applied: Result<AppliedConfig>, notifier: &ServiceNotifier) {
    if let Ok(applied) = &mut applied {
        drop_elsewhere(applied.take_replaced());
        applied.log();
    }
    for origin in origins {
        match (origin, &applied) {
            (ReloadOrigin::Signal, Ok(_)) => tracing::info!("ruleset reloaded; connections kept"),
            (ReloadOrigin::Signal, Err(error)) => {
                tracing::error!("{error:#}\nreload failed; the ruleset stays as it was");
            }
            (ReloadOrigin::Request(pending), Ok(applied)) => pending.reply(Ok(applied.summary().into_bytes())),
            (ReloadOrigin::Request(pending), Err(error)) => {
                pending.reply(Err(format!("reload failed; the ruleset stays as it was: {error:#}")));
            }
        }
    }
    notifier.reloaded();
}

/// What systemd shows of a running gateway.
fn status_text(gateway: &SharedGateway) -> String {
    let (forwarded, offload, draining, count) = {
        let router = &gateway.lock(TurnKind::Upkeep).router;
        (router.counters().forwarded, router.flow_offload_stats(), router.is_draining(), router.engine().count())
    };
    let offload = offload.map_or_else(String::new, |stats| {
        format!(", passed in the kernel {} of {} connections", stats.packets, stats.flows)
    });
    let draining = if draining { ", draining: new connections refused" } else { "" };
    format!("connections {count}, packets forwarded {forwarded}{offload}{draining}")
}

/// Drops what may take a while to drop on a thread of its own.
pub(super) fn drop_elsewhere(value: impl Send + 'static) {
    // Without a thread it is dropped here.
    let _ = std::thread::Builder::new().name("drop".into()).spawn(move || drop(value));
}

/// Logs the lines of rules (`log prefix …`), of the engine and of port blocks, each with its syslog priority. They are taken under the lock and written without it.
/// Port blocks go to the flow logs too.
fn flush_log(gateway: &SharedGateway, flow_logs: &FlowLogs) {
    let mut blocks = Vec::new();
    let lines: Vec<LogLine> = {
        let mut turn = gateway.lock(TurnKind::Upkeep);
        let lines: Vec<LogLine> = std::iter::from_fn(|| turn.router.poll_log()).take(MAX_LINES_PER_TURN).collect();
        if flow_logs.want_port_blocks() {
            let events = lines.iter().filter_map(|line| line.port_block.clone());
            blocks.extend(events.map(|event| (event.clone(), turn.router.unix_time(event.at))));
        }
        lines
    };
    flow_logs.add_port_blocks(&blocks);
    for LogLine { level: priority, text, is_rule, .. } in lines {
        match priority {
            0..=3 => tracing::error!(priority, is_rule, "{text}"),
            4 => tracing::warn!(priority, is_rule, "{text}"),
            // A rule's `log level debug` is printed too: its author wants it.
            _ => tracing::info!(priority, is_rule, "{text}"),
        }
    }
}

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod flow_log_tests;
#[cfg(test)]
mod test_packets;
#[cfg(test)]
mod turn_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_engine::{Engine, Secret, Sysctls};

    #[test]
    fn what_passes_in_the_kernel_is_in_the_closing_line() {
        let router = || {
            Router::new(
                Engine::new(Sysctls::default(), Secret([1; 16])),
                Default::default(),
                Default::default(),
                (1, 2),
            )
        };
        assert_eq!(closing_line(&router(), &[]), "rx 0 forwarded 0 dropped 0");
        let mut offloads = router().with_flow_offload();
        offloads.set_sent_at_xdp(3);
        assert_eq!(
            closing_line(&offloads, &[]),
            "rx 0 forwarded 0 dropped 0; passed in the kernel 0, at XDP 3 of them"
        );
    }

    #[test]
    fn closing_line_names_its_numbers() {
        let mut counters = RouterCounters::default();
        (counters.received, counters.forwarded, counters.dropped) = (5, 3, 2);
        assert_eq!(counted_line(&counters, &[]), "rx 5 forwarded 3 dropped 2");
        let drops = [("tx ring full", 1), ("send failed", 0), ("neighbour unresolved", 1)];
        assert_eq!(
            counted_line(&counters, &drops),
            "rx 5 forwarded 3 dropped 2 (tx ring full 1, neighbour unresolved 1)"
        );
    }
}
