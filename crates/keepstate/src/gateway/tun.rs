//! The router between TUN devices: read what waits, route it, write what leaves; expire what is old in between.
use super::control;
use super::devices::Named;
use super::door::Door;
use crate::notes;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_gateway::{Out, Router};
use keepstate_linux::tun::{self, Tun};
use keepstate_rules::Program;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Datagrams taken from one device before the next has its turn.
const TURN: usize = 64;
/// Milliseconds to wait for a datagram, so that expiry goes on and signals are heard.
const WAIT: i32 = 20;

/// Makes the devices and routes until SIGINT or SIGTERM; `load` reads the ruleset again at SIGHUP.
pub(super) fn run(
    mut router: Router,
    devices: &[Named],
    door: Option<&Door>,
    load: impl Fn() -> Result<Program>,
) -> Result<()> {
    let mut tuns = Vec::new();
    for device in devices {
        let made = Tun::create(&device.name).with_context(|| {
            format!(
                "TUN device {}: making it needs /dev/net/tun and root (CAP_NET_ADMIN), and a name that is not taken",
                device.name
            )
        })?;
        tuns.push(made);
    }
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    ctrlc::set_handler(move || told.store(true, Ordering::Relaxed)).context("signals cannot be waited for")?;
    let again = keepstate_linux::signal::hangup().context("SIGHUP cannot be waited for")?;
    notes::note(format!("routing between {} TUN devices; Ctrl-C ends", tuns.len()));
    let mut buffer = vec![0; 65_536];
    let mut out = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        if again.swap(false, Ordering::Relaxed) {
            match load() {
                Ok(program) => {
                    router.reload(program);
                    notes::note("the ruleset was loaded again; connections live on");
                }
                Err(error) => notes::note(format!("{error:#}\nthe ruleset stays as it was")),
            }
        }
        tun::wait(&tuns, WAIT).context("waiting for datagrams")?;
        let now = now();
        router.engine().poll(now);
        while let Some(visitor) = door.and_then(Door::next) {
            let answer = control::answer(&visitor.words, &mut router, &load, now);
            visitor.answer(answer);
        }
        for at in 0..tuns.len() {
            turn(&mut router, &mut tuns, at, now, &mut buffer, &mut out)?;
        }
        while let Some((level, line)) = router.poll_log() {
            // As systemd reads it: the level in front.
            notes::note(format!("<{level}>{line}"));
        }
        while let Some(line) = router.engine().poll_log() {
            notes::note(line);
        }
    }
    let counters = router.counters();
    notes::note(format!(
        "{} packets came in, {} were sent on, {} went no further",
        counters.received, counters.forwarded, counters.lost
    ));
    Ok(())
}

/// What waits in one device, as far as its turn goes.
fn turn(
    router: &mut Router,
    tuns: &mut [Tun],
    at: usize,
    now: Instant,
    buffer: &mut [u8],
    out: &mut Vec<Out>,
) -> Result<()> {
    for _ in 0..TURN {
        let Some(length) =
            tuns.get_mut(at).map(|tun| tun.read(buffer)).transpose().context("a device is gone")?.flatten()
        else {
            return Ok(());
        };
        // Devices are numbered from 1 on; a loss is counted, and told to whom it must be.
        let index = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let _ = router.handle(buffer.get(..length).unwrap_or_default(), index, now, out);
        for left in out.drain(..) {
            if let Out::Device(index, _, bytes) = left
                && let Some(tun) = tuns.get_mut(index as usize - 1)
            {
                tun.write(&bytes).context("a device is gone")?;
            }
        }
    }
    Ok(())
}

fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
