//! Both ends of the MQTT sessions, and clients that come and go: processes of `keepstate mqtt`, so many that none needs more than some thousand open files, which every machine allows.
use super::site::{ADDRESSES, ClusterSite, client_addr, server_addr};
use crate::line_process::LineProcess;
use crate::mqtt::{ChurnCounts, GIVE_UP};
use anyhow::{Context, Result, ensure};
use std::str::FromStr;
use std::time::Duration;

/// Open files of a process, at most, but for a few: of either end.
const MAX_FILES: u32 = 3_000;
/// The servers' first port. Each process has an address and port of its own.
const FIRST_PORT: u16 = 1883;
/// The server of clients that come and go.
const CHURN_PORT: u16 = 1882;
/// The limit of a session to open, in seconds.
const OPEN_SECS: u64 = 60;
/// The limit of an answer: sessions that were lost may have to open first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(OPEN_SECS + 30);
/// Sessions ping so often, in milliseconds; on a busy machine with many sessions less often.
const PING_INTERVAL_MS: u32 = 500;
/// Sessions that one interval carries.
const SESSIONS_PER_INTERVAL: u32 = 2_000;

/// The processes; clients end before servers.
#[derive(Debug)]
pub(super) struct MqttProcesses {
    sessions: Vec<LineProcess>,
    churn: Vec<LineProcess>,
    _servers: Vec<LineProcess>,
}

/// What the sessions saw since they were last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionView {
    /// Those that went on.
    pub(super) open: usize,
    /// Those that ended, and have reconnected since.
    pub(super) lost: usize,
    /// The longest wait of each for an answer, sorted.
    pub(super) silences: Vec<Duration>,
}

/// What became of connections that come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChurnView {
    pub(super) counts: ChurnCounts,
    /// Begun and not decided.
    pub(super) pending: u32,
}

/// `count` in so many shares that none is above `most`; one at least.
fn shares(count: u32, most: u32) -> Vec<u32> {
    let parts = count.div_ceil(most.max(1)).max(1);
    (0..parts).map(|part| count / parts + u32::from(part < count % parts)).collect()
}

/// A share's server: addresses in turns, then the next port.
fn server_of(share: usize) -> String {
    let addresses = usize::from(ADDRESSES);
    let port = FIRST_PORT.saturating_add(u16::try_from(share / addresses).unwrap_or(u16::MAX));
    format!("{}:{port}", server_addr(u8::try_from(share % addresses).unwrap_or(0)))
}

impl MqttProcesses {
    /// Starts servers, opens all sessions, and then begins `rate` connections a second.
    pub(super) fn start(site: &ClusterSite, sessions: u32, rate: u32) -> Result<MqttProcesses> {
        let shares_of_sessions = shares(sessions, MAX_FILES);
        let churn_server = format!("{}:{CHURN_PORT}", server_addr(0));
        let addresses = (0..shares_of_sessions.len()).map(server_of).chain([churn_server.clone()]);
        let mut servers = Vec::new();
        for address in addresses {
            servers.push(LineProcess::spawn_mqtt(&site.servers, &["accept".to_owned(), address])?);
        }
        for server in &mut servers {
            let line = server.recv_line(ANSWER_TIMEOUT)?;
            ensure!(line == "listening", "an MQTT server does not listen: it says {line:?}");
        }
        let interval = PING_INTERVAL_MS * sessions.div_ceil(SESSIONS_PER_INTERVAL).max(1);
        let mut processes = MqttProcesses { sessions: Vec::new(), churn: Vec::new(), _servers: servers };
        for (at, share) in shares_of_sessions.iter().enumerate() {
            let from = client_addr(u8::try_from(at % usize::from(ADDRESSES)).unwrap_or(0));
            let words = format!(
                "fleet --to {} --from {from} --sessions {share} --patience {OPEN_SECS} --interval {interval}ms",
                server_of(at)
            );
            processes.sessions.push(spawn_client(site, &words)?);
        }
        let mut open = 0;
        for process in &mut processes.sessions {
            let line = process.recv_line(ANSWER_TIMEOUT)?;
            open += number::<u32>(&line, "open")?;
        }
        ensure!(open == sessions, "only {open} of {sessions} sessions have opened");
        let sources: Vec<String> = (0..ADDRESSES).map(|number| client_addr(number).to_string()).collect();
        // While nobody may create one, each waits as long as a client does.
        let most = MAX_FILES / u32::try_from(GIVE_UP.as_secs()).unwrap_or(u32::MAX);
        for share in shares(rate, most) {
            let words = format!("churn --to {churn_server} --from {} --rate {share}", sources.join(","));
            processes.churn.push(spawn_client(site, &words)?);
        }
        Ok(processes)
    }

