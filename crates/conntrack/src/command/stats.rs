//! How many there are, and what was counted: `-C`, `-S`.
use super::error::{ConntrackError, Operation};
use super::grammar::Table as Of;
use super::request::ConntrackRequest;
use super::target::Target;
use super::{is_document, stdout_file};
use keepstate_linux::{SysRoot, sysctl};
use std::io::Write;

/// Prints how many connections or expectations there are.
pub(super) fn print_count(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let mut table = request.target.open_table()?;
    let told = |failure| ConntrackError::from_kernel(Operation::Count, &failure);
    let (count, limit) = match request.table {
        Of::Expectations => (table.dump_expectations(0).map_err(told)?.len() as u64, None),
        _ => {
            match table.count() {
                Ok((count, limit)) => (count.into(), limit),
                Err(failure) => {
                    // Everybody may read the file.
                    if request.target == Target::Kernel
                        && let Ok(Some(count)) = sysctl::read_u64(&SysRoot::live(), "net.netfilter.nf_conntrack_count")
                    {
                        writeln!(stdout_file()?, "{count}")?;
                    }
                    return Err(told(failure));
                }
            }
        }
    };
    let mut out = stdout_file()?;
    match (is_document(request.output), limit) {
        (false, _) => writeln!(out, "{count}")?,
        (true, None) => writeln!(out, "{{\"count\":{count}}}")?,
        (true, Some(limit)) => writeln!(out, "{{\"count\":{count},\"max\":{limit}}}")?,
    }
    Ok(())
}

/// Prints the counters of each processor.
pub(super) fn print_stats(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let mut table = request.target.open_table()?;
    let told = |failure| ConntrackError::from_kernel(Operation::Count, &failure);
    let rows: Vec<(u16, Vec<(&str, u32)>)> = match request.table {
        Of::Expectations => {
            let counted = table.expect_cpu_stats().map_err(told)?;
            counted.iter().map(|counters| (counters.cpu, counters.named().collect())).collect()
        }
        _ => {
            let counted = table.cpu_stats().map_err(told)?;
            counted.iter().map(|counters| (counters.cpu, counters.named().collect())).collect()
        }
    };
    let mut text = String::new();
    if is_document(request.output) {
        let objects: Vec<String> = rows
            .iter()
            .map(|(cpu, counters)| {
                let fields: String = counters.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
                format!("{{\"cpu\":{cpu}{fields}}}")
            })
            .collect();
        text = format!("[\n{}\n]\n", objects.join(",\n"));
    } else {
        for (cpu, counters) in rows {
            let fields: String = counters.iter().map(|(name, value)| format!("{name}={value} ")).collect();
            // The blanks at the end are conntrack's.
            text.push_str(&format!("cpu={cpu:<4}\t{fields}\n"));
        }
    }
    Ok(stdout_file()?.write_all(text.as_bytes())?)
}
