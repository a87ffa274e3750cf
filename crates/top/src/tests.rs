//! Screens as text, and what keys do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use crate::keys::{TopAction, press};
use crate::{FindingLine, SwitchOn, TopPane, TopPrompt, TopSnapshot, TopState, draw};
use keepstate_linux::ctnetlink::{CtCounters, CtFamily, CtFlow, CtProtoInfo, CtTcpInfo, CtTuple, EventKind, Status};
use keepstate_live::{
    FeedState, FlowKey, FlowRow, FlowSort, GroupBy, GroupRow, LiveTable, NamedCounter, OccupancySample, PageQuery,
    SourceSettings, TimeToFull,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::net::IpAddr;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(1000);

fn connection(port: u16) -> CtFlow {
    let tuple = |from: [u8; 4], to: [u8; 4], ports: [u16; 2]| CtTuple {
        source: Some(IpAddr::from(from)),
        destination: Some(IpAddr::from(to)),
        protocol: Some(6),
        source_port: Some(ports[0]),
        destination_port: Some(ports[1]),
        ..CtTuple::default()
    };
    let (client, server) = ([192, 168, 100, 200], [203, 0, 113, 200]);
    let outside = if port.is_multiple_of(2) { [198, 51, 100, 1] } else { client };
    CtFlow {
        family: Some(CtFamily::V4),
        original: tuple(client, server, [port, 443]),
        reply: tuple(server, outside, [443, port]),
        status: Some(Status::CONFIRMED | Status::SEEN_REPLY | Status::ASSURED),
        timeout: Some(431_000),
        id: Some(u32::from(port)),
        protoinfo: CtProtoInfo::Tcp(CtTcpInfo { state: Some(3), ..CtTcpInfo::default() }),
        ..CtFlow::default()
    }
}

fn filled(counted: bool) -> LiveTable {
    let mut table = LiveTable::new(1000);
    table.begin_dump();
    for port in 0..40 {
        let mut flow = connection(54_000 + port);
        for at in [500 + u64::from(port), 900] {
            let count = CtCounters { packets: at, bytes: at * 1000 * u64::from(port) };
            flow.counters = if counted { [Some(count); 2] } else { [None; 2] };
            table.dump_flow(&flow, Duration::from_secs(at));
        }
    }
    table.end_dump(Duration::from_secs(950));
    table.event(EventKind::New, &connection(60_001), Duration::from_secs(995));
    table
}

pub(crate) fn row(port: u16) -> FlowRow {
    let mut table = LiveTable::new(10);
    table.event(EventKind::New, &connection(port), NOW);
    table.find(&FlowKey::of(&connection(port)).unwrap(), NOW).unwrap()
}

/// What would be taken from a feed.
fn snapshot(table: &LiveTable, state: &TopState) -> TopSnapshot {
    let query = PageQuery { filter: state.filter.as_ref(), sort: state.sort, offset: state.offset, rows: state.rows };
    let by = if let TopPane::Groups(by) = state.pane { by } else { GroupBy::Source };
    TopSnapshot {
        name: "Linux".into(),
        latest: Some(OccupancySample { at: NOW, entries: 214_012, limit: Some(262_144) }),
        history: (0..300).map(|at| 100_000 + at * 380).collect(),
        time_to_full: TimeToFull::In(Duration::from_secs(1500)),
        rates: keepstate_live::TableSample { new_per_second: 1234.0, ended_per_second: 854.0 },
        feed: FeedState { is_complete: true, dumps: 1, ..FeedState::default() },
        settings: SourceSettings { accounting: table.has_counts(), events: Some(true) },
        switch_on: SwitchOn {
            accounting: "sysctl -w net.netfilter.nf_conntrack_acct=1".into(),
            events: "sysctl -w net.netfilter.nf_conntrack_events=1".into(),
        },
        page: table.page(&query, NOW),
        groups: table.groups(by, state.rows, NOW),
        group_count: table.group_count(by),
        counters: vec![
            NamedCounter { name: "insert_failed".into(), total: 1_234_567, per_second: 25.5 },
            NamedCounter { name: "drop".into(), total: 12, per_second: 0.0 },
        ],
        details: if let TopPane::Details(key) = state.pane { table.find(&key, NOW) } else { None },
        findings: Some(vec![
            FindingLine { name: "table-full".into(), is_critical: true, title: "the table is full".into() },
            FindingLine {
                name: "udp-timeout".into(),
                is_critical: false,
                title: "UDP \u{1b}[2J entries live long".into(),
            },
        ]),
    }
}

fn screen(state: &mut TopState, shown: &TopSnapshot, size: (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame, state, shown)).unwrap();
    terminal.backend().to_string()
}

