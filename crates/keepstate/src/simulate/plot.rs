//! A plot of the number of entries over time, in characters.
use keepstate_advisor::simulate::Timeseries;
use keepstate_advisor::simulate::summary::format_milliseconds;
use keepstate_advisor::units::Count;

/// Rows of the plot, without its axis.
const ROWS: u64 = 12;
/// A column is drawn from the bottom in eighths of a row.
const EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// The lines of a plot `width` characters wide; the limit is a horizontal line if it is in range.
pub fn lines(record: &Timeseries, width: usize) -> Vec<String> {
    let peak = record.peak.0.max(1);
    let limit = record.limit();
    // A limit far above the peak would leave the plot empty.
    let with_limit = limit > 0 && limit <= peak.saturating_mul(2);
    let top = if with_limit { limit.max(peak) } else { peak };
    let label = Count(top).to_string().len().max(4);
    let columns = width.saturating_sub(label + 4).clamp(10, 200);
    let heights = column_peaks(record, columns);
    let eighths = |count: u64| u64::try_from(u128::from(count) * u128::from(ROWS * 8) / u128::from(top)).unwrap_or(0);
    let limit_row = with_limit.then(|| eighths(limit).saturating_sub(1) / 8);
    let mut lines = Vec::new();
    for row in (0..ROWS).rev() {
        let number = match row {
            _ if row == ROWS - 1 => Count(top).to_string(),
            _ if row == ROWS / 2 => Count(top / 2).to_string(),
            _ => String::new(),
        };
        let mut line = format!("{number:>label$} ┤");
        for count in &heights {
            let filled = eighths(*count).saturating_sub(row * 8).min(8);
            let blank = if limit_row == Some(row) { "╌" } else { " " };
            let shown = usize::try_from(filled).ok().and_then(|filled| EIGHTHS.get(filled)).copied();
            line.push_str(if filled == 0 { blank } else { shown.unwrap_or(blank) });
        }
        if limit_row == Some(row) {
            line.push_str(" max");
            if line.chars().count() > width {
                line = line.trim_end_matches(" max").to_owned();
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.push(format!("{:>label$} └{}", 0, "─".repeat(heights.len())));
    let end = format_milliseconds(record.samples.last().map_or(0, |last| last.at));
    let space = heights.len().saturating_sub(end.chars().count() + 1);
    lines.push(format!("{:>label$}  0{:>space$}{end}", "", ""));
    lines
}

/// The most connections in each column's share of the samples; a column that has none is as the one before it.
fn column_peaks(record: &Timeseries, columns: usize) -> Vec<u64> {
    let samples = &record.samples;
    let columns = columns.min(samples.len().max(1));
    let share = |column: usize| {
        let (begin, end) = (column * samples.len() / columns, (column + 1) * samples.len() / columns);
        samples.get(begin..end).unwrap_or_default().iter().map(|sample| sample.connections).max().unwrap_or(0)
    };
    (0..columns).map(share).collect()
}
