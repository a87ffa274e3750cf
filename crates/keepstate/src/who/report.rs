//! The answer, as text and as JSON.
use keepstate_flowlog::{LogGap, PortHolder, WhoDoubt, WhoQuestion, protocol_name};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};

/// Somebody, and who says so.
pub(super) struct NamedHolder {
    /// `log`, `gateway`, `deterministic`.
    pub(super) source: &'static str,
    pub(super) holder: PortHolder,
}

/// The whole answer.
pub(super) struct WhoReport {
    question: WhoQuestion,
    pub(super) holders: Vec<NamedHolder>,
    /// Sentences.
    pub(super) uncertain: Vec<String>,
}

impl WhoReport {
    pub(super) fn new(question: WhoQuestion) -> WhoReport {
        WhoReport { question, holders: Vec::new(), uncertain: Vec::new() }
    }

    /// Adds those whom `source` names.
    pub(super) fn add(&mut self, source: &'static str, holders: Vec<PortHolder>) {
        self.holders.extend(holders.into_iter().map(|holder| NamedHolder { source, holder }));
    }

    /// Lines for people.
    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let WhoQuestion { outside, at, .. } = self.question;
        if self.holders.is_empty() {
            writeln!(out, "nobody had {outside} at {at}")?;
        }
        for NamedHolder { source, holder } in &self.holders {
            writeln!(out, "{}", self.holder_text(source, holder))?;
        }
        self.uncertain.iter().try_for_each(|sentence| writeln!(out, "uncertain: {sentence}"))
    }

    fn holder_text(&self, source: &str, holder: &PortHolder) -> String {
        let outside = self.question.outside;
        let mut text =
            holder.inside.map_or_else(|| "an address that is not logged".to_owned(), |inside| inside.to_string());
        // Writing to a String does not fail.
        if let Some(port) = holder.inside_port {
            let _ = write!(text, " port {port}");
        }
        if let Some(protocol) = holder.protocol {
            let _ = write!(text, " ({})", protocol_text(protocol));
        }
        let _ = match holder.block {
            Some((first, last)) => write!(text, " had ports {first}-{last} of {}", outside.address),
            None => write!(text, " had {outside}"),
        };
        if source == "deterministic" {
            return text + ", always";
        }
        match holder.from {
            Some(from) => text += &format!(" from {from}"),
            None => text += " from a time that is not known",
        }
        match (holder.until, source) {
            (Some(until), _) => text += &format!(" until {until}"),
            (None, "gateway") => text += ", and has it still",
            (None, _) => text += "; no end is logged",
        }
        if let Some(peer) = holder.peer {
            let _ = write!(text, ", with {peer}");
        }
        text
    }

    /// One JSON object.
    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let holders: Vec<Value> = self.holders.iter().map(holder_json).collect();
        let WhoQuestion { outside, protocol, at, .. } = self.question;
        let object = json!({
            "address": outside.address,
            "port": outside.port,
            "protocol": protocol.map(protocol_text),
            "at": at.to_string(),
            "holders": holders,
            "uncertain": self.uncertain,
        });
        writeln!(out, "{object}")
    }
}

fn holder_json(named: &NamedHolder) -> Value {
    let NamedHolder { source, holder } = named;
    json!({
        "source": source,
        "inside": holder.inside,
        "inside_port": holder.inside_port,
        "protocol": holder.protocol.map(protocol_text),
        "peer": holder.peer.map(|peer| peer.address),
        "peer_port": holder.peer.map(|peer| peer.port),
        "first_port": holder.block.map(|(first, _)| first),
        "last_port": holder.block.map(|(_, last)| last),
        "from": holder.from.map(|from| from.to_string()),
        "until": holder.until.map(|until| until.to_string()),
    })
}

/// What makes an answer uncertain, as a sentence.
pub(super) fn doubt_text(doubt: &WhoDoubt) -> String {
    match doubt {
        WhoDoubt::NoRecords => "the log has no records".to_owned(),
        WhoDoubt::BeginsLater(first) => format!("the log begins later, at {first}: give the files before it too"),
        WhoDoubt::EndsBefore(last) => format!("the log ends before that time, at {last}"),
        WhoDoubt::BeginsInTheMiddle(first) => format!(
            "the log begins at {first}: a session that began before, and whose end is not in the log, is not known; give the files before it too"
        ),
        WhoDoubt::InGap(gap) => format!("{}, so others may have had it", gap_text(gap)),
        WhoDoubt::GapBefore(gap) => {
            format!("{}: a session that began then, and whose end is not in the log, is not known", gap_text(gap))
        }
        WhoDoubt::EndMayBeLost(gap) => format!("{}: the end may be among them", gap_text(gap)),
        WhoDoubt::BeginUnknown => "the begin is not in the log".to_owned(),
        WhoDoubt::PeersNotLogged => {
            "the log has no peers (peers = false): who talked to this one cannot be told".to_owned()
        }
        WhoDoubt::InsideNotLogged => "the log has no addresses inside (inside = false)".to_owned(),
    }
}

fn gap_text(gap: &LogGap) -> String {
    let count = match gap.lost {
        Some(1) => "1 record is missing".to_owned(),
        Some(lost) => format!("{lost} records are missing"),
        None => "records may be missing (the gateway ended without closing the log)".to_owned(),
    };
    format!("{count} between {} and {}", gap.from, gap.to)
}

/// `tcp`, or the number.
fn protocol_text(number: u8) -> String {
    protocol_name(number).map_or_else(|| number.to_string(), str::to_owned)
}
