//! What a command line did, and how it is compared: what really differs from run to run is passed over, and nothing else.
use std::fmt::Write as _;

/// What is left of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub out: String,
    pub err: String,
    pub code: String,
    /// What was in the table afterwards.
    pub table: String,
    pub expected: String,
    /// Events come in their order; a listing's order is the hash's.
    pub ordered: bool,
    /// How long the case took, from its set-up on: timeouts have run down by up to that.
    pub seconds: u64,
}

impl Outcome {
    /// What differs from `ours`, as lines that only one of them has.
    pub fn diff(&self, ours: &Outcome) -> Option<String> {
        let mut report = String::new();
        if self.code != ours.code {
            let _ = writeln!(report, "exit code\n  - {}\n  + {}", self.code, ours.code);
        }
        let parts = [
            ("standard output", &self.out, &ours.out, self.ordered),
            ("standard error", &self.err, &ours.err, true),
            ("the table afterwards", &self.table, &ours.table, false),
            ("expectations afterwards", &self.expected, &ours.expected, false),
        ];
        let slack = SLACK.max(self.seconds.max(ours.seconds) + 1);
        for (name, debian, ours, ordered) in parts {
            report_part(&mut report, name, &normalize_lines(debian, ordered), &normalize_lines(ours, ordered), slack);
        }
        (!report.is_empty()).then_some(report)
    }
}

impl Outcome {
    /// Whether the tables are as they were.
    pub fn tables_unchanged(&self, table: &str, expected: &str) -> bool {
        let same = |one: &str, other: &str| {
            let (one, other) = (normalize_lines(one, false), normalize_lines(other, false));
            one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| one.matches_within(other, SLACK))
        };
        same(&self.table, table) && same(&self.expected, expected)
    }
}

/// Seconds that timeouts of two quick runs of one set-up may differ by; in a run that took longer, by as long as it took.
const SLACK: u64 = 2;

/// A line without what is never the same twice, and the seconds that it told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NormalizedLine {
    shape: String,
    seconds: Vec<u64>,
}

impl NormalizedLine {
    fn matches_within(&self, other: &NormalizedLine, slack: u64) -> bool {
        let near = |(one, other): (&u64, &u64)| one.abs_diff(*other) <= slack;
        self.same_text(other) && self.seconds.iter().zip(&other.seconds).all(near)
    }

    /// Is it the same? Ours may go on where Debian's ends, behind a colon: with why, or with what to do.
    fn same_text(&self, ours: &NormalizedLine) -> bool {
        let goes_on = |more: &str| self.shape.starts_with("conntrack v") && more.starts_with(':');
        self.shape == ours.shape || ours.shape.strip_prefix(&self.shape).is_some_and(goes_on)
    }

    fn render(&self) -> String {
        let seconds: Vec<String> = self.seconds.iter().map(u64::to_string).collect();
        if seconds.is_empty() { self.shape.clone() } else { format!("{} ({})", self.shape, seconds.join(" ")) }
    }
}

/// Lines ready to be compared. Entries of a listing are put in order, what frames them stays where it is.
fn normalize_lines(text: &str, ordered: bool) -> Vec<NormalizedLine> {
    let mut lines: Vec<NormalizedLine> = text.split('\n').map(normalize_line).collect();
    if !ordered {
        lines.chunk_by_mut(|one, other| is_entry(one) && is_entry(other)).for_each(<[NormalizedLine]>::sort);
    }
    lines
}

fn is_entry(line: &NormalizedLine) -> bool {
    !["<?xml", "<conntrack", "<expect>", "</"].iter().any(|frame| line.shape.starts_with(frame))
        && !line.shape.is_empty()
}

fn normalize_line(text: &str) -> NormalizedLine {
    let mut seconds = Vec::new();
    let mut shape = text.to_owned();
    for program in [concat!("conntrack v1.4.7 (keepstate ", env!("CARGO_PKG_VERSION"), ")")] {
        if let Some(rest) = shape.strip_prefix(program) {
            shape = format!("conntrack v1.4.7 (conntrack-tools){rest}");
        }
    }
    if shape.starts_with("cpu=") {
        // What a processor counted since the namespace began; its format is what is compared.
        shape = shape
            .split_inclusive('=')
            .map(|part| part.trim_start_matches(|letter: char| letter.is_ascii_digit()))
            .collect();
    }
    strip_entry_id(&mut shape);
    // The name of the process that made an event is there only if it has not ended yet.
    if let Some((before, after)) = shape.split_once(" progname=") {
        shape = format!("{before}{}", after.find(' ').map_or("", |end| &after[end..]));
    }
    for (before, after) in [("<id>", "</id>"), ("portid=", ""), ("<portid>", "</portid>")] {
        strip_number(&mut shape, before, after);
    }
    strip_clock(&mut shape);
    strip_saved_additions(&mut shape);
    for (before, after) in
        [("<timeout>", "</timeout>"), ("-t ", " "), ("delta-time=", ""), ("<deltatime>", "</deltatime>")]
    {
        seconds.extend(strip_number(&mut shape, before, after));
    }
    seconds.extend(strip_timeout(&mut shape));
    NormalizedLine { shape, seconds }
}

