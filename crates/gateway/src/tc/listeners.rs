//! What listens for TCP on the machine, looked at once a second while rules ask for sockets: known flows whose packets were found to have none depend on it.
use keepstate_linux::sock_diag::tcp_listeners;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells of changes.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    watched: Arc<Watched>,
    /// The changes that were told.
    told: u64,
}

#[derive(Debug, Default)]
struct Watched {
    /// Do rules ask for sockets?
    is_wanted: AtomicBool,
    /// How often something else was found to listen.
    changes: AtomicU64,
}

impl Listeners {
    /// Starts the thread that looks.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn start(&self) -> io::Result<()> {
        let watched = Arc::clone(&self.watched);
        let thread = std::thread::Builder::new().name("listeners".into());
        thread.spawn(move || watch(&watched)).map(drop)
    }

    /// Whether something else listens than when this was asked the last time, as far as it is known.
    pub(super) fn take_changed(&mut self, is_wanted: bool) -> bool {
        self.watched.is_wanted.store(is_wanted, Ordering::Relaxed);
        let changes = self.watched.changes.load(Ordering::Acquire);
        std::mem::replace(&mut self.told, changes) != changes
    }
}

/// Looks until nobody else knows of it.
fn watch(watched: &Arc<Watched>) {
    let mut before = None;
    while Arc::strong_count(watched) > 1 {
        if watched.is_wanted.load(Ordering::Relaxed) {
            match tcp_listeners() {
                Ok(now) if before.as_ref() != Some(&now) => {
                    before = Some(now);
                    watched.changes.fetch_add(1, Ordering::Release);
                }
                Ok(_) => (),
                Err(error) => tracing::debug!("reading what listens: {error}"),
            }
        } else {
            before = None;
        }
        std::thread::sleep(INTERVAL);
    }
}
