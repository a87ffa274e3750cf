//! What the user has chosen: pane, order, filter, the selected row. Nothing here is read from a table.
use keepstate_conntrack::FlowSelection;
use keepstate_live::{FlowKey, FlowSort, GroupBy};

/// What the main part of the screen shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopPane {
    /// Connections.
    Connections,
    /// Groups of connections.
    Groups(GroupBy),
    /// Counters and reasons for which packets were dropped.
    Reasons,
    /// What doctor has found.
    Findings,
    /// One connection.
    Details(FlowKey),
    /// The keys.
    Help,
}

/// What the last line asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopPrompt {
    /// A filter is typed.
    Filter(String),
    /// Is this connection to be deleted?
    Delete(FlowKey),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct TopState {
    /// The pane.
    pub pane: TopPane,
    /// The order of connections.
    pub sort: FlowSort,
    /// The filter's words, as typed.
    pub filter_words: String,
    /// The same, parsed.
    pub filter: Option<FlowSelection>,
    /// The first row shown.
    pub offset: usize,
    /// The selected row, from the first shown.
    pub selected: usize,
    /// Nothing changes on the screen.
    pub is_frozen: bool,
    /// A question in the last line.
    pub prompt: Option<TopPrompt>,
    /// The result of the last action.
    pub message: Option<String>,
    /// Rows that the main part has; set by the last drawing.
    pub rows: usize,
    /// Use colours.
    pub has_colour: bool,
}

impl TopState {
    /// The state at the beginning.
    pub fn new(has_colour: bool) -> TopState {
        TopState {
            pane: TopPane::Connections,
            sort: FlowSort::Newest,
            filter_words: String::new(),
            filter: None,
            offset: 0,
            selected: 0,
            is_frozen: false,
            prompt: None,
            message: None,
            rows: 10,
            has_colour,
        }
    }

    /// Takes a filter.
    ///
    /// # Errors
    /// A sentence for the user; the filter of before stays.
    pub fn set_filter(&mut self, words: &str) -> Result<(), String> {
        let words = words.trim();
        self.filter = if words.is_empty() { None } else { Some(FlowSelection::parse(words)?) };
        words.clone_into(&mut self.filter_words);
        (self.offset, self.selected) = (0, 0);
        Ok(())
    }

    /// Shows a pane from its beginning.
    pub(crate) fn show(&mut self, pane: TopPane) {
        self.pane = pane;
        (self.offset, self.selected) = (0, 0);
    }

    /// Moves the selection by rows; at the edge the page follows.
    pub(crate) fn move_by(&mut self, rows: isize, all: usize) {
        let last = all.saturating_sub(1);
        let row = self.offset.saturating_add(self.selected).saturating_add_signed(rows).min(last);
        let page = self.rows.max(1);
        if row < self.offset {
            self.offset = row;
        } else if row >= self.offset + page {
            self.offset = row + 1 - page;
        }
        self.selected = row - self.offset;
    }
}
