//! What the page is told: the model in one JSON document, made at most once a second for all readers, and less often where it costs much.
use crate::facts::FactBoard;
use keepstate_conntrack::format::protocol_name;
use keepstate_live::{FlowSort, GroupBy, GroupRow, LiveFeed, PageQuery};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two documents, at least.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// Making them takes at most one part in so many of the time.
const SHARE: u32 = 50;
/// And in so many while the table is read for the first time.
const FIRST_SHARE: u32 = 4;
/// Rows of each table.
const ROWS: usize = 12;

/// One document. A row is a list of cells: text or number.
#[derive(Serialize)]
struct PageDocument {
    entries: u64,
    limit: Option<u64>,
    full: String,
    new_per_second: f64,
    ended_per_second: f64,
    note: String,
    /// Nothing new comes: what is shown is old.
    is_stale: bool,
    /// Seconds before now, and sizes.
    times: Vec<i64>,
    sizes: Vec<u64>,
    states: Vec<(String, u64)>,
    sources: Vec<(String, u64, f64)>,
    services: Vec<(String, u64, f64)>,
    outside: Vec<(String, u64, f64)>,
    namespaces: Vec<(String, u64, f64)>,
    containers: Vec<(String, u64, f64)>,
    counters: Vec<(String, u64, f64)>,
    findings: Vec<(&'static str, String)>,
    /// Has doctor run?
    is_diagnosed: bool,
    flows: Vec<(String, &'static str, String, u64)>,
}

/// The last document, shared by all readers.
#[derive(Debug, Default)]
pub(crate) struct DocumentCache {
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

impl DocumentCache {
    /// The document as of now or of a moment ago.
    pub(crate) fn get(&self, feed: &LiveFeed, facts: &FactBoard) -> Arc<str> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((due, text)) = last.as_ref().filter(|(due, _)| Instant::now() < *due) {
            let _ = due;
            return Arc::clone(text);
        }
        let share = if feed.table().state().dumps == 0 { FIRST_SHARE } else { SHARE };
        let begun = Instant::now();
        // Plain values are always JSON.
        let text: Arc<str> = serde_json::to_string(&document(feed, facts)).unwrap_or_default().into();
        let pause = (begun.elapsed() * share).max(LEAST_INTERVAL - Duration::from_millis(50));
        *last = Some((Instant::now() + pause, Arc::clone(&text)));
        text
    }
}

fn document(feed: &LiveFeed, facts: &FactBoard) -> PageDocument {
    feed.want_owners();
    let now = feed.now();
    let table = feed.table();
    let rows = |groups: Vec<GroupRow>| {
        let rows = groups.into_iter().take(ROWS);
        rows.map(|group| (group.label, group.entries, group.new_per_second)).collect::<Vec<_>>()
    };
    let groups = |by| rows(table.groups(by, ROWS, now));
    let owners = table.owner_groups(now).unwrap_or_default();
    let query = PageQuery { filter: None, sort: FlowSort::Rate, offset: 0, rows: ROWS };
    let flows = table.page(&query, now).rows.into_iter().map(|row| {
        let protocol = protocol_name(row.key.protocol).map_or_else(|| row.key.protocol.to_string(), str::to_owned);
        let path = row.nat.map_or_else(
            || format!("{} → {}", row.key.source_text(), row.key.destination_text()),
            |nat| nat.to_string(),
        );
        (protocol, row.state.name(), path, row.bytes_per_second)
    });
    let counters = table.counters.iter().chain(table.reasons.iter()).filter(|counter| counter.total > 0);
    let mut counters: Vec<_> =
        counters.map(|counter| (counter.name.clone(), counter.total, counter.per_second)).collect();
    counters.sort_by(|a, b| b.2.total_cmp(&a.2).then(b.1.cmp(&a.1)));
    counters.truncate(ROWS);
    let latest = table.latest();
    let at = latest.map_or(now, |sample| sample.at);
    let seconds_ago = |time: Duration| i64::try_from(at.saturating_sub(time).as_secs()).unwrap_or(0).saturating_neg();
    let document = PageDocument {
        entries: latest.map_or(0, |sample| sample.entries),
        limit: latest.and_then(|sample| sample.limit),
        full: table.time_to_full().to_string(),
        new_per_second: table.rates().new_per_second,
        ended_per_second: table.rates().ended_per_second,
        note: note(&table, feed),
        is_stale: table.state().error.is_some(),
        times: table.history().map(|sample| seconds_ago(sample.at)).collect(),
        sizes: table.history().map(|sample| sample.entries).collect(),
        states: table.groups(GroupBy::State, ROWS, now).into_iter().map(|group| (group.label, group.entries)).collect(),
        sources: groups(GroupBy::Source),
        services: groups(GroupBy::Service),
        outside: groups(GroupBy::Outside),
        namespaces: rows(owners.namespaces),
        containers: rows(owners.containers),
        counters,
        findings: Vec::new(),
        is_diagnosed: false,
        flows: flows.collect(),
    };
    drop(table);
    let facts = facts.lock();
    let findings = facts.findings.iter().map(|finding| (finding.severity, finding.title.clone()));
    PageDocument { findings: findings.collect(), is_diagnosed: facts.diagnosed_at.is_some(), ..document }
}

/// What a reader must know to read the rest.
fn note(table: &keepstate_live::LiveTable, feed: &LiveFeed) -> String {
    let state = table.state();
    if let Some(error) = &state.error {
        format!("no new data: {error}")
    } else if state.dumps == 0 {
        let all = table.latest().map(|latest| format!(" of {}", latest.entries)).unwrap_or_default();
        format!("reading the table: {}{all} connections so far", state.dumped.unwrap_or(0))
    } else if !state.is_complete {
        "events were lost: the table is read again".into()
    } else if feed.settings().accounting == Some(false) {
        format!("bytes are not counted: {}", feed.source().set_command("nf_conntrack_acct", 1))
    } else {
        String::new()
    }
}
