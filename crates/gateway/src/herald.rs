//! What a running gateway tells the service manager that has started it: that it works, reads its files again, lives, ends.
use keepstate_linux::notify::{self, Notifier};
use keepstate_router::Router;
use std::time::{Duration, Instant};

/// How often the status is told.
const OFTEN: Duration = Duration::from_secs(5);

/// Says it, from the router's own thread: a loop that is stuck gives no sign of life.
pub(super) struct Herald {
    notifier: Option<Notifier>,
    watchdog: Option<Duration>,
    alive: Instant,
    told: Option<Instant>,
}

impl Herald {
    /// Packets are routed from now on.
    pub(super) fn ready() -> Herald {
        let notifier = Notifier::from_environment();
        notifier.iter().for_each(Notifier::ready);
        Herald { notifier, watchdog: notify::watchdog(), alive: Instant::now(), told: None }
    }

    /// Does `work` that reads the files again.
    pub(super) fn reloading(&self, work: impl FnOnce()) {
        self.notifier.iter().for_each(Notifier::reloading);
        work();
        self.notifier.iter().for_each(Notifier::ready);
    }

    /// One turn of the loop: a sign of life and a status, if it is time.
    pub(super) fn turn(&mut self, router: &mut Router) {
        let Some(notifier) = &self.notifier else { return };
        if self.watchdog.is_some_and(|interval| self.alive.elapsed() >= interval) {
            notifier.say("WATCHDOG=1");
            self.alive = Instant::now();
        }
        if self.told.is_none_or(|told| told.elapsed() >= OFTEN) {
            let forwarded = router.counters().forwarded;
            let closed = if router.is_closed() { "; no new connections are taken" } else { "" };
            notifier.status(&format!("{} connections, {forwarded} packets sent on{closed}", router.engine().count()));
            self.told = Some(Instant::now());
        }
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.notifier.iter().for_each(Notifier::stopping);
    }
}
