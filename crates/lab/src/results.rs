//! What a story has measured, and the table of it at the end: one column a router.
use super::router::RouterKind;
use comfy_table::{CellAlignment, Table, presets};
use keepstate_advisor::units::Count;

/// Of one story; what was not measured is absent.
#[derive(Clone, Debug)]
pub(super) struct LabResults {
    pub(super) kind: RouterKind,
    pub(super) passed: bool,
    /// Bits a second.
    pub(super) throughput: Option<f64>,
    pub(super) balanced: Option<[u32; 2]>,
    pub(super) sessions: u32,
    /// Sessions opened a second.
    pub(super) rate: Option<f64>,
    pub(super) refused: Option<u32>,
    pub(super) admitted: Option<u32>,
    pub(super) lost: Option<u32>,
}

impl LabResults {
    /// Of a story that is yet to be told.
    pub(super) fn new(kind: RouterKind) -> LabResults {
        LabResults {
            kind,
            passed: false,
            throughput: None,
            balanced: None,
            sessions: 0,
            rate: None,
            refused: None,
            admitted: None,
            lost: None,
        }
    }

    fn rows(&self) -> [String; 8] {
        let count = |number: Option<u32>| number.map_or_else(dash, |number| Count(number.into()).to_string());
        let limit = match self.kind {
            RouterKind::Keepstate => "its own",
            RouterKind::Linux => "one for all namespaces",
        };
        [
            self.throughput.map_or_else(dash, |bits| format!("{:.2} Gbit/s", bits / 1e9)),
            self.balanced.map_or_else(dash, |[one, other]| format!("{one} : {other}")),
            Count(self.sessions.into()).to_string(),
            self.rate.map_or_else(dash, |rate| Count(rate as u64).to_string()),
            limit.to_owned(),
            count(self.refused),
            count(self.admitted),
            count(self.lost),
        ]
    }
}

const ROW_NAMES: [&str; 8] = [
    "one transfer",
    "balanced over two servers",
    "MQTT sessions held",
    "opened a second",
    "the table's limit",
    "refused when it was full",
    "let in when it was enlarged",
    "sessions lost",
];

fn dash() -> String {
    "-".to_owned()
}

/// The table, a line each.
pub(super) fn render_table(accounts: &[LabResults]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let columns: Vec<[String; 8]> = accounts.iter().map(LabResults::rows).collect();
    let head = std::iter::once("measured".to_owned()).chain(accounts.iter().map(|one| one.kind.name().to_owned()));
    table.set_header(head.collect::<Vec<String>>());
    for (at, name) in ROW_NAMES.iter().enumerate() {
        let cells = columns.iter().filter_map(|column| column.get(at).cloned());
        table.add_row(std::iter::once((*name).to_owned()).chain(cells).collect::<Vec<String>>());
    }
    for column in 1..=accounts.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmeasured_values_show_a_dash() {
        let ours = LabResults {
            throughput: Some(3.25e9),
            sessions: 12_000,
            refused: Some(0),
            ..LabResults::new(RouterKind::Keepstate)
        };
        let text = render_table(&[ours, LabResults::new(RouterKind::Linux)]);
        let row = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
        assert!(row("one transfer").contains("3.25 Gbit/s") && row("one transfer").ends_with('-'), "{text}");
        assert!(row("refused").contains(" 0 "), "{text}");
        assert!(row("held").contains("12,000"), "{text}");
    }
}
