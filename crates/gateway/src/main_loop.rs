//! The main loop of a running gateway: packets first, and between batches a bounded part of everything else: signals, control clients, expiry, log lines, health, the state file.
//!
//! A [`Driver`] carries packets between the router and the network; the loop knows nothing of how. What else is done in one turn is bounded, so that packets
//! do not wait for it. A driver with several workers (AF_XDP: one for each queue) gets a thread for each; they share the router, one batch at a time.
use super::clock::TimeSource;
use super::control_handler;
use super::control_protocol::ControlRequest;
use super::control_server::ControlServer;
use super::driver::Driver;
use super::health::HealthMonitor;
use super::load::AppliedConfig;
use super::reload::{LoadConfig, ReloadOrigin, Reloader};
use super::sd_notify::ServiceNotifier;
use super::shared::{GatewayState, SharedGateway};
use super::signals::SignalFlags;
use super::state_store::StateStore;
use anyhow::{Context, Result, bail};
use keepstate_router::{LogLine, Router, RouterCounters};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Clock};

/// Milliseconds to wait for a packet: expiry goes on and signals are seen meanwhile.
const POLL_TIMEOUT_MS: i32 = 20;
/// Log lines written in one turn; others wait, up to the router's limit.
const MAX_LINES_PER_TURN: usize = 4096;
/// Turns with nothing but packets.
const MAX_BUSY_TURNS: u32 = 16;

/// Routes until SIGINT or SIGTERM; `load` reads the ruleset again at SIGHUP.
///
/// # Errors
/// The signal handlers cannot be installed; the driver fails.
pub(super) fn run(
    router: Router,
    driver: &mut dyn Driver,
    control: Option<&ControlServer>,
    store: Option<StateStore>,
    time: Arc<dyn TimeSource>,
    busy_poll: Duration,
    load: Arc<LoadConfig>,
) -> Result<()> {
    let signals = SignalFlags::install().context("installing signal handlers")?;
    let gateway = SharedGateway::new(router, store, Arc::clone(&time));
    let workers = driver.workers();
    std::thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for (number, worker) in workers.into_iter().enumerate() {
            let (gateway, stop) = (&gateway, &*signals.stop);
            let thread = std::thread::Builder::new().name(format!("worker{}", number + 1));
            let spawned = thread.spawn_scoped(scope, move || worker_loop(gateway, worker, busy_poll, stop));
            threads.push(spawned.context("starting a worker thread")?);
        }
        let result = control_loop(&gateway, driver, control, busy_poll, &signals, Reloader::new(load));
        signals.stop.store(true, Ordering::Relaxed);
        let others = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a worker panicked")));
        others.fold(result, Result::and)
    })?;
    let GatewayState { mut router, store } = gateway.into_inner();
    if let Some(store) = store {
        store.close(router.engine_mut(), time.now());
    }
    tracing::info!("{}", closing_line(router.counters(), &driver.drop_counts()));
    driver.close()
}

/// `rx 5 forwarded 3 dropped 2 (tx ring full 1, neighbour unresolved 1)`: what the router counted, then what the driver dropped of what the router gave it.
fn closing_line(counters: &RouterCounters, drops: &[(&str, u64)]) -> String {
    let drops: Vec<String> =
        drops.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| format!("{reason} {count}")).collect();
    let drops = if drops.is_empty() { String::new() } else { format!(" ({})", drops.join(", ")) };
    format!("rx {} forwarded {} dropped {}{drops}", counters.received, counters.forwarded, counters.dropped)
}

