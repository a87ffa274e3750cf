//! Asks the fleet again and again while somebody looks at it: for `top --fleet` and the page of `serve --fleet`.
use super::{AskedFleet, FleetFile, node_view};
use anyhow::{Context, Result};
use keepstate_live::{FleetBoard, FleetView, NodeView};
use keepstate_nats::fleet::FleetQuestion;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two rounds of questions.
const INTERVAL: Duration = Duration::from_secs(2);
/// A node that has not answered for so long does not answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Questions go on for so long after the last look.
const LOOK_TIME: Duration = Duration::from_secs(10);
/// Between two looks whether it is to end, or to begin.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A thread that asks; dropped, it ends.
pub(crate) struct FleetWatcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FleetWatcher {
    /// Starts it. It does not wait for NATS; why the fleet cannot be asked stands on the board.
    pub(crate) fn start(file: FleetFile, board: Arc<FleetBoard>) -> Result<FleetWatcher> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        board.lock().name = file.fleet.to_string();
        let watch = move || watch(&file, &board, &stopped);
        let thread = std::thread::Builder::new().name("fleet-watch".into()).spawn(watch);
        Ok(FleetWatcher { stop, thread: Some(thread.context("cannot start a thread")?) })
    }
}

impl Drop for FleetWatcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

fn watch(file: &FleetFile, board: &FleetBoard, stop: &AtomicBool) {
    let mut fleet: Option<AskedFleet> = None;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let is_wanted = board.is_looked_at(LOOK_TIME);
        if !is_wanted {
            fleet = None;
        }
        if Instant::now() < due || !is_wanted {
            std::thread::sleep(POLL_INTERVAL);
            continue;
        }
        match ask(file, &mut fleet) {
            Ok(nodes) => {
                *board.lock() = FleetView { name: file.fleet.to_string(), nodes, error: None, is_asked: true };
            }
            Err(error) => {
                // The next round connects anew.
                fleet = None;
                let mut view = board.lock();
                (view.error, view.is_asked) = (Some(format!("{error:#}")), true);
            }
        }
        due = Instant::now() + INTERVAL;
    }
}

fn ask(file: &FleetFile, fleet: &mut Option<AskedFleet>) -> Result<Vec<NodeView>> {
    let fleet = match fleet {
        Some(fleet) => fleet,
        None => fleet.insert(AskedFleet::connect(file)?),
    };
    let nodes = fleet.nodes()?;
    let answers = fleet.client.ask(&nodes, &FleetQuestion::Stats, TIMEOUT);
    Ok(nodes.iter().zip(answers).map(|(node, answer)| node_view::of_stats(node, answer)).collect())
}
