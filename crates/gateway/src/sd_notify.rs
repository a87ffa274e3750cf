//! What a running gateway tells the service manager that has started it: that it works, reads its files again, lives, ends.
use keepstate_linux::sd_notify::{self, SdNotifier};
use keepstate_router::Router;
use std::time::{Duration, Instant};

/// How often the status is told.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Says it, from the router's own thread: a loop that is stuck gives no sign of life.
pub(super) struct ServiceNotifier {
    notifier: Option<SdNotifier>,
    watchdog: Option<Duration>,
    watchdog_sent: Instant,
    status_sent: Option<Instant>,
}

impl ServiceNotifier {
    /// Packets are routed from now on.
    pub(super) fn ready() -> ServiceNotifier {
        let notifier = SdNotifier::from_env();
        notifier.iter().for_each(SdNotifier::ready);
        ServiceNotifier {
            notifier,
            watchdog: sd_notify::watchdog_interval(),
            watchdog_sent: Instant::now(),
            status_sent: None,
        }
    }

    /// Does `work` that reads the files again.
    pub(super) fn reloading(&self, work: impl FnOnce()) {
        self.notifier.iter().for_each(SdNotifier::reloading);
        work();
        self.notifier.iter().for_each(SdNotifier::ready);
    }

    /// One turn of the loop: a sign of life and a status, if it is time.
    pub(super) fn tick(&mut self, router: &mut Router) {
        let Some(notifier) = &self.notifier else { return };
        if self.watchdog.is_some_and(|interval| self.watchdog_sent.elapsed() >= interval) {
            notifier.notify("WATCHDOG=1");
            self.watchdog_sent = Instant::now();
        }
        if self.status_sent.is_none_or(|told| told.elapsed() >= STATUS_INTERVAL) {
            let forwarded = router.counters().forwarded;
            let closed = if router.is_draining() { "; no new connections are taken" } else { "" };
            notifier.status(&format!("{} connections, {forwarded} packets sent on{closed}", router.engine().count()));
            self.status_sent = Some(Instant::now());
        }
    }
}

impl Drop for ServiceNotifier {
    fn drop(&mut self) {
        self.notifier.iter().for_each(SdNotifier::stopping);
    }
}