    /// How many sessions have waited for an answer for longer than this?
    pub(super) fn waiting(&mut self, time: Duration) -> Result<usize> {
        let lines = ask(&mut self.sessions, &format!("waiting {}", time.as_millis()))?;
        lines.iter().map(|line| number::<usize>(line, "waiting")).sum()
    }

    /// What the sessions saw since this was last called; those that were lost reconnect.
    pub(super) fn take_sessions(&mut self) -> Result<SessionView> {
        let mut all = SessionView::default();
        for line in ask(&mut self.sessions, "take")? {
            add_sessions(&mut all, &line)?;
        }
        all.silences.sort_unstable();
        Ok(all)
    }

    /// What was decided since this was last called.
    pub(super) fn take_churn(&mut self) -> Result<ChurnView> {
        let mut all = ChurnView::default();
        for line in ask(&mut self.churn, "take")? {
            all.counts.prompt += number::<u32>(&line, "prompt")?;
            all.counts.late += number::<u32>(&line, "late")?;
            all.counts.failed += number::<u32>(&line, "failed")?;
            all.pending += number::<u32>(&line, "pending")?;
        }
        Ok(all)
    }

    /// No connection is begun until [`MqttProcesses::resume_churn`].
    pub(super) fn pause_churn(&mut self) -> Result<()> {
        ask(&mut self.churn, "rate 0").map(drop)
    }

    /// So many connections are begun a second.
    pub(super) fn resume_churn(&mut self, rate: u32) -> Result<()> {
        let count = u32::try_from(self.churn.len()).unwrap_or(u32::MAX).max(1);
        for (process, share) in self.churn.iter_mut().zip(shares(rate, rate.div_ceil(count))) {
            process.send_line(&format!("rate {share}"))?;
            process.recv_line(ANSWER_TIMEOUT)?;
        }
        Ok(())
    }
}

fn spawn_client(site: &ClusterSite, words: &str) -> Result<LineProcess> {
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    LineProcess::spawn_mqtt(&site.clients, &words)
}

/// Each one's answer; they work on it at the same time.
fn ask(processes: &mut [LineProcess], request: &str) -> Result<Vec<String>> {
    processes.iter_mut().try_for_each(|process| process.send_line(request))?;
    processes.iter_mut().map(|process| process.recv_line(ANSWER_TIMEOUT)).collect()
}

/// The value of a name in `open=3 lost=0`.
fn value<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.with_context(|| format!("unexpected report of a process: {line:?}"))
}

fn number<T: FromStr>(line: &str, name: &str) -> Result<T> {
    value(line, name)?.parse().ok().with_context(|| format!("unexpected report of a process: {line:?}"))
}

/// `open=3 lost=0 waits=0,12,3`
fn add_sessions(all: &mut SessionView, line: &str) -> Result<()> {
    all.open += number::<usize>(line, "open")?;
    all.lost += number::<usize>(line, "lost")?;
    for wait in value(line, "waits")?.split(',').filter(|wait| !wait.is_empty()) {
        let millis = wait.parse().with_context(|| format!("unexpected report of a process: {wait:?} in {line:?}"))?;
        all.silences.push(Duration::from_millis(millis));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn no_process_gets_more_than_its_share_and_each_has_a_server_of_its_own() {
        assert_eq!((shares(20_000, 3_000).len(), shares(20_000, 3_000).iter().sum::<u32>()), (7, 20_000));
        for (count, most) in [(0, 150), (1, 1), (150, 150), (151, 150), (40_000, 3_000), (5_000, 150)] {
            let shares = shares(count, most);
            assert_eq!(shares.iter().sum::<u32>(), count);
            assert!(!shares.is_empty() && shares.iter().all(|share| *share <= most), "{shares:?}");
        }
        let servers: std::collections::BTreeSet<String> = (0..14).map(server_of).collect();
        assert_eq!(servers.len(), 14);
        assert_eq!((server_of(0), server_of(5)), ("192.0.2.11:1883".into(), "192.0.2.12:1884".into()));
        assert_eq!(shares(500, 500_u32.div_ceil(4)), [125; 4]);
        assert_eq!(shares(3, 3_u32.div_ceil(4)).len(), 3, "fewer connections a second than processes");
    }

    #[test]
    fn reports_are_added_up() {
        let mut all = SessionView::default();
        add_sessions(&mut all, "open=2 lost=1 waits=0,12").unwrap();
        add_sessions(&mut all, "open=0 lost=0 waits=").unwrap();
        assert_eq!((all.open, all.lost, all.silences.len()), (2, 1, 2));
        assert!(add_sessions(&mut all, "open=2 lost=1 waits=x").is_err() && add_sessions(&mut all, "open=2").is_err());
    }
}
