//! The server: a listener that is bound first, so that an error is told before anything runs, and a thread with a runtime of its own.
use crate::facts::FactBoard;
use crate::metrics::{Exposition, MetricNames, exposition};
use crate::shared::Shared;
use crate::{fleet_page, guard, page};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use keepstate_live::{FleetBoard, LiveFeed};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// What is served where.
#[derive(Clone, Debug)]
pub struct ExporterOptions {
    /// The address and port; port 0 for any.
    pub listen: SocketAddr,
    /// Host names besides `localhost` and addresses that requests may name.
    pub hosts: Vec<String>,
    /// Names of metrics.
    pub names: MetricNames,
}

/// A running server; dropped, it ends.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Exporter {
    /// Binds, and serves on a thread of its own. With a `fleet` there is a page for it too.
    ///
    /// # Errors
    /// The address is in use or not ours; no thread can be made.
    pub fn start(
        options: &ExporterOptions,
        feed: Arc<LiveFeed>,
        facts: Arc<FactBoard>,
        fleet: Option<Arc<FleetBoard>>,
    ) -> io::Result<Exporter> {
        let listener = TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let (documents, readers) = (Arc::default(), Arc::default());
        let shared = Shared { feed, facts, fleet, names: options.names, documents, readers };
        let app = router(shared, options.hosts.clone().into());
        let thread = std::thread::Builder::new().name("serve".into()).spawn(move || run(listener, app, stopped))?;
        Ok(Exporter { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(listener: TcpListener, app: Router, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        // Not gracefully: a page that stays open would keep us.
        tokio::select! {
            served = axum::serve(listener, app) => served,
            _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
        }
    })
}

fn router(shared: Shared, hosts: Arc<[String]>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/assets/{name}", get(page::asset))
        .route("/live", get(page::live))
        .route("/fleet", get(fleet_page::page))
        .route("/fleet/live", get(fleet_page::live))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(shared)
        .layer(middleware::from_fn_with_state(hosts, guard::check))
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (format, kind) = if accepted.contains("application/openmetrics-text") {
        (Exposition::OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    } else {
        (Exposition::Text, "text/plain; version=0.0.4; charset=utf-8")
    };
    match exposition(&shared.feed, &shared.facts, shared.names, format) {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Ready once the table is known; not while its owner cannot be reached.
async fn ready(State(shared): State<Shared>) -> Response {
    let state = shared.feed.table().state().clone();
    match state.error {
        Some(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the table cannot be read: {error}\n")).into_response()
        }
        None if state.dumps == 0 => {
            let read = state.dumped.unwrap_or(0);
            (StatusCode::SERVICE_UNAVAILABLE, format!("reading the table: {read} connections so far\n")).into_response()
        }
        None => "ready\n".into_response(),
    }
}
