//! The crisis: the table is made small and fills, clients are refused, the doctor says why; it is enlarged while it runs, and they get in.
use super::story::Play;
use anyhow::Result;
use keepstate_advisor::quantity::Count;
use std::time::Duration;

/// How long the clients of the crisis wait: three of the kernel's first segments.
const PATIENCE: Duration = Duration::from_secs(5);
/// When the doctor is asked: some have been refused, and all still try.
const DOCTOR: Duration = Duration::from_millis(1500);

/// Clients that come when the table is small.
pub(super) fn wave(clients: u32) -> u32 {
    (clients / 5).clamp(20, 2000)
}

/// Tells it.
pub(super) fn tell(play: &mut Play<'_>, clients: u32) -> Result<()> {
    let wave = wave(clients);
    let (refused, advice) = fills(play, wave)?;
    enlarged(play, refused, &advice)
}

/// Gives how many were refused, and what the doctor says is to be typed.
fn fills(play: &mut Play<'_>, wave: u32) -> Result<(u32, Vec<String>)> {
    play.teller.chapter("The table is made small, and fills");
    let left = u64::from(wave / 4);
    let limit = play.stage.router.count()? + left;
    play.teller.typed("gateway", &format!("keepstate control set nf_conntrack_max={limit}"));
    play.stage.router.ask(&["set", &format!("nf_conntrack_max={limit}")])?;
    play.teller.say(&format!("{} more clients come, and {} places are free", Count(wave.into()), Count(left)));
    let mut advice = Vec::new();
    let mut meanwhile = |play: &mut Play<'_>| {
        advice = doctor(play)?;
        Ok(())
    };
    let (tally, _) = play.come(wave, PATIENCE, Some((DOCTOR, &mut meanwhile)))?;
    let told = format!("{} got in, {} were refused", Count(tally.open.into()), Count(tally.refused.into()));
    play.teller.check(tally.refused > 0 && tally.open + tally.refused == wave, &told);
    if u64::from(tally.open) > left {
        play.teller.say("(connections that were closing gave way to new ones, as in Linux)");
    }
    play.account.refused = Some(tally.refused);
    Ok((tally.refused, advice))
}

/// What the gateway says and what the doctor says of it; the commands of the remedy.
fn doctor(play: &mut Play<'_>) -> Result<Vec<String>> {
    let line = play.stage.router.said().into_iter().rev().find(|line| line.contains("table full"));
    play.teller.check(line.is_some(), "the gateway's log says why:");
    play.teller.show(&line.unwrap_or_default(), 1);
    let socket = play.stage.router.socket().display().to_string();
    let ran = play.stage.router.run(&["doctor", &format!("--gateway={socket}"), "--interval", "1s"])?;
    play.teller.typed("gateway", "keepstate doctor --gateway");
    let page = ran.out.replace(&format!("--socket {socket} "), "");
    let told: Vec<&str> = page.lines().take_while(|line| !line.starts_with("   for good")).collect();
    play.teller.show(&told.join("\n"), usize::MAX);
    let verdict = page.starts_with("CRITICAL the table is full");
    play.teller.check(verdict, if verdict { "the doctor knows: the table is full" } else { "the doctor's verdict" });
    let typed = told.iter().filter_map(|line| line.trim().strip_prefix("keepstate control "));
    Ok(typed.map(str::to_owned).collect())
}

fn enlarged(play: &mut Play<'_>, refused: u32, advice: &[String]) -> Result<()> {
    play.go_on()?;
    play.teller.chapter("It is enlarged while it runs, as the doctor says, and the clients get in");
    for command in advice {
        play.teller.typed("gateway", &format!("keepstate control {command}"));
        play.stage.router.ask(&command.split(' ').collect::<Vec<_>>())?;
    }
    play.teller.say(&format!("the {} who were refused try again", Count(refused.into())));
    let (tally, _) = play.come(refused, PATIENCE, None)?;
    let told = format!("{} of {} got in", Count(tally.open.into()), Count(refused.into()));
    play.teller.check(tally.open == refused && !advice.is_empty(), &told);
    play.account.got_in = Some(tally.open);
    play.everybody_answers()
}
