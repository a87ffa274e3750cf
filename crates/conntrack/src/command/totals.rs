//! How many there are, and what was counted: `-C`, `-S`.
use super::fault::{Doing, Fault};
use super::grammar::Table as Of;
use super::place::Place;
use super::request::Request;
use super::{is_document, output};
use keepstate_linux::{Root, sysctl};
use std::io::Write;

/// Prints how many connections or expectations there are.
pub(super) fn count(request: &Request) -> Result<(), Fault> {
    let mut table = request.place.table()?;
    let told = |failure| Fault::kernel(Doing::Count, &failure);
    let (count, limit) = match request.table {
        Of::Expectations => (table.expectations(0).map_err(told)?.len() as u64, None),
        _ => {
            match table.count() {
                Ok((count, limit)) => (count.into(), limit),
                Err(failure) => {
                    // Everybody may read the file.
                    if request.place == Place::Kernel
                        && let Ok(Some(count)) = sysctl::number(&Root::live(), "net.netfilter.nf_conntrack_count")
                    {
                        writeln!(output()?, "{count}")?;
                    }
                    return Err(told(failure));
                }
            }
        }
    };
    let mut out = output()?;
    match (is_document(request.output), limit) {
        (false, _) => writeln!(out, "{count}")?,
        (true, None) => writeln!(out, "{{\"count\":{count}}}")?,
        (true, Some(limit)) => writeln!(out, "{{\"count\":{count},\"max\":{limit}}}")?,
    }
    Ok(())
}

/// Prints the counters of each processor.
pub(super) fn statistics(request: &Request) -> Result<(), Fault> {
    let mut table = request.place.table()?;
    let told = |failure| Fault::kernel(Doing::Count, &failure);
    let rows: Vec<(u16, Vec<(&str, u32)>)> = match request.table {
        Of::Expectations => {
            let counted = table.expectation_statistics().map_err(told)?;
            counted.iter().map(|counters| (counters.cpu, counters.named().collect())).collect()
        }
        _ => {
            let counted = table.statistics().map_err(told)?;
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
    Ok(output()?.write_all(text.as_bytes())?)
}
