//! The full table: its limit is lowered, new clients fail, the doctor gives the reason; the limit is raised at run time, and they connect.
use super::scenario::{CONNECT_TIMEOUT, DuringLoad, Scenario};
use anyhow::{Result, ensure};
use keepstate_advisor::units::Count;
use keepstate_gateway::control_protocol::ControlRequest;
use std::time::Duration;

/// Time limit for a session to open while the table is full: two retransmissions of the SYN.
const FULL_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The doctor runs no earlier than this: some sessions have failed to open, and all still try.
const DOCTOR_DELAY: Duration = Duration::from_millis(1500);
/// Line of the gateway's log, in the kernel's words.
const TABLE_FULL: &str = "table full";

/// The number of clients that connect while the table is small.
pub(super) fn extra_clients(clients: u32) -> u32 {
    (clients / 5).clamp(20, 2000)
}

/// Runs this step.
pub(super) fn run(scenario: &mut Scenario<'_>, clients: u32) -> Result<()> {
    let (failed, advice) = fill_table(scenario, extra_clients(clients))?;
    enlarge_table(scenario, failed, &advice)
}

/// Returns how many sessions failed to open, and the commands that the doctor advises.
fn fill_table(scenario: &mut Scenario<'_>, clients: u32) -> Result<(u32, Vec<String>)> {
    scenario.reporter.section("The table limit is lowered, and the table fills up");
    let free = u64::from(clients / 4);
    let limit = scenario.topology.router.count()? + free;
    scenario.reporter.command("gateway", &format!("keepstate control set nf_conntrack_max={limit}"));
    let request = ControlRequest::Set { sysctl: "nf_conntrack_max".into(), value: limit.to_string() };
    scenario.topology.router.control(request)?;
    let (more, room) = (Count(clients.into()), Count(free));
    scenario.reporter.text(&format!("{more} more clients connect; the table has room for {room}"));
    let mut advice = None;
    let is_due =
        |scenario: &Scenario<'_>, elapsed: Duration| elapsed >= DOCTOR_DELAY && table_full_line(scenario).is_some();
    let mut action = |scenario: &mut Scenario<'_>| {
        advice = Some(run_doctor(scenario)?);
        Ok(())
    };
    let during = DuringLoad { is_due: &is_due, action: &mut action };
    let (counts, _) = scenario.add_clients(clients, FULL_CONNECT_TIMEOUT, Some(during))?;
    let text = format!("{} sessions opened, {} failed", Count(counts.open.into()), Count(counts.refused.into()));
    scenario.reporter.check(counts.refused > 0 && counts.open + counts.refused == clients, &text);
    if u64::from(counts.open) > free {
        scenario.reporter.text("(closing connections were removed early for new ones: early_drop, as in Linux)");
    }
    scenario.results.failed = Some(counts.refused);
    let advice = match advice {
        Some(advice) => advice,
        // The log line did not come while clients connected: what is missing shows in these checks.
        None => run_doctor(scenario)?,
    };
    Ok((counts.refused, advice))
}

/// The last line of the gateway's log about a full table.
fn table_full_line(scenario: &Scenario<'_>) -> Option<String> {
    scenario.topology.router.log().into_iter().rev().find(|line| line.contains(TABLE_FULL))
}

/// Shows the gateway's log line and the doctor's report. Returns the commands that the doctor advises.
fn run_doctor(scenario: &mut Scenario<'_>) -> Result<Vec<String>> {
    let line = table_full_line(scenario);
    scenario.reporter.check(line.is_some(), "the gateway's log has the reason:");
    scenario.reporter.output(&line.unwrap_or_default(), 1);
    let router = &scenario.topology.router;
    let socket = router.socket().display().to_string();
    let ran = router.run_keepstate(&["doctor", &format!("--gateway={socket}"), "--interval", "1s"])?;
    scenario.reporter.command("gateway", "keepstate doctor --gateway");
    let report = ran.stdout.replace(&format!("--socket {socket} "), "");
    let shown: Vec<&str> = report.lines().take_while(|line| !line.starts_with("   permanently")).collect();
    scenario.reporter.output(&shown.join("\n"), usize::MAX);
    scenario.reporter.check(report.starts_with("CRITICAL the table is full"), "the doctor reports the full table");
    let commands = shown.iter().filter_map(|line| line.trim().strip_prefix("keepstate control "));
    Ok(commands.map(str::to_owned).collect())
}

fn enlarge_table(scenario: &mut Scenario<'_>, failed: u32, advice: &[String]) -> Result<()> {
    scenario.check_interrupted()?;
    scenario.reporter.section("The limit is raised at run time as the doctor advises, and the clients connect");
    let socket = scenario.topology.router.socket().display().to_string();
    for command in advice {
        scenario.reporter.command("gateway", &format!("keepstate control {command}"));
        let args: Vec<&str> = ["control", "--socket", &socket].into_iter().chain(command.split(' ')).collect();
        let ran = scenario.topology.router.run_keepstate(&args)?;
        ensure!(ran.success, "keepstate control {command}: {}", ran.stderr.trim_end());
    }
    scenario.reporter.text(&format!("the {} clients that failed connect again", Count(failed.into())));
    let (counts, _) = scenario.add_clients(failed, CONNECT_TIMEOUT, None)?;
    let text = format!("{} of {} sessions opened", Count(counts.open.into()), Count(failed.into()));
    scenario.reporter.check(counts.open == failed && !advice.is_empty(), &text);
    scenario.results.opened_later = Some(counts.open);
    scenario.ping_all()
}