fn shown_at(pane: TopPane, counted: bool, size: (u16, u16)) -> String {
    let mut state = TopState::new(false);
    (state.pane, state.rows) = (pane, usize::from(size.1) - 8);
    let shown = snapshot(&filled(counted), &state);
    screen(&mut state, &shown, size)
}

#[test]
fn connections_at_80_by_24() {
    insta::assert_snapshot!(shown_at(TopPane::Connections, false, (80, 24)));
}

/// At 80 columns the numbers stay whole, whatever the name.
#[test]
fn the_first_line_is_said_in_fewer_words_before_it_is_cut() {
    let first_line = |name: &str| {
        let mut state = TopState::new(false);
        let mut shown = snapshot(&filled(false), &state);
        shown.name = name.into();
        shown.latest = Some(OccupancySample { at: NOW, entries: 1_000_000, limit: Some(2_097_152) });
        shown.time_to_full = TimeToFull::Unknown;
        let screen = screen(&mut state, &shown, (80, 24));
        screen.lines().next().unwrap().trim_matches('"').trim_end().to_owned()
    };
    assert_eq!(first_line("Linux"), "Linux  1,000,000 connections of 2,097,152 (47.7 %)  full: too early to say");
    assert_eq!(
        first_line("gateway control.sock"),
        "gateway control.sock  1,000,000 of 2,097,152 (47.7 %)  full: too early to say"
    );
    let long = first_line("gateway /run/keepstate-something-longer/gateway.sock");
    assert!(long.ends_with("…  1,000,000 of 2,097,152 (47.7 %)  full: too early to say"), "{long}");
}

#[test]
fn connections_with_bytes_on_a_wide_terminal() {
    insta::assert_snapshot!(shown_at(TopPane::Connections, true, (120, 16)));
}

#[test]
fn groups() {
    insta::assert_snapshot!(shown_at(TopPane::Groups(GroupBy::State), true, (80, 12)));
}

#[test]
fn long_labels_of_groups_keep_the_columns_in_line() {
    let mut state = TopState::new(false);
    state.pane = TopPane::Groups(GroupBy::Container);
    for (accounting, fits) in [(Some(false), true), (Some(true), false)] {
        let mut shown = snapshot(&filled(false), &state);
        shown.settings.accounting = accounting;
        let label = "pod 0d1f2a3b-1111-2222-3333-444455556666/0123456789ab".to_owned();
        shown.groups =
            vec![GroupRow { label, words: String::new(), entries: 1234, new_per_second: 0.0, bytes_per_second: 0 }];
        let text = screen(&mut state, &shown, (80, 12));
        let end = |word: &str| text.lines().find_map(|line| line.find(word).map(|at| at + word.len())).unwrap();
        let line = text.lines().find(|line| line.contains("pod 0d1f")).unwrap();
        assert_eq!(line.contains("0123456789ab"), fits, "{text}");
        let counted = line.replace('…', ".");
        assert_eq!(counted.find("1,234").unwrap() + 5, end("entries"), "{text}");
    }
    let mut shown = snapshot(&filled(false), &state);
    shown.groups.clear();
    assert!(screen(&mut state, &shown, (80, 12)).contains("are being read"));
}

#[test]
fn reasons() {
    insta::assert_snapshot!(shown_at(TopPane::Reasons, false, (80, 12)));
}

#[test]
fn findings() {
    let text = shown_at(TopPane::Findings, false, (80, 14));
    assert!(!text.contains('\u{1b}'), "no escape sequence passes");
    insta::assert_snapshot!(text);
}

