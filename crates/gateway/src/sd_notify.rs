//! Notifications of a running gateway to systemd (sd_notify(3)): ready, reloading, watchdog, status, stopping.
use keepstate_linux::sd_notify::{self, SdNotifier};
use keepstate_router::Router;
use std::time::{Duration, Instant};

/// How often the status is sent.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Sends them from the main loop's thread, so that a loop that is stuck sends no watchdog message.
pub(super) struct ServiceNotifier {
    notifier: Option<SdNotifier>,
    watchdog: Option<Duration>,
    watchdog_sent: Instant,
    status_sent: Option<Instant>,
}

impl ServiceNotifier {
    /// Reports that packets are routed from now on.
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

    /// Runs `work`, which reads the files again, between RELOADING and READY.
    pub(super) fn reloading(&self, work: impl FnOnce()) {
        self.notifier.iter().for_each(SdNotifier::reloading);
        work();
        self.notifier.iter().for_each(SdNotifier::ready);
    }

    /// One turn of the loop: a watchdog message and a status, if it is time.
    pub(super) fn tick(&mut self, router: &mut Router) {
        let Some(notifier) = &self.notifier else { return };
        if self.watchdog.is_some_and(|interval| self.watchdog_sent.elapsed() >= interval) {
            notifier.notify("WATCHDOG=1");
            self.watchdog_sent = Instant::now();
        }
        if self.status_sent.is_none_or(|sent| sent.elapsed() >= STATUS_INTERVAL) {
            let forwarded = router.counters().forwarded;
            let draining = if router.is_draining() { ", draining: new connections refused" } else { "" };
            notifier
                .status(&format!("connections {}, packets forwarded {forwarded}{draining}", router.engine().count()));
            self.status_sent = Some(Instant::now());
        }
    }
}

impl Drop for ServiceNotifier {
    fn drop(&mut self) {
        self.notifier.iter().for_each(SdNotifier::stopping);
    }
}