/// The loop of the main thread: its driver's packets, and all the rest.
fn control_loop(
    gateway: &SharedGateway,
    driver: &mut dyn Driver,
    control: Option<&ControlServer>,
    busy_poll: Duration,
    signals: &SignalFlags,
    mut reloader: Reloader,
) -> Result<()> {
    let mut health = HealthMonitor::default();
    let mut notifier = ServiceNotifier::ready();
    while !signals.is_stopped() {
        if signals.take_reload() {
            notifier.reloading();
            reloader.request(ReloadOrigin::Signal);
        }
        if let Some((origins, loaded)) = reloader.poll() {
            // Scripts change the ruleset on this thread only: nothing comes between.
            let running = gateway.lock().router.program().ruleset();
            let prepared = loaded.and_then(|loaded| loaded.prepare_reload(&running, gateway.now()));
            let applied = prepared.and_then(|prepared| {
                let mut state = gateway.lock();
                prepared.apply(&mut state.router, gateway.now())
            });
            answer_reload(origins, applied, &notifier);
        }
        let fib = driver.poll_fib()?;
        let wall_clock = gateway.time.wall_clock();
        let mut state = gateway.lock();
        let router = &mut state.router;
        // Dropped once the lock is released: a large table takes a while.
        let _old_fib = fib.map(|fib| router.replace_fib(fib));
        router.set_wall_clock(wall_clock);
        let now = gateway.now();
        router.poll(now);
        health.poll(router, now);
        while let Some(pending) = control.and_then(ControlServer::next_request) {
            if pending.request == ControlRequest::Reload {
                reloader.request(ReloadOrigin::Request(Box::new(pending)));
                continue;
            }
            let answer = control_handler::handle_request(&pending.request, router, now);
            pending.reply(answer);
        }
        control.inspect(|control| control.run_jobs(router, now));
        // Before the next wait: what packets and control clients have changed is in the state file by then.
        state.persist(now);
        drop(state);
        health.finish_poll();
        let timeout = control.map_or(POLL_TIMEOUT_MS, |control| control.poll_timeout(POLL_TIMEOUT_MS));
        packet_loop(gateway, driver, busy_poll, timeout)?;
        flush_log(gateway);
        notifier.tick(|| status_text(&gateway.lock().router));
    }
    Ok(())
}

/// The loop of every other thread: packets, and nothing else.
fn worker_loop(
    gateway: &SharedGateway,
    mut driver: Box<dyn Driver + Send>,
    busy_poll: Duration,
    stop: &AtomicBool,
) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let result = packet_loop(gateway, driver.as_mut(), busy_poll, POLL_TIMEOUT_MS);
        if result.is_err() {
            // The other threads end with this one.
            stop.store(true, Ordering::Relaxed);
        }
        result?;
        gateway.lock().persist(gateway.now());
    }
    Ok(())
}

/// Packets, as long as they come and nothing else is due; without packets a wait, after busy-polling for `busy_poll` (a process that sleeps is woken late).
/// With a state file there is no wait before the changes that packets made are in it.
fn packet_loop(gateway: &SharedGateway, driver: &mut dyn Driver, busy_poll: Duration, timeout: i32) -> Result<()> {
    let has_store = gateway.lock().store.is_some();
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
            Some(_) if has_store && turns > 0 => return Ok(()),
            Some(_) => return driver.wait(timeout),
        }
    }
    Ok(())
}

/// Tells those who asked for a reload how it went.
fn answer_reload(origins: Vec<ReloadOrigin>, applied: Result<AppliedConfig>, notifier: &ServiceNotifier) {
    if let Ok(applied) = &applied {
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
fn status_text(router: &Router) -> String {
    let forwarded = router.counters().forwarded;
    let draining = if router.is_draining() { ", draining: new connections refused" } else { "" };
    format!("connections {}, packets forwarded {forwarded}{draining}", router.engine().count())
}

/// Logs the lines of rules (`log prefix …`), of the engine and of port blocks, each with its syslog priority. They are taken under the lock and written without it.
fn flush_log(gateway: &SharedGateway) {
    let lines: Vec<LogLine> = {
        let mut state = gateway.lock();
        std::iter::from_fn(|| state.router.poll_log()).take(MAX_LINES_PER_TURN).collect()
    };
    for LogLine { level: priority, text } in lines {
        match priority {
            0..=3 => tracing::error!(priority, "{text}"),
            4 => tracing::warn!(priority, "{text}"),
            // A rule's `log level debug` is printed too: its author wants it.
            _ => tracing::info!(priority, "{text}"),
        }
    }
}

#[cfg(test)]
mod clock_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_line_names_its_numbers() {
        let mut counters = RouterCounters::default();
        (counters.received, counters.forwarded, counters.dropped) = (5, 3, 2);
        assert_eq!(closing_line(&counters, &[]), "rx 5 forwarded 3 dropped 2");
        let drops = [("tx ring full", 1), ("send failed", 0), ("neighbour unresolved", 1)];
        assert_eq!(
            closing_line(&counters, &drops),
            "rx 5 forwarded 3 dropped 2 (tx ring full 1, neighbour unresolved 1)"
        );
    }
}
