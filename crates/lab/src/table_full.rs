//! The crisis: the table is made small and fills, clients are refused, the doctor says why; it is enlarged while it runs, and they get in.
use super::scenario::Scenario;
use anyhow::{Result, ensure};
use keepstate_advisor::units::Count;
use keepstate_gateway::control_protocol::ControlRequest;
use std::time::Duration;

/// How long the clients of the crisis wait: three of the kernel's first segments.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// When the doctor is asked: some have been refused, and all still try.
const DOCTOR_DELAY: Duration = Duration::from_millis(1500);

/// Clients that come when the table is small.
pub(super) fn extra_clients(clients: u32) -> u32 {
    (clients / 5).clamp(20, 2000)
}

/// Tells it.
pub(super) fn run(play: &mut Scenario<'_>, clients: u32) -> Result<()> {
    let wave = extra_clients(clients);
    let (refused, advice) = fill_table(play, wave)?;
    enlarge_table(play, refused, &advice)
}

/// Gives how many were refused, and what the doctor says is to be typed.
fn fill_table(play: &mut Scenario<'_>, wave: u32) -> Result<(u32, Vec<String>)> {
    play.reporter.section("The table is made small, and fills");
    let left = u64::from(wave / 4);
    let limit = play.topology.router.count()? + left;
    play.reporter.command("gateway", &format!("keepstate control set nf_conntrack_max={limit}"));
    let request = ControlRequest::Set { sysctl: "nf_conntrack_max".into(), value: limit.to_string() };
    play.topology.router.control(request)?;
    play.reporter.text(&format!("{} more clients come, and {} places are free", Count(wave.into()), Count(left)));
    let mut advice = Vec::new();
    let mut meanwhile = |play: &mut Scenario<'_>| {
        advice = run_doctor(play)?;
        Ok(())
    };
    let (tally, _) = play.add_clients(wave, CONNECT_TIMEOUT, Some((DOCTOR_DELAY, &mut meanwhile)))?;
    let told = format!("{} got in, {} were refused", Count(tally.open.into()), Count(tally.refused.into()));
    play.reporter.check(tally.refused > 0 && tally.open + tally.refused == wave, &told);
    if u64::from(tally.open) > left {
        play.reporter.text("(connections that were closing gave way to new ones, as in Linux)");
    }
    play.results.refused = Some(tally.refused);
    Ok((tally.refused, advice))
}

/// What the gateway says and what the doctor says of it; the commands of the remedy.
fn run_doctor(play: &mut Scenario<'_>) -> Result<Vec<String>> {
    let line = play.topology.router.log().into_iter().rev().find(|line| line.contains("table full"));
    play.reporter.check(line.is_some(), "the gateway's log says why:");
    play.reporter.output(&line.unwrap_or_default(), 1);
    let socket = play.topology.router.socket().display().to_string();
    let ran = play.topology.router.run_keepstate(&["doctor", &format!("--gateway={socket}"), "--interval", "1s"])?;
    play.reporter.command("gateway", "keepstate doctor --gateway");
    let page = ran.stdout.replace(&format!("--socket {socket} "), "");
    let told: Vec<&str> = page.lines().take_while(|line| !line.starts_with("   for good")).collect();
    play.reporter.output(&told.join("\n"), usize::MAX);
    let verdict = page.starts_with("CRITICAL the table is full");
    play.reporter.check(verdict, if verdict { "the doctor knows: the table is full" } else { "the doctor's verdict" });
    let typed = told.iter().filter_map(|line| line.trim().strip_prefix("keepstate control "));
    Ok(typed.map(str::to_owned).collect())
}

fn enlarge_table(play: &mut Scenario<'_>, refused: u32, advice: &[String]) -> Result<()> {
    play.check_interrupted()?;
    play.reporter.section("It is enlarged while it runs, as the doctor says, and the clients get in");
    let socket = play.topology.router.socket().display().to_string();
    for command in advice {
        play.reporter.command("gateway", &format!("keepstate control {command}"));
        let words: Vec<&str> = ["control", "--socket", &socket].into_iter().chain(command.split(' ')).collect();
        let ran = play.topology.router.run_keepstate(&words)?;
        ensure!(ran.success, "keepstate control {command}: {}", ran.stderr.trim_end());
    }
    play.reporter.text(&format!("the {} who were refused try again", Count(refused.into())));
    let (tally, _) = play.add_clients(refused, CONNECT_TIMEOUT, None)?;
    let told = format!("{} of {} got in", Count(tally.open.into()), Count(refused.into()));
    play.reporter.check(tally.open == refused && !advice.is_empty(), &told);
    play.results.admitted = Some(tally.open);
    play.ping_all()
}