#[test]
fn details() {
    let key = FlowKey::of(&connection(54_002)).unwrap();
    insta::assert_snapshot!(shown_at(TopPane::Details(key), true, (80, 24)));
}

#[test]
fn help_fits_24_rows() {
    let text = shown_at(TopPane::Help, false, (80, 24));
    assert!(text.contains("behind ⇒"), "{text}");
    assert!(
        text.contains("destination, timeout") && text.contains("namespace, container"),
        "no line is wrapped: {text}"
    );
}

#[test]
fn nothing_panics_however_small_the_terminal() {
    let key = FlowKey::of(&connection(54_002)).unwrap();
    for pane in [
        TopPane::Connections,
        TopPane::Groups(GroupBy::Service),
        TopPane::Reasons,
        TopPane::Findings,
        TopPane::Details(key),
        TopPane::Help,
    ] {
        for (width, height) in [(1, 1), (3, 8), (20, 9), (80, 5), (300, 100)] {
            let mut state = TopState::new(true);
            state.pane = pane;
            let shown = snapshot(&filled(true), &state);
            screen(&mut state, &shown, (width, height));
        }
    }
}

#[test]
fn without_colours_there_are_none() {
    let mut state = TopState::new(false);
    let shown = snapshot(&filled(true), &state);
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &mut state, &shown)).unwrap();
    let plain = ratatui::style::Color::Reset;
    assert!(terminal.backend().buffer().content().iter().all(|cell| cell.fg == plain && cell.bg == plain));
}

