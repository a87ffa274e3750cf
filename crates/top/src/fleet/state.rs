//! What the user has chosen of a fleet's view, changed by keys alone.
use keepstate_live::{FleetView, NodeView};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What the main part shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FleetPane {
    Nodes,
    /// The node of this name.
    Node(String),
    Shards,
    Help,
}

/// In which order nodes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeOrder {
    Worst,
    Name,
    Fullest,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FleetAction {
    Redraw,
    Suspend,
    Quit,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct FleetState {
    pub(super) pane: FleetPane,
    pub(super) order: NodeOrder,
    /// The first row that is shown, and the selected one, from the first of all.
    pub(super) offset: usize,
    pub(super) selected: usize,
    pub(super) is_frozen: bool,
    /// Rows that the main part has; set by the last drawing.
    pub(super) rows: usize,
    pub(super) has_colour: bool,
}

impl FleetState {
    /// The state at the beginning.
    pub fn new(has_colour: bool) -> FleetState {
        FleetState {
            pane: FleetPane::Nodes,
            order: NodeOrder::Worst,
            offset: 0,
            selected: 0,
            is_frozen: false,
            rows: 10,
            has_colour,
        }
    }

    /// The nodes in the chosen order.
    pub(super) fn nodes<'a>(&self, fleet: &'a FleetView) -> Vec<&'a NodeView> {
        let mut nodes = fleet.worst_first();
        match self.order {
            NodeOrder::Worst => (),
            NodeOrder::Name => nodes.sort_by(|a, b| a.name.cmp(&b.name)),
            NodeOrder::Fullest => {
                let full = |node: &NodeView| node.percent().unwrap_or(-1.0);
                nodes.sort_by(|a, b| full(b).total_cmp(&full(a)).then(a.name.cmp(&b.name)));
            }
        }
        nodes
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, fleet: &FleetView, key: KeyEvent) -> FleetAction {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return FleetAction::Quit,
                KeyCode::Char('z') => return FleetAction::Suspend,
                _ => return FleetAction::Redraw,
            }
        }
        let rows = match self.pane {
            FleetPane::Nodes => fleet.nodes.len(),
            FleetPane::Shards => fleet.shards().len(),
            FleetPane::Node(_) | FleetPane::Help => 0,
        };
        let page = self.rows.max(1);
        match key.code {
            KeyCode::Char('q') => return FleetAction::Quit,
            KeyCode::Char(' ') => self.is_frozen = !self.is_frozen,
            KeyCode::Char('s') => {
                self.order = match self.order {
                    NodeOrder::Worst => NodeOrder::Name,
                    NodeOrder::Name => NodeOrder::Fullest,
                    NodeOrder::Fullest => NodeOrder::Worst,
                };
                self.show(FleetPane::Nodes);
            }
            KeyCode::Char('n') | KeyCode::Esc => self.show(FleetPane::Nodes),
            KeyCode::Char('h' | '?') => self.show(FleetPane::Help),
            KeyCode::Char('d') => self.show(FleetPane::Shards),
            KeyCode::Enter => match self.pane {
                FleetPane::Nodes => {
                    let name = self.nodes(fleet).get(self.selected).map(|node| node.name.clone());
                    if let Some(name) = name {
                        self.pane = FleetPane::Node(name);
                    }
                }
                _ => self.pane = FleetPane::Nodes,
            },
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1), rows),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected.saturating_add(1), rows),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(page), rows),
            KeyCode::PageDown => self.select(self.selected.saturating_add(page), rows),
            KeyCode::Home => self.select(0, rows),
            KeyCode::End => self.select(usize::MAX, rows),
            _ => (),
        }
        FleetAction::Redraw
    }

    fn show(&mut self, pane: FleetPane) {
        self.pane = pane;
        (self.offset, self.selected) = (0, 0);
    }

    /// Selects a row of so many, and moves the page so that it is on it.
    pub(super) fn select(&mut self, row: usize, rows: usize) {
        self.selected = row.min(rows.saturating_sub(1));
        let page = self.rows.max(1);
        self.offset = self.offset.clamp((self.selected + 1).saturating_sub(page), self.selected);
    }
}
