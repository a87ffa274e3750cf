//! The story: out through the gateway, the firewall, a published port, sessions by the thousands; then the [crisis](super::crisis).
use super::account::Account;
use super::crisis;
use super::crowd::{Acceptors, Crowd, Tally};
use super::peers::{NAME, PUBLISHED, Peers};
use super::router::{Kind, RULESET};
use super::stage::{GATEWAY, INSIDE, SERVER, Side, Stage};
use super::teller::Teller;
use anyhow::{Result, bail};
use keepstate_advisor::quantity::Count;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at a crowd.
const LOOK: Duration = Duration::from_millis(20);
/// Between two lines about the table.
const LINE: Duration = Duration::from_secs(1);
/// How long a session may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Seconds of the transfer.
const TRANSFER: u32 = 2;
/// Calls of the published port.
const CALLS: u32 = 10;

/// A stage with everybody on it.
pub(super) struct Play<'a> {
    pub(super) stage: Stage,
    pub(super) peers: Peers,
    pub(super) acceptors: Acceptors,
    /// Sessions that are held.
    pub(super) crowds: Vec<Crowd>,
    pub(super) teller: Teller,
    pub(super) account: Account,
    ended: &'a AtomicBool,
}

impl<'a> Play<'a> {
    /// Sets it up, with room for so many sessions.
    pub(super) fn set_up(kind: Kind, fleets: u8, ended: &'a AtomicBool) -> Result<Play<'a>> {
        let mut stage = Stage::build(kind, fleets)?;
        let peers = Peers::begin(&mut stage)?;
        let acceptors = Acceptors::begin(&stage, fleets)?;
        let (teller, account) = (Teller::new(), Account::of(kind));
        Ok(Play { stage, peers, acceptors, crowds: Vec::new(), teller, account, ended })
    }

    /// Tells it.
    pub(super) fn tell(&mut self, clients: u32) -> Result<()> {
        self.out()?;
        self.firewall()?;
        self.balance()?;
        self.sessions(clients)?;
        match self.account.kind {
            Kind::Ours => crisis::tell(self, clients)?,
            Kind::Linux => {
                self.teller.chapter("A table that is made small: not here");
                self.teller
                    .say("nf_conntrack_max is one number for all of Linux's namespaces, set in the initial one alone;");
                self.teller.say("the laboratory changes nothing of the machine. A gateway has its own.");
                self.everybody_answers()?;
            }
        }
        self.account.is_good = self.teller.is_good();
        self.teller.end();
        Ok(())
    }

    /// Who is here, and the rules.
    pub(super) fn introduce(&self) {
        let teller = &self.teller;
        let (name, (left, right)) = (self.account.kind.name(), ("10.1.0.1", "192.0.2.1"));
        teller.title("Clients, a gateway and servers, each in a network namespace of its own");
        teller.say("");
        teller.say(&format!("clients 10.1.0.0/24 ── lan0 [ {name} ] wan0 ── servers 192.0.2.0/24"));
        teller.say(&format!("                    {left:>8}   {:^width$}   {right}", "", width = name.len() - 3));
        teller.say("");
        teller.say(&format!("peers: {}", self.peers.real.join(", ")));
        for (what, why) in &self.peers.ours {
            teller.say(&format!("       {what}: built in ({why})"));
        }
        teller.say("the gateway's rules:");
        teller.show(RULESET, usize::MAX);
    }

    /// Has somebody pressed Ctrl-C?
    pub(super) fn go_on(&self) -> Result<()> {
        if self.ended.load(Ordering::Relaxed) {
            bail!("interrupted; everything was taken away");
        }
        Ok(())
    }

    fn out(&mut self) -> Result<()> {
        self.go_on()?;
        self.teller.chapter("Out through the gateway: sources are translated");
        let (typed, ran) = self.peers.fetch(&self.stage, Side::Client, SERVER, 80)?;
        self.teller.typed("clients", &typed);
        self.teller.show(&(ran.out.clone() + &ran.err), 2);
        let seen = ran.out.contains(&format!("you are {GATEWAY}"));
        self.teller.check(seen, &format!("the web server saw {GATEWAY}, not {}", INSIDE[0]));
        if let Some((ran, log)) = self.peers.message(&self.stage)? {
            self.teller.typed("clients", &format!("mosquitto_pub -h {SERVER} -t lab -m hello; mosquitto_sub …"));
            self.teller.show(&log, 1);
            let good = ran.out.trim() == "hello" && log.contains(&format!("from {GATEWAY}"));
            self.teller.check(good, &format!("the broker delivered {:?}, and saw {GATEWAY} too", ran.out.trim()));
        }
        if let Some(ran) = self.peers.name(&self.stage)? {
            self.teller.typed("clients", &format!("dig +short {NAME} @{SERVER}"));
            self.teller.show(&ran.out, 1);
            self.teller.check(ran.out.trim() == SERVER.to_string(), "the name server answered");
        }
        let (typed, speed) = self.peers.speed(&self.stage, TRANSFER)?;
        self.teller.typed("clients", &typed);
        let told = speed.map_or_else(|| "nothing came through".to_owned(), |bits| format!("{:.2} Gbit/s", bits / 1e9));
        self.teller.check(speed.is_some_and(|bits| bits > 0.0), &told);
        self.account.speed = speed;
        self.teller.say("two of its connections: from whom they come, and what the answers are sent to");
        self.teller.show(&self.stage.router.connections()?, 2);
        Ok(())
    }

    fn firewall(&mut self) -> Result<()> {
        self.go_on()?;
        self.teller.chapter("The firewall: nobody comes in uninvited");
        let (typed, ran) = self.peers.fetch(&self.stage, Side::Server, INSIDE[0], PUBLISHED)?;
        self.teller.typed("servers", &typed);
        self.teller.show(&ran.err, 1);
        let refused = self.stage.router.refused()?;
        let packets = if refused == 1 { "packet" } else { "packets" };
        self.teller.check(
            !ran.good && refused > 0,
            &format!("refused at once: the last rule has counted {refused} {packets}"),
        );
        Ok(())
    }

    fn balance(&mut self) -> Result<()> {
        self.go_on()?;
        self.teller.chapter("A published port, balanced over two servers inside");
        let (typed, counts, others) = self.peers.balance(&self.stage, CALLS)?;
        self.teller.typed("servers", &format!("{typed}      # {CALLS} times"));
        let told = INSIDE.iter().zip(counts).map(|(inside, count)| format!("{inside} answered {count}"));
        let told: Vec<String> = told.collect();
        self.teller.check(counts == [CALLS / 2; 2] && others == 0, &told.join(", "));
        self.account.balance = Some(counts);
        Ok(())
    }

    fn sessions(&mut self, clients: u32) -> Result<()> {
        self.go_on()?;
        self.teller.chapter(&format!("{} clients hold MQTT sessions", Count(clients.into())));
        let (tally, took) = self.come(clients, PATIENCE, None)?;
        let rate = f64::from(tally.open) / took.as_secs_f64();
        self.teller.check(
            tally.open == clients,
            &format!(
                "{} of {} are open, {} a second",
                Count(tally.open.into()),
                Count(clients.into()),
                Count(rate as u64)
            ),
        );
        let count = self.stage.router.count()?;
        self.teller.check(count >= u64::from(tally.open), &format!("the table holds {} connections", Count(count)));
        let saw = self.acceptors.saw();
        self.teller.check(saw == [GATEWAY.to_string()], &format!("the servers saw nobody but {}", saw.join(", ")));
        (self.account.sessions, self.account.rate) = (tally.open, Some(rate));
        Ok(())
    }

    /// More clients come; the table is shown until all have settled. `meanwhile` is done once, when the time has come.
    pub(super) fn come(
        &mut self,
        clients: u32,
        patience: Duration,
        mut meanwhile: Option<Meanwhile<'_, 'a>>,
    ) -> Result<(Tally, Duration)> {
        let mut crowd = Crowd::begin(&self.stage, clients, patience)?;
        let begun = Instant::now();
        let (mut next, mut last) = (Duration::ZERO, None);
        let tally = loop {
            self.go_on()?;
            if let Some(tally) = crowd.settled()? {
                break tally;
            }
            if begun.elapsed() >= next {
                last = Some(self.show_table(begun.elapsed())?);
                next += LINE;
            }
            if let Some((_, what)) = meanwhile.take_if(|(at, _)| begun.elapsed() >= *at) {
                what(self)?;
            }
            std::thread::sleep(LOOK);
        };
        let took = begun.elapsed();
        if last != Some(self.stage.router.count()?) {
            self.show_table(took)?;
        }
        self.crowds.push(crowd);
        Ok((tally, took))
    }

    /// Gives how many connections it shows.
    fn show_table(&self, at: Duration) -> Result<u64> {
        let count = self.stage.router.count()?;
        self.teller.table(at, count, self.stage.router.limit()?);
        Ok(count)
    }

    /// Every session that is open is asked.
    pub(super) fn everybody_answers(&mut self) -> Result<()> {
        self.go_on()?;
        let mut all = Tally::default();
        for crowd in &mut self.crowds {
            let tally = crowd.ping()?;
            (all.open, all.lost, all.answered) =
                (all.open + tally.open, all.lost + tally.lost, all.answered + tally.answered);
        }
        let (answered, open) = (Count(all.answered.into()), Count((all.open + all.lost).into()));
        self.teller.check(
            all.lost == 0 && all.answered == all.open,
            &format!("{answered} of {open} sessions answer their ping: none was lost meanwhile"),
        );
        self.account.lost = Some(all.lost + all.open - all.answered);
        Ok(())
    }
}

/// What is done while clients come, and when.
pub(super) type Meanwhile<'b, 'a> = (Duration, &'b mut dyn FnMut(&mut Play<'a>) -> Result<()>);
