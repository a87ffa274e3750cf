//! What is shown, taken from a feed under one short lock: drawing then takes as long as it takes.
use crate::state::{TopPane, TopState};
use crate::sticky::keep_places;
use keepstate_live::{
    FeedState, FlowKey, FlowRow, GroupBy, GroupRow, LiveFeed, NamedCounter, OccupancySample, PageQuery, SourceSettings,
    TablePage, TableSample, TableSource, TimeToFull,
};

/// A finding of doctor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingLine {
    /// Its name.
    pub name: String,
    /// Does it lose packets or connections?
    pub is_critical: bool,
    /// What is wrong.
    pub title: String,
}

/// The commands that switch something on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchOn {
    /// Counting of packets and bytes.
    pub accounting: String,
    /// Events of changes.
    pub events: String,
}

impl SwitchOn {
    fn of(source: &TableSource) -> SwitchOn {
        SwitchOn {
            accounting: source.set_command("nf_conntrack_acct", 1),
            events: source.set_command("nf_conntrack_events", 1),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct TopSnapshot {
    /// Whose table.
    pub name: String,
    /// Size and limit.
    pub latest: Option<OccupancySample>,
    /// Sizes of the last quarter of an hour, a second each.
    pub history: Vec<u64>,
    /// When it is full.
    pub time_to_full: TimeToFull,
    /// Connections begun and ended, a second.
    pub rates: TableSample,
    /// How far it can be believed.
    pub feed: FeedState,
    /// The owner's settings.
    pub settings: SourceSettings,
    /// What switches counting and events on where the table is.
    pub switch_on: SwitchOn,
    /// Connections, if they are shown.
    pub page: TablePage,
    /// Groups, if they are shown.
    pub groups: Vec<GroupRow>,
    /// How many groups there are.
    pub group_count: usize,
    /// Counters and reasons.
    pub counters: Vec<NamedCounter>,
    /// The connection whose details are shown; `None` if it has ended.
    pub details: Option<FlowRow>,
    /// What doctor has found; `None` if it has not run.
    pub findings: Option<Vec<FindingLine>>,
}

/// Groups that can be reached.
const MAX_GROUPS: usize = 10_000;

impl TopSnapshot {
    /// Takes what this state shows. `before` are the connections shown last, which keep their places.
    pub fn take(
        feed: &LiveFeed,
        state: &TopState,
        before: &[FlowKey],
        findings: Option<Vec<FindingLine>>,
    ) -> TopSnapshot {
        if matches!(state.pane, TopPane::Groups(by) if by.is_owner()) {
            feed.want_owners();
        }
        let (now, settings) = (feed.now(), feed.settings());
        let table = feed.table();
        let mut page = TablePage::default();
        let (mut groups, mut group_count, mut details) = (Vec::new(), 0, None);
        match state.pane {
            TopPane::Connections => {
                let query = PageQuery {
                    filter: state.filter.as_ref(),
                    sort: state.sort,
                    offset: state.offset,
                    rows: state.rows,
                };
                page = table.page(&query, now);
            }
            TopPane::Groups(by) if by.is_owner() => {
                let all = table.owner_groups(now);
                let by_namespace = by == GroupBy::Namespace;
                let all = all.map(|all| if by_namespace { all.namespaces } else { all.containers }).unwrap_or_default();
                group_count = all.len();
                groups = all.into_iter().skip(state.offset).take(state.rows).collect();
            }
            TopPane::Groups(by) => {
                let wanted = state.offset.saturating_add(state.rows).min(MAX_GROUPS);
                groups = table.groups(by, wanted, now).split_off(state.offset.min(wanted).min(table.group_count(by)));
                group_count = table.group_count(by);
            }
            TopPane::Details(key) => details = table.find(&key, now),
            TopPane::Reasons | TopPane::Findings | TopPane::Help => (),
        }
        let counters = table.counters.iter().chain(table.reasons.iter());
        let mut counters: Vec<NamedCounter> = counters.filter(|counter| counter.total > 0).cloned().collect();
        counters.sort_by(|a, b| {
            b.per_second.total_cmp(&a.per_second).then(b.total.cmp(&a.total)).then(a.name.cmp(&b.name))
        });
        let snapshot = TopSnapshot {
            name: feed.source().name().to_owned(),
            latest: table.latest(),
            history: table.history().map(|sample| sample.entries).collect(),
            time_to_full: table.time_to_full(),
            rates: table.rates(),
            feed: table.state().clone(),
            settings,
            switch_on: SwitchOn::of(feed.source()),
            page: TablePage::default(),
            groups,
            group_count,
            counters,
            details,
            findings,
        };
        drop(table);
        let rows = keep_places(before, page.rows);
        TopSnapshot { page: TablePage { rows, matched: page.matched }, ..snapshot }
    }

    /// How many rows the pane has, shown or not.
    pub(crate) fn row_count(&self, pane: TopPane) -> usize {
        match pane {
            TopPane::Connections => usize::try_from(self.page.matched).unwrap_or(usize::MAX),
            TopPane::Groups(_) => self.group_count,
            TopPane::Reasons => self.counters.len(),
            TopPane::Findings => self.findings.as_ref().map_or(0, Vec::len),
            TopPane::Details(_) | TopPane::Help => 0,
        }
    }
}
