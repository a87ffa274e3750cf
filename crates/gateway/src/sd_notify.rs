//! Notifications of a running gateway to systemd (sd_notify(3)): ready, reloading, watchdog, status, stopping.
use keepstate_linux::sd_notify::{self, SdNotifier};
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

    /// Reports that the files are being read again.
    pub(super) fn reloading(&self) {
        self.notifier.iter().for_each(SdNotifier::reloading);
    }

    /// Reports that they have been read.
    pub(super) fn reloaded(&self) {
        self.notifier.iter().for_each(SdNotifier::ready);
    }

    /// One turn of the loop: a watchdog message and a status, if it is time. Sending may wait: not to be called under the router's lock.
    pub(super) fn tick(&mut self, status: impl FnOnce() -> String) {
        let Some(notifier) = &self.notifier else { return };
        if self.watchdog.is_some_and(|interval| self.watchdog_sent.elapsed() >= interval) {
            notifier.notify("WATCHDOG=1");
            self.watchdog_sent = Instant::now();
        }
        if self.status_sent.is_none_or(|sent| sent.elapsed() >= STATUS_INTERVAL) {
            notifier.status(&status());
            self.status_sent = Some(Instant::now());
        }
    }
}

impl Drop for ServiceNotifier {
    fn drop(&mut self) {
        self.notifier.iter().for_each(SdNotifier::stopping);
    }
}
