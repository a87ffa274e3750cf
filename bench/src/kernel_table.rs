//! Linux's conntrack table under the same load: see `scripts/kernel-table`.
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Nanoseconds per lookup, and per insert.
#[derive(Clone, Copy, Debug)]
pub struct KernelFigures {
    pub lookup: f64,
    pub insert: f64,
}

/// Runs one measurement. `Ok(None)` if that is not possible here; the reason is printed on stderr.
pub fn measure(connections: u32) -> Result<Option<KernelFigures>> {
    let output = Command::new("bash")
        .arg("scripts/kernel-table")
        .arg(connections.to_string())
        .output()
        .context("cannot run bash")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => (),
        Some(3) => {
            eprintln!("######## SKIPPED: measuring Linux: {}", stderr.trim());
            return Ok(None);
        }
        _ => bail!("scripts/kernel-table {connections} failed: {}", stderr.trim()),
    }
    let figures = |name: &str| -> Vec<f64> {
        let values = stdout.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (lookups, inserts) = (figures("lookup_ns"), figures("insert_ns"));
    match (lookups.get(lookups.len() / 2), inserts.first()) {
        (Some(lookup), Some(insert)) => Ok(Some(KernelFigures { lookup: *lookup, insert: *insert })),
        _ => bail!("unexpected output of scripts/kernel-table: {stdout}"),
    }
}
