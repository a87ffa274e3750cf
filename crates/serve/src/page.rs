//! The page: one document, three files beside it, and a stream that tells it what is new. Everything comes from this program.
use crate::shared::Shared;
use askama::Template;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::RustEmbed;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Pages that may be open at a time.
const MAX_READERS: usize = 32;
/// Between two documents for one page.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(RustEmbed)]
#[folder = "assets"]
struct Assets;

#[derive(Template)]
#[template(path = "page.html")]
struct PageTemplate<'a> {
    name: &'a str,
    version: &'a str,
    has_fleet: bool,
}

pub(crate) async fn page(State(shared): State<Shared>) -> Response {
    let template = PageTemplate {
        name: shared.feed.source().name(),
        version: env!("CARGO_PKG_VERSION"),
        has_fleet: shared.fleet.is_some(),
    };
    html(&template)
}

pub(crate) fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    let kind = match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("css") => "text/css; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    };
    match Assets::get(&name) {
        Some(file) => ([(header::CONTENT_TYPE, kind)], file.data.into_owned()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A reader of the stream; dropped with it.
struct Reader(Arc<AtomicUsize>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) async fn live(State(shared): State<Shared>) -> Response {
    stream(shared, |shared| shared.documents.get(&shared.feed, &shared.facts))
}

/// A document now, and each second another one.
pub(crate) fn stream(shared: Shared, document: impl Fn(&Shared) -> Arc<str> + Send + 'static) -> Response {
    let reader = Reader(Arc::clone(&shared.readers));
    if shared.readers.fetch_add(1, Ordering::Relaxed) >= MAX_READERS {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    }
    let begin = (shared, reader, document, true);
    let stream = futures_util::stream::unfold(begin, |(shared, reader, document, is_first)| async move {
        if !is_first {
            tokio::time::sleep(INTERVAL).await;
        }
        let text = document(&shared);
        Some((Ok::<Event, Infallible>(Event::default().data(&*text)), (shared, reader, document, false)))
    });
    Sse::new(stream).into_response()
}
