//! The number of entries and the counters: `-C`, `-S`.
use super::error::{ConntrackError, Operation};
use super::grammar::Table;
use super::output::stdout_file;
use super::request::ConntrackRequest;
use super::target::Target;
use keepstate_linux::{SysRoot, sysctl};
use serde::{Serialize, Serializer};
use serde_json::json;
use std::io::Write;

/// Prints how many connections or expectations there are.
pub(super) fn print_count(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let mut table = request.target.open_table()?;
    let failed = |failure| ConntrackError::from_kernel(Operation::Count, &failure);
    let (count, limit) = match request.table {
        Table::Expectations => (table.dump_expectations(0).map_err(failed)?.len() as u64, None),
        _ => {
            match table.count() {
                Ok((count, limit)) => (count.into(), limit),
                Err(failure) => {
                    // Without privileges the sysctl can still be read.
                    if request.target == Target::Kernel
                        && let Ok(Some(count)) = sysctl::read_u64(&SysRoot::live(), "net.netfilter.nf_conntrack_count")
                    {
                        writeln!(stdout_file()?, "{count}")?;
                    }
                    return Err(failed(failure));
                }
            }
        }
    };
    let mut out = stdout_file()?;
    match (request.output.is_document(), limit) {
        (false, _) => writeln!(out, "{count}")?,
        (true, None) => writeln!(out, "{}", json!({ "count": count }))?,
        (true, Some(limit)) => writeln!(out, "{}", json!({ "count": count, "max": limit }))?,
    }
    Ok(())
}

/// The counters of one CPU: its number, then each counter by name.
type NamedCounters = (u16, Vec<(&'static str, u32)>);

/// One CPU's object, with the fields in conntrack's order.
struct CpuRow<'a>(&'a NamedCounters);

impl Serialize for CpuRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (cpu, counters) = self.0;
        serializer.collect_map(std::iter::once(("cpu", u32::from(*cpu))).chain(counters.iter().copied()))
    }
}

/// Prints the counters of each CPU.
pub(super) fn print_stats(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let mut table = request.target.open_table()?;
    let failed = |failure| ConntrackError::from_kernel(Operation::Count, &failure);
    let rows: Vec<NamedCounters> = match request.table {
        Table::Expectations => {
            let counted = table.expect_cpu_stats().map_err(failed)?;
            counted.iter().map(|counters| (counters.cpu, counters.named().collect())).collect()
        }
        _ => {
            let counted = table.cpu_stats().map_err(failed)?;
            counted.iter().map(|counters| (counters.cpu, counters.named().collect())).collect()
        }
    };
    let mut text = String::new();
    if request.output.is_document() {
        let objects: Result<Vec<String>, _> = rows.iter().map(|row| serde_json::to_string(&CpuRow(row))).collect();
        text = format!("[\n{}\n]\n", objects.map_err(std::io::Error::from)?.join(",\n"));
    } else {
        for (cpu, counters) in rows {
            let fields: String = counters.iter().map(|(name, value)| format!("{name}={value} ")).collect();
            // The trailing space is conntrack's.
            text.push_str(&format!("cpu={cpu:<4}\t{fields}\n"));
        }
    }
    Ok(stdout_file()?.write_all(text.as_bytes())?)
}
