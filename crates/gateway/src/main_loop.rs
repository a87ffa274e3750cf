//! The loop of a running gateway: packets first, then in between, a little of everything else: signals, visitors, expiry, lines for the log.
//!
//! A driver carries datagrams between the router and the world; the loop knows nothing of how. Whatever else is done in a turn is bounded, so that packets
//! do not wait for it. Where a driver has several hands (AF_XDP: one for each queue), each has a thread; they share the router, a batch at a time.
use super::control_command;
use super::control_server::ControlServer;
use super::health::HealthMonitor;
use super::load::LoadedConfig;
use super::sd_notify::ServiceNotifier;
use super::shared::{GatewayState, SharedGateway};
use super::state_store::StateStore;
use crate::notes;
use anyhow::{Context, Result, bail};
use keepstate_engine::Instant;
use keepstate_router::{FibTable, Router};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds to wait for a datagram, so that expiry goes on and signals are heard.
const POLL_TIMEOUT_MS: i32 = 20;
/// Turns without anything but packets.
const MAX_BUSY_TURNS: u32 = 16;

/// What carries datagrams in and out.
pub(super) trait Driver {
    /// Waits until a datagram has come, for so many milliseconds at most, or until a signal comes.
    ///
    /// # Errors
    /// The world is gone.
    fn wait(&mut self, milliseconds: i32) -> Result<()>;

    /// Takes what has come, a batch at most, lets the router make of it what it makes, and sends that. Gives how many came.
    ///
    /// # Errors
    /// The world is gone.
    fn process_batch(&mut self, core: &SharedGateway, now: Instant) -> Result<usize>;

    /// Others beside it that carry packets, each on a thread of its own; asked once.
    fn workers(&mut self) -> Vec<Box<dyn Driver + Send>> {
        Vec::new()
    }

    /// Devices and routes, if they have changed since this was last asked.
    ///
    /// # Errors
    /// They cannot be read any more.
    fn poll_fib(&mut self) -> Result<Option<FibTable>> {
        Ok(None)
    }

    /// What it has lost or met, for the closing note; empty if nothing.
    fn drop_summary(&self) -> String {
        String::new()
    }
}

/// Routes until SIGINT or SIGTERM; `load` reads the ruleset again at SIGHUP.
///
/// # Errors
/// Signals cannot be waited for; the driver's world is gone.
pub(super) fn run(
    router: Router,
    driver: &mut dyn Driver,
    door: Option<&ControlServer>,
    keep: Option<StateStore>,
    spin: Duration,
    load: impl Fn() -> Result<LoadedConfig>,
) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    ctrlc::set_handler(move || told.store(true, Ordering::Relaxed)).context("signals cannot be waited for")?;
    let core = SharedGateway::new(router, keep);
    let hands = driver.workers();
    std::thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for (number, hand) in hands.into_iter().enumerate() {
            let (core, ended) = (&core, &*ended);
            let thread = std::thread::Builder::new().name(format!("worker{}", number + 1));
            threads.push(thread.spawn_scoped(scope, move || worker_loop(core, hand, spin, ended)).context("a thread")?);
        }
        let done = control_loop(&core, driver, door, spin, &ended, load);
        ended.store(true, Ordering::Relaxed);
        let others = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a worker has failed")));
        others.fold(done, Result::and)
    })?;
    let GatewayState { mut router, store: keep } = core.into_inner();
    if let Some(keep) = keep {
        keep.close(router.engine_mut(), now());
    }
    let counters = router.counters();
    notes::note(format!(
        "{} packets came in, {} were sent on, {} went no further{}",
        counters.received,
        counters.forwarded,
        counters.dropped,
        driver.drop_summary()
    ));
    Ok(())
}

/// What one thread does beside the packets of its driver: everything else of the house.
fn control_loop(
    core: &SharedGateway,
    driver: &mut dyn Driver,
    door: Option<&ControlServer>,
    spin: Duration,
    ended: &AtomicBool,
    load: impl Fn() -> Result<LoadedConfig>,
) -> Result<()> {
    let again = keepstate_linux::signal::catch_sighup().context("SIGHUP cannot be waited for")?;
    let mut health = HealthMonitor::default();
    let mut herald = ServiceNotifier::ready();
    while !ended.load(Ordering::Relaxed) {
        if again.swap(false, Ordering::Relaxed) {
            herald.reloading(|| match load() {
                Ok(loaded) => {
                    loaded.apply(&mut core.lock().router, now());
                    notes::note("the ruleset was loaded again; connections live on");
                }
                Err(error) => notes::note(format!("{error:#}\nthe ruleset stays as it was")),
            });
        }
        let map = driver.poll_fib()?;
        let mut held = core.lock();
        let router = &mut held.router;
        if let Some(map) = map {
            router.replace_fib(map);
        }
        let now = now();
        router.poll(now);
        health.poll(router, now);
        while let Some(visitor) = door.and_then(ControlServer::next_command) {
            let answer = control_command::run_command(&visitor.args, router, &load, now);
            visitor.reply(answer);
        }
        door.inspect(|door| door.run_jobs(router, now));
        // Before the next wait: what packets and visitors have done is on file by then.
        held.persist(now);
        drop(held);
        let patience = door.map_or(POLL_TIMEOUT_MS, |door| door.poll_timeout(POLL_TIMEOUT_MS));
        packet_loop(core, driver, spin, patience)?;
        let router = &mut core.lock().router;
        flush_log(router);
        herald.tick(router);
    }
    Ok(())
}

/// What every other thread does: packets, and nothing else.
fn worker_loop(
    core: &SharedGateway,
    mut driver: Box<dyn Driver + Send>,
    spin: Duration,
    ended: &AtomicBool,
) -> Result<()> {
    while !ended.load(Ordering::Relaxed) {
        let done = packet_loop(core, driver.as_mut(), spin, POLL_TIMEOUT_MS);
        if done.is_err() {
            // The others end with it.
            ended.store(true, Ordering::Relaxed);
        }
        done?;
        core.lock().persist(now());
    }
    Ok(())
}

/// Packets, as long as they come and the rest of the house need not be seen to; a wait if there were none, for `spin` with open eyes: a process that sleeps is
/// woken late. Where the table is kept, there is no wait before what the packets have done is on file.
fn packet_loop(core: &SharedGateway, driver: &mut dyn Driver, spin: Duration, patience: i32) -> Result<()> {
    let kept = core.lock().store.is_some();
    let mut quiet: Option<std::time::Instant> = None;
    let mut turns = 0;
    while turns < MAX_BUSY_TURNS {
        if driver.process_batch(core, now())? > 0 {
            (quiet, turns) = (None, turns + 1);
            continue;
        }
        match quiet {
            None => quiet = Some(std::time::Instant::now()),
            // Whoever else wants this processor has it at once: mostly those whom the next packet is for, or from.
            Some(since) if since.elapsed() < spin => std::thread::yield_now(),
            Some(_) if kept && turns > 0 => return Ok(()),
            Some(_) => return driver.wait(patience),
        }
    }
    Ok(())
}

fn flush_log(router: &mut Router) {
    while let Some(line) = router.poll_log() {
        // As systemd reads it: the level in front.
        notes::note(format!("<{}>{}", line.level, line.text));
    }
}

pub(super) fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
