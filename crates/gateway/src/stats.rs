//! Everything that a running gateway counts, by name: Linux's counters under Linux's names, and its own.
use super::jobs::JobCtx;
use keepstate_engine::{Counters, Sysctl};
use std::io::{self, Write};

/// Names and numbers, in the order in which they are shown.
pub(super) struct GatewayStats {
    /// What went through the router.
    router: Vec<(&'static str, u64)>,
    /// The counters of `conntrack -S`.
    engine: Counters,
    /// Expectations, and what stands.
    table: Vec<(&'static str, u64)>,
    /// Handshakes answered in servers' names, if there are rules for that, by Linux's names.
    synproxy: Vec<(&'static str, u64)>,
    /// Packets by the reason for which they were refused, ignored or dropped.
    reasons: Vec<(&'static str, u64)>,
}

/// Counts, on the router's thread.
pub(super) fn collect(at: &mut JobCtx<'_>) -> GatewayStats {
    let counters = *at.router.counters();
    let closed = at.router.is_draining();
    let handshakes = *at.router.synproxy_stats();
    let proxies = at.router.program().has_synproxy() || handshakes.syn_received > 0;
    let engine = at.router.engine();
    let linux = *engine.counters();
    GatewayStats {
        router: vec![
            ("received", counters.received),
            ("forwarded", counters.forwarded),
            ("delivered", counters.delivered),
            ("answered", counters.generated),
            ("lost", counters.dropped),
        ],
        engine: linux,
        table: vec![
            ("entries", engine.count() as u64),
            ("nf_conntrack_max", engine.sysctls()[Sysctl::Max].into()),
            ("expect_new", linux.expect_new),
            ("expect_create", linux.expect_create),
            ("expect_delete", linux.expect_delete),
            ("events_lost", engine.events_lost()),
            ("memory", engine.memory_bytes() as u64),
            ("listeners", at.hub.subscribers() as u64),
            ("events_waiting", at.hub.queued() as u64),
            ("draining", closed.into()),
        ],
        synproxy: [
            ("syn_received", handshakes.syn_received),
            ("cookie_invalid", handshakes.cookie_invalid),
            ("cookie_valid", handshakes.cookie_valid),
            ("cookie_retrans", handshakes.cookie_retrans),
        ]
        .into_iter()
        .filter(|_| proxies)
        .collect(),
        reasons: engine
            .reason_counts()
            .map(|(why, count)| (why.name(), count))
            .filter(|(_, count)| *count > 0)
            .collect(),
    }
}

impl GatewayStats {
    /// Lines for people: the router's, `conntrack -S`'s, what stands, and each reason that there was.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        write_row(out, &self.router)?;
        keepstate_conntrack::format::write_stats(out, &self.engine, &Default::default())?;
        write_row(out, &self.table)?;
        if !self.synproxy.is_empty() {
            write_row(out, &self.synproxy)?;
        }
        self.reasons.iter().try_for_each(|(name, count)| writeln!(out, "{name}={count}"))
    }

    /// One object of JSON.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let object = |numbers: &[(&str, u64)]| -> String {
            numbers.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",")
        };
        let linux = keepstate_conntrack::format::counters(&self.engine);
        let flat = [object(&self.router), object(&linux), object(&self.table)].join(",");
        let (handshakes, reasons) = (object(&self.synproxy), object(&self.reasons));
        writeln!(out, "{{{flat},\"synproxy\":{{{handshakes}}},\"reasons\":{{{reasons}}}}}")
    }
}

fn write_row(out: &mut impl Write, numbers: &[(&str, u64)]) -> io::Result<()> {
    let words: Vec<String> = numbers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    writeln!(out, "{}", words.join(" "))
}