#[test]
fn what_makes_the_view_uncertain_is_said() {
    let mut state = TopState::new(false);
    let mut shown = snapshot(&filled(false), &state);
    for (feed, expected) in [
        (
            FeedState { dumped: Some(12_345), ..FeedState::default() },
            "reading the table: 12,345 of 214,012 connections so far",
        ),
        // More than the owner had a second ago.
        (FeedState { dumped: Some(214_013), ..FeedState::default() }, "reading the table: 214,013 connections so far"),
        (FeedState { overruns: 1, ..FeedState::default() }, "events were lost: the table is read again"),
        (FeedState { error: Some("no permission".into()), ..FeedState::default() }, "no new data: no permission"),
        (FeedState { is_complete: true, left_out: 7, ..FeedState::default() }, "7 connections are counted only"),
    ] {
        shown.feed = feed;
        let text = screen(&mut state, &shown, (80, 24));
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn an_empty_pane_says_so_once_the_table_has_been_read() {
    let table = LiveTable::new(10);
    for (pane, filter, expected) in [
        (TopPane::Connections, "", "no connections"),
        (TopPane::Connections, "-p udp", "no connection matches"),
        (TopPane::Groups(GroupBy::Source), "", "no connections"),
        (TopPane::Groups(GroupBy::Outside), "", "no source is translated"),
        (TopPane::Reasons, "", "nothing has been counted"),
    ] {
        let mut state = TopState::new(false);
        state.set_filter(filter).unwrap();
        state.pane = pane;
        let mut shown = snapshot(&table, &state);
        shown.counters.clear();
        let text = screen(&mut state, &shown, (80, 24));
        assert!(text.contains(&format!("\"{expected}")), "{expected} in\n{text}");
        if pane != TopPane::Reasons {
            shown.feed.dumps = 0;
            assert!(!screen(&mut state, &shown, (80, 24)).contains(expected), "it has not been read yet");
        }
    }
    let (mut state, mut shown) = (TopState::new(false), snapshot(&table, &TopState::new(false)));
    (shown.latest, shown.feed.error) = (None, Some("no permission".into()));
    assert!(screen(&mut state, &shown, (80, 24)).contains("Linux  cannot be read"));
}

#[test]
fn a_narrow_terminal_has_fewer_words_and_whole_ones() {
    let mut state = TopState::new(false);
    let mut shown = snapshot(&filled(false), &state);
    shown.settings.accounting = Some(false);
    let text = screen(&mut state, &shown, (40, 12));
    assert!(text.contains("\"new 1.2k/s  ended 854/s "), "{text}");
    assert!(text.contains("\"q quit  / filter  s sort  ? help "), "{text}");
    assert!(!text.contains("no bytes"), "{text}");
}

/// Presses keys one after another; returns the last action.
fn type_keys(state: &mut TopState, keys: &[KeyCode]) -> TopAction {
    let mut action = TopAction::Redraw;
    for key in keys {
        let shown = snapshot(&filled(false), state);
        action = press(state, &shown, KeyEvent::new(*key, KeyModifiers::NONE));
    }
    action
}

fn letters(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

#[test]
fn a_filter_is_typed_and_a_wrong_one_is_explained() {
    let mut state = TopState::new(false);
    type_keys(&mut state, &letters("/-p tcp --dport 80"));
    assert_eq!(state.prompt, Some(TopPrompt::Filter("-p tcp --dport 80".into())));
    assert_eq!(type_keys(&mut state, &[KeyCode::Enter]), TopAction::Refresh);
    assert_eq!((state.filter_words.as_str(), snapshot(&filled(false), &state).page.matched), ("-p tcp --dport 80", 0));
    type_keys(&mut state, &letters("/x"));
    type_keys(&mut state, &[KeyCode::Enter]);
    assert!(state.message.is_some() && state.prompt.is_some(), "{state:?}");
    assert_eq!(state.filter_words, "-p tcp --dport 80", "the one of before holds");
    type_keys(&mut state, &[KeyCode::Esc, KeyCode::Esc]);
    assert!(state.filter.is_none());
}

#[test]
fn a_connection_is_deleted_only_after_a_yes() {
    let mut state = TopState::new(false);
    assert_eq!(type_keys(&mut state, &letters("x")), TopAction::Redraw);
    let Some(TopPrompt::Delete(key)) = state.prompt.clone() else { panic!("a question: {state:?}") };
    assert_eq!(type_keys(&mut state, &letters("n")), TopAction::Redraw);
    assert_eq!(state.message.as_deref(), Some("not deleted"));
    assert_eq!(type_keys(&mut state, &letters("xy")), TopAction::Delete(key));
    type_keys(&mut state, &letters("g"));
    type_keys(&mut state, &letters("x"));
    assert_eq!(state.prompt, None, "a group is not deleted");
}

#[test]
fn keys_lead_from_a_group_to_its_connections_to_one_of_them() {
    let mut state = TopState::new(false);
    type_keys(&mut state, &letters("gg"));
    assert_eq!(state.pane, TopPane::Groups(GroupBy::Service));
    type_keys(&mut state, &[KeyCode::Enter]);
    assert_eq!(
        (state.pane, state.filter_words.as_str()),
        (TopPane::Connections, "-p tcp -d 203.0.113.200 --dport 443")
    );
    type_keys(&mut state, &[KeyCode::Down, KeyCode::Enter]);
    assert!(matches!(state.pane, TopPane::Details(_)));
    type_keys(&mut state, &[KeyCode::Esc]);
    assert_eq!(state.pane, TopPane::Connections);
}

#[test]
fn paging_stops_at_the_ends_and_space_freezes() {
    let mut state = TopState::new(false);
    state.rows = 16;
    type_keys(&mut state, &[KeyCode::PageDown]);
    assert_eq!((state.offset, state.selected), (1, 15));
    type_keys(&mut state, &[KeyCode::End]);
    assert_eq!(state.offset + state.selected, 40, "41 connections");
    type_keys(&mut state, &[KeyCode::Down]);
    assert_eq!(state.offset + state.selected, 40);
    type_keys(&mut state, &[KeyCode::Home, KeyCode::Up]);
    assert_eq!((state.offset, state.selected), (0, 0));
    type_keys(&mut state, &letters("s"));
    assert_eq!(state.sort, FlowSort::Oldest);
    type_keys(&mut state, &letters(" "));
    assert!(state.is_frozen);
    assert_eq!(type_keys(&mut state, &letters("q")), TopAction::Quit);
}
