//! Instructions a packet: valgrind's callgrind runs this program and counts inside one function. They are the same on every machine and in every run, where nanoseconds are not.
use crate::table_case::TableCase;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// A table small enough that valgrind is done in seconds.
const CONNECTIONS: u32 = 2048;

/// Instructions of a packet of a known connection, and of the first one of a connection.
pub struct InstructionFigures {
    pub known: f64,
    pub known_single: f64,
    pub new: f64,
    pub new_single: f64,
}

/// Counts all four; `None` without valgrind.
pub fn measure(case: TableCase) -> Result<Option<InstructionFigures>> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("######## SKIPPED: counting instructions needs valgrind");
        return Ok(None);
    }
    let count = |what, single| count(case, what, single);
    Ok(Some(InstructionFigures {
        known: count("known", false)?,
        known_single: count("known", true)?,
        new: count("new", false)?,
        new_single: count("new", true)?,
    }))
}

fn count(case: TableCase, what: &str, single: bool) -> Result<f64> {
    let (connections, packets) = (CONNECTIONS.to_string(), (8 * CONNECTIONS).to_string());
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*counted_packets*")
        .arg(std::env::current_exe()?)
        .args(["table", "--alone", "--sizes", &connections, "--packets", &packets, "--count", what])
        .args(["--cases", case.name()])
        .args(single.then_some("--single"))
        .output()
        .context("cannot run valgrind")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let packets = stdout.lines().find_map(|line| line.strip_prefix("packets ")?.parse::<f64>().ok());
    let collected = stderr.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<f64>().ok());
    match (packets, collected) {
        (Some(packets), Some(collected)) if packets > 0.0 => Ok(collected / packets),
        _ => bail!("unexpected output of valgrind: {stdout}{stderr}"),
    }
}
