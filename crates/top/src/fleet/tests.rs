//! Screens of a fleet as text, and what keys do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use super::draw::draw;
use super::state::{FleetAction, FleetPane, FleetState};
use keepstate_live::{FleetView, NodeFinding, NodeVerdict, NodeView, ShardView};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

fn node(name: &str, verdict: NodeVerdict, entries: u64) -> NodeView {
    let silent = NodeView::silent(name.into(), "gateway".into(), "0.1.0".into(), String::new());
    NodeView {
        verdict,
        trouble: None,
        entries: Some(entries),
        limit: Some(262_144),
        new_per_second: 1234.0,
        ended_per_second: 1200.0,
        time_to_full: "full in 25 min".into(),
        ..silent
    }
}

fn shard(role: &str, lag: u64, is_in_step: bool) -> ShardView {
    ShardView {
        cluster: "site".into(),
        shard: "main".into(),
        role: role.into(),
        epoch: 7,
        decided_by: "lease".into(),
        is_in_step,
        lag,
        age_ms: 3,
        is_connected: true,
    }
}

fn fleet() -> FleetView {
    let full = NodeFinding {
        name: "table-full-assured".into(),
        is_critical: true,
        title: "the table is full of established connections".into(),
    };
    let udp = NodeFinding { name: "udp-dominates".into(), is_critical: false, title: "UDP \u{1b}[2J fills it".into() };
    let nodes = vec![
        NodeView {
            findings: vec![full, udp.clone()],
            shards: vec![shard("active", 0, true)],
            ..node("gw1", NodeVerdict::Critical, 262_144)
        },
        NodeView { shards: vec![shard("standby", 12, false)], ..node("gw2", NodeVerdict::Ok, 200_000) },
        NodeView { findings: vec![udp], ..node("a-broker-with-a-long-name", NodeVerdict::Warning, 70_000) },
        NodeView::silent(
            "edge".into(),
            "serve".into(),
            "0.1.0".into(),
            "it does not answer, last heard of 3 min ago".into(),
        ),
    ];
    FleetView { name: "site".into(), nodes, error: None, is_asked: true }
}

fn screen(state: &mut FleetState, fleet: &FleetView, (columns, rows): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, state, fleet)).unwrap();
    let text = terminal.backend().to_string();
    assert!(!text.contains('\u{1b}'), "no escape sequence passes");
    text
}

fn press(state: &mut FleetState, keys: &[KeyCode]) -> FleetAction {
    let mut action = FleetAction::Redraw;
    for key in keys {
        action = state.press(&fleet(), KeyEvent::new(*key, KeyModifiers::NONE));
    }
    action
}

#[test]
fn nodes_at_80_by_24() {
    insta::assert_snapshot!(screen(&mut FleetState::new(false), &fleet(), (80, 12)));
}

#[test]
fn one_node() {
    let mut state = FleetState::new(false);
    press(&mut state, &[KeyCode::Enter]);
    assert_eq!(state.pane, FleetPane::Node("gw1".into()), "the worst comes first");
    insta::assert_snapshot!(screen(&mut state, &fleet(), (80, 16)));
    let mut gone = fleet();
    gone.nodes.clear();
    assert!(screen(&mut state, &gone, (80, 16)).contains("not registered any more"));
}

#[test]
fn shards() {
    let mut state = FleetState::new(false);
    press(&mut state, &[KeyCode::Char('d')]);
    insta::assert_snapshot!(screen(&mut state, &fleet(), (80, 8)));
}

#[test]
fn what_makes_the_view_old_or_empty_is_said() {
    let mut state = FleetState::new(false);
    let asking = FleetView { name: "site".into(), ..FleetView::default() };
    assert!(screen(&mut state, &asking, (80, 24)).contains("fleet site  asking"));
    let nobody = FleetView { is_asked: true, ..asking.clone() };
    assert!(screen(&mut state, &nobody, (80, 24)).contains("no node is registered"));
    let away = FleetView { error: Some("cannot ask fleet site: nats://a: refused".into()), ..fleet() };
    let text = screen(&mut state, &away, (80, 24));
    assert!(text.contains("no new data: cannot ask fleet site") && text.contains("gw2"), "{text}");
}

#[test]
fn keys_select_sort_and_leave() {
    let mut state = FleetState::new(false);
    state.rows = 2;
    press(&mut state, &[KeyCode::End]);
    assert_eq!((state.selected, state.offset), (3, 2));
    press(&mut state, &[KeyCode::Home]);
    assert_eq!((state.selected, state.offset), (0, 0));
    press(&mut state, &[KeyCode::Char('s'), KeyCode::Enter]);
    assert_eq!(state.pane, FleetPane::Node("a-broker-with-a-long-name".into()), "by name");
    press(&mut state, &[KeyCode::Esc, KeyCode::Char('s'), KeyCode::Down, KeyCode::Enter]);
    assert_eq!(state.pane, FleetPane::Node("gw2".into()), "the second fullest");
    press(&mut state, &[KeyCode::Char(' ')]);
    assert!(state.is_frozen);
    assert_eq!(press(&mut state, &[KeyCode::Char('q')]), FleetAction::Quit);
}

#[test]
fn nothing_panics_however_small_the_terminal() {
    for keys in [&[][..], &[KeyCode::Enter], &[KeyCode::Char('d')], &[KeyCode::Char('?')]] {
        for size in [(1, 1), (3, 4), (20, 9), (300, 100)] {
            let mut state = FleetState::new(true);
            press(&mut state, keys);
            screen(&mut state, &fleet(), size);
            screen(&mut state, &FleetView::default(), size);
        }
    }
}