/// The id of the entry. ICMP's tuples have an id too, right behind the code, and that is compared.
fn strip_entry_id(shape: &mut String) {
    let mut from = shape.len();
    while let Some(at) = shape[..from].rfind(" id=") {
        let word = shape[..at].rsplit(' ').next().unwrap_or_default();
        if !word.starts_with("code=") {
            let mut end = shape.split_off(at);
            strip_number(&mut end, " id=", "");
            return shape.push_str(&end);
        }
        from = at;
    }
}

/// What ours adds to a saved line, which Debian's has not: the mark, and what stands behind `# keepstate`. `saved_entries.rs` tests that.
fn strip_saved_additions(shape: &mut String) {
    if !["-A -t ", "-U -t "].iter().any(|command| shape.starts_with(command)) {
        return;
    }
    if let Some(at) = shape.find(" # keepstate ") {
        shape.truncate(at);
    }
    if let Some((before, rest)) = shape.split_once(" -m ") {
        let after = rest.find(' ').map_or("", |end| &rest[end..]);
        *shape = format!("{before}{after}");
    }
}

/// Takes the number between two texts out of a line.
fn strip_number(shape: &mut String, before: &str, after: &str) -> Option<u64> {
    let start = shape.find(before)? + before.len();
    let rest = &shape[start..];
    let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    if digits == 0 || !rest[digits..].starts_with(after) {
        return None;
    }
    let value = rest[..digits].parse().ok();
    shape.replace_range(start..start + digits, "N");
    value
}

/// Moments: `[1700000000.123456]` at the beginning, `[start=…]`, `[stop=…]`, and their elements.
fn strip_clock(shape: &mut String) {
    let moment = |text: &str| {
        text.contains('.') && text.chars().all(|letter| letter.is_ascii_digit() || letter == '.' || letter == ' ')
    };
    if let Some((_, rest)) =
        shape.strip_prefix('[').and_then(|rest| rest.split_once(']')).filter(|(inside, _)| moment(inside))
    {
        // Debian's puts the blanks of a short number of microseconds behind it instead of zeros before it.
        *shape = format!("[N.N]{rest}");
    }
    for (before, after) in [("[start=", "]"), ("[stop=", "]"), ("<start>", "</start>"), ("<stop>", "</stop>")] {
        if let Some(start) = shape.find(before).map(|at| at + before.len())
            && let Some(length) = shape[start..].find(after)
        {
            shape.replace_range(start..start + length, "T");
        }
    }
    for element in ["hour", "min", "sec", "wday", "day", "month", "year"] {
        strip_number(shape, &format!("<{element}>"), &format!("</{element}>"));
    }
}

/// The third word of a line like `tcp 6 119 …` (after the event's name and the family, if they are there), or the first of an expectation's.
fn strip_timeout(shape: &mut String) -> Option<u64> {
    let words: Vec<(usize, &str)> =
        shape.split_ascii_whitespace().map(|word| (word.as_ptr() as usize - shape.as_ptr() as usize, word)).collect();
    let number = |at: usize| words.get(at).is_some_and(|(_, word)| word.bytes().all(|byte| byte.is_ascii_digit()));
    let first = words.iter().position(|(_, word)| !word.starts_with('['))?;
    let first = if words[first].1.starts_with("ipv") && number(first + 1) { first + 2 } else { first };
    let at = if number(first) && words.get(first + 1).is_some_and(|(_, word)| word.starts_with("proto=")) {
        first
    } else if !number(first) && number(first + 1) && number(first + 2) {
        first + 2
    } else {
        return None;
    };
    let (start, word) = words[at];
    let (length, value) = (word.len(), word.parse().ok());
    shape.replace_range(start..start + length, "T");
    value
}

/// Lines that one has and the other has not, in order.
fn report_part(report: &mut String, name: &str, debian: &[NormalizedLine], ours: &[NormalizedLine], slack: u64) {
    if debian.len() == ours.len() && debian.iter().zip(ours).all(|(one, other)| one.matches_within(other, slack)) {
        return;
    }
    let _ = writeln!(report, "{name}");
    let same = debian.iter().zip(ours).take_while(|(one, other)| one.matches_within(other, slack)).count();
    let (debian, ours) = (&debian[same..], &ours[same..]);
    let end =
        debian.iter().rev().zip(ours.iter().rev()).take_while(|(one, other)| one.matches_within(other, slack)).count();
    for (mark, lines) in [('-', &debian[..debian.len() - end]), ('+', &ours[..ours.len() - end])] {
        for line in lines.iter().take(MAX_REPORTED_LINES) {
            let _ = writeln!(report, "  {mark} {}", line.render());
        }
        if lines.len() > MAX_REPORTED_LINES {
            let _ = writeln!(report, "  {mark} … and {} more", lines.len() - MAX_REPORTED_LINES);
        }
    }
}

/// Lines of one side shown at most.
const MAX_REPORTED_LINES: usize = 12;
