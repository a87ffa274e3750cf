//! Measurements of a run, and the table of them at the end: one column for each router.
use super::router::RouterKind;
use comfy_table::{CellAlignment, Table, presets};
use keepstate_advisor::units::Count;

/// The measurements of one run; `None` was not measured.
#[derive(Clone, Debug)]
pub(super) struct LabResults {
    pub(super) kind: RouterKind,
    pub(super) passed: bool,
    /// Bits per second.
    pub(super) throughput: Option<f64>,
    pub(super) balanced: Option<[u32; 2]>,
    pub(super) sessions: u32,
    /// Sessions opened per second.
    pub(super) rate: Option<f64>,
    pub(super) failed: Option<u32>,
    pub(super) opened_later: Option<u32>,
    pub(super) lost: Option<u32>,
}

impl LabResults {
    /// Before the run.
    pub(super) fn new(kind: RouterKind) -> LabResults {
        LabResults {
            kind,
            passed: false,
            throughput: None,
            balanced: None,
            sessions: 0,
            rate: None,
            failed: None,
            opened_later: None,
            lost: None,
        }
    }

    fn rows(&self) -> [String; 8] {
        let count = |number: Option<u32>| number.map_or_else(dash, |number| Count(number.into()).to_string());
        let limit = match self.kind {
            RouterKind::Keepstate => "per gateway",
            RouterKind::Linux => "global",
        };
        [
            self.throughput.map_or_else(dash, |bits| format!("{:.2} Gbit/s", bits / 1e9)),
            self.balanced.map_or_else(dash, |[one, other]| format!("{one} : {other}")),
            Count(self.sessions.into()).to_string(),
            self.rate.map_or_else(dash, |rate| Count(rate as u64).to_string()),
            limit.to_owned(),
            count(self.failed),
            count(self.opened_later),
            count(self.lost),
        ]
    }
}

const ROW_NAMES: [&str; 8] = [
    "TCP throughput, one connection",
    "balanced over two servers",
    "MQTT sessions held",
    "MQTT sessions opened per second",
    "table limit",
    "failed while the table was full",
    "opened after the limit was raised",
    "sessions lost",
];

fn dash() -> String {
    "-".to_owned()
}

/// The table as text.
pub(super) fn render_table(results: &[LabResults]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let columns: Vec<[String; 8]> = results.iter().map(LabResults::rows).collect();
    let header = std::iter::once("measured".to_owned()).chain(results.iter().map(|one| one.kind.name().to_owned()));
    table.set_header(header.collect::<Vec<String>>());
    for (at, name) in ROW_NAMES.iter().enumerate() {
        let cells = columns.iter().filter_map(|column| column.get(at).cloned());
        table.add_row(std::iter::once((*name).to_owned()).chain(cells).collect::<Vec<String>>());
    }
    as_text(table)
}

/// A table of names and numbers as text: the numbers end at the same place.
pub(super) fn as_text(mut table: Table) -> String {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
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
            failed: Some(0),
            ..LabResults::new(RouterKind::Keepstate)
        };
        let text = render_table(&[ours, LabResults::new(RouterKind::Linux)]);
        let row = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
        assert!(row("throughput").contains("3.25 Gbit/s") && row("throughput").ends_with('-'), "{text}");
        assert!(row("failed").contains(" 0 "), "{text}");
        assert!(row("held").contains("12,000"), "{text}");
    }
}
