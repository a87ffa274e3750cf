//! What happens at each appointment: who comes, speaks, and goes.
use crate::simulate::client::{Fate, Talk};
use crate::simulate::model::{Cause, PINGREQ};
use crate::simulate::packets::{End, Segment, flag};
use crate::simulate::{Appointment, Client, Ending, Simulation, What, chance};
use keepstate_engine::Info;

/// 10.0.0.0, where the clients are.
const CLIENTS: u32 = 10 << 24;
const CLIENTS_MASK: u32 = (1 << 24) - 1;
/// 192.0.2.1, where the server is (RFC 5737).
const SERVER: u32 = 0xc000_0201;
/// 100.64.0.0/10, from where strangers come (RFC 6598).
const STRANGERS: u32 = 0x6440_0000;
const STRANGERS_MASK: u64 = (1 << 22) - 1;
/// The ports a client takes one after another, as Linux's own begin.
const FIRST_PORT: u16 = 32_768;
const PORTS: u16 = 28_232;
const DNS: u16 = 53;
/// Octets of a question, of its answer, of CONNECT and of an answer to what a client says.
const QUESTION: u16 = 40;
const ANSWER: u16 = 120;
const CONNECT: u32 = 40;
const REPLY: u16 = 4;
/// A SYN is sent again after 1, 2 and 4 s; an answer is awaited until 15 s after the first.
const KNOCKS: u8 = 4;
const SECOND: u64 = 1000;

impl Simulation {
    /// An appointment's time has come.
    pub(super) fn keep(&mut self, appointment: Appointment) {
        let who = appointment.who;
        match appointment.what {
            What::Arrive => self.arrive(),
            What::Ask => self.ask(),
            What::Scan => self.scan(),
            What::Knock => self.knock(who),
            What::Enter => self.enter(who),
            What::Speak => self.speak(who),
            What::End => self.end(who),
            What::Notice => self.notice(who),
        }
    }

    fn arrive(&mut self) {
        let number = self.arrived;
        self.arrived += 1;
        let address = CLIENTS | (number as u32 & CLIENTS_MASK);
        // Where addresses come round again, ports differ; and nobody's sequence numbers begin alike.
        let port = FIRST_PORT + ((number >> 24) % u64::from(PORTS)) as u16;
        let server = End { address: SERVER, port: self.model.port };
        let talk = Talk { client: End { address, port }, server, up: isn(number), down: isn(!number) };
        let client = Client {
            talk,
            began: self.now,
            ends: u64::MAX,
            end: Ending::Close,
            spoken: 0,
            knocks: 0,
            failures: 0,
            refused: false,
        };
        let who = place(&mut self.clients, &mut self.free, client);
        self.tally.waiting += 1;
        self.knock(who);
        match self.model.clients {
            // Clients come evenly: the next when its turn is, reckoned from the beginning so that nothing is lost by rounding.
            Some(clients) if self.arrived < u64::from(clients) => {
                self.appoint((self.arrived as f64 * 1e3 / self.model.arrival) as u64, What::Arrive, 0);
            }
            Some(_) => (),
            None => self.again(What::Arrive, self.model.arrival),
        }
    }

    /// The next of those that come at random, so many a second. Their times are kept exactly, so that a high rate is not rounded away.
    fn again(&mut self, what: What, rate: f64) {
        let wait = self.chance.wait(1e3 / rate);
        let due = match what {
            What::Ask => &mut self.due.ask,
            What::Scan => &mut self.due.scan,
            _ => &mut self.due.arrive,
        };
        *due += wait;
        let at = *due as u64;
        self.appoint(at, what, 0);
    }

    fn knock(&mut self, who: u32) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let mut talk = client.talk;
        let fate = talk.knock(&mut self.line());
        let Some(client) = self.clients.get_mut(who as usize) else { return };
        client.talk = talk;
        if fate != Fate::Dropped {
            client.knocks = 0;
            let at = self.now + self.model.round_trip;
            return self.appoint(at, What::Enter, who);
        }
        client.knocks += 1;
        self.tally.syns_dropped += 1;
        if client.knocks < KNOCKS {
            let at = self.now + (SECOND << (client.knocks - 1));
            return self.appoint(at, What::Knock, who);
        }
        self.tally.refused += 1;
        self.tally.clients_refused += u64::from(!client.refused);
        client.refused = true;
        // The last SYN is awaited for 8 s.
        self.fail(who, 8 * SECOND);
    }

    /// An attempt came to nothing: the client waits, longer each time, and comes again from another port; nobody else does.
    fn fail(&mut self, who: u32, after: u64) {
        let Some(client) = self.clients.get_mut(who as usize) else { return };
        client.knocks = 0;
        let pause = (SECOND << client.failures.min(40)).min(self.model.retry);
        client.failures = client.failures.saturating_add(1);
        // Half of it by chance, so that they do not all come in the same moment.
        let pause = pause / 2 + self.chance.below(pause / 2 + 1);
        self.leave(who, after + pause);
    }

    /// The client has no connection; if it is one that comes again, it does so after `pause`.
    fn leave(&mut self, who: u32, pause: u64) {
        if self.model.clients.is_none() {
            self.free.push(who);
            self.tally.waiting = self.tally.waiting.saturating_sub(1);
            return;
        }
        let Some(client) = self.clients.get_mut(who as usize) else { return };
        let end = &mut client.talk.client;
        end.port = FIRST_PORT + (end.port.wrapping_sub(FIRST_PORT) + 1) % PORTS;
        self.appoint(self.now + pause, What::Knock, who);
    }

    fn enter(&mut self, who: u32) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let mut talk = client.talk;
        let mut line = self.line();
        let entered = talk.enter(&mut line);
        let fate = if entered == Fate::Dropped { entered } else { talk.exchange(CONNECT, REPLY, &mut line) };
        if fate == Fate::Dropped || entered == Fate::Dropped {
            // It was pushed out while half open, and its place is taken.
            self.tally.broken += 1;
            return self.fail(who, 0);
        }
        self.tally.opened += 1;
        self.tally.connected += 1;
        self.tally.waiting = self.tally.waiting.saturating_sub(1);
        let (ends, end) = self.ending(who);
        if let Some(client) = self.clients.get_mut(who as usize) {
            *client = Client { talk, began: self.now, ends, end, spoken: 0, failures: 0, ..*client };
        }
        self.plan(who, entered != Fate::Passed);
    }

    /// When a connection that begins now will end, and how.
    fn ending(&mut self, who: u32) -> (u64, Ending) {
        let life = self.model.lifetime.map(|mean| self.chance.wait(mean as f64) as u64 + 1);
        let silent = self.chance.unit() < self.model.silent;
        let natural = (
            life.map_or(u64::MAX, |life| self.now.saturating_add(life)),
            match silent {
                true => Ending::Silence,
                false => Ending::Close,
            },
        );
        let hit = |(number, storm): (usize, &super::Storm)| {
            let here = storm.at > self.now && chance::of(self.seed, number as u64, u64::from(who)) < storm.share;
            here.then_some((
                storm.at,
                match storm.cause {
                    Cause::Restart => Ending::Reset,
                    Cause::Outage => Ending::Silence,
                },
            ))
        };
        let storm = self.model.storms.iter().enumerate().filter_map(hit).min_by_key(|(at, _)| *at);
        storm.filter(|(at, _)| *at < natural.0).unwrap_or(natural)
    }

    /// What the client does next: the next of its words that could matter, or the end.
    fn plan(&mut self, who: u32, forgotten: bool) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let end = client.ends;
        let Some((every, _)) = self.model.beat() else { return self.appoint(end, What::End, who) };
        let last = (end - client.began - 1) / every;
        let steps = if forgotten { 1 } else { (self.stretch / every).max(1) };
        let next = client.spoken.saturating_add(steps).min(last);
        if next <= client.spoken {
            return self.appoint(end, What::End, who);
        }
        let at = client.began.saturating_add(next.saturating_mul(every));
        if let Some(client) = self.clients.get_mut(who as usize) {
            client.spoken = next;
        }
        self.appoint(at, What::Speak, who);
    }

    fn speak(&mut self, who: u32) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let (_, size) = self.model.beat().unwrap_or((0, PINGREQ));
        let mut talk = client.talk;
        let fate = talk.exchange(size, REPLY, &mut self.line());
        if let Some(client) = self.clients.get_mut(who as usize) {
            client.talk = talk;
        }
        match fate {
            Fate::Passed => return self.plan(who, false),
            Fate::Forgotten(Info::Invalid) => self.tally.invalid += 1,
            Fate::Forgotten(_) => self.tally.picked_up += 1,
            Fate::Dropped => {
                self.tally.broken += 1;
                self.tally.connected = self.tally.connected.saturating_sub(1);
                self.tally.waiting += 1;
                return self.fail(who, 0);
            }
        }
        self.plan(who, true);
    }

    fn end(&mut self, who: u32) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let mut talk = client.talk;
        match client.end {
            Ending::Close => {
                talk.close(&mut self.line());
                self.tally.closed += 1;
            }
            Ending::Reset => {
                talk.reset(&mut self.line());
                self.tally.reset += 1;
            }
            Ending::Silence => {
                self.tally.fell_silent += 1;
                if let (Some(notice), Some(beat)) = (self.model.notice, self.model.beat().or(Some((u64::MAX, 0)))) {
                    let said = client.began.saturating_add(client.spoken.saturating_mul(beat.0));
                    let at = said.saturating_add(notice).max(self.now);
                    let ghost = place(&mut self.ghosts, &mut self.free_ghosts, talk);
                    self.appoint(at, What::Notice, ghost);
                }
            }
        }
        self.tally.connected = self.tally.connected.saturating_sub(1);
        self.tally.waiting += 1;
        if let Some(client) = self.clients.get_mut(who as usize) {
            client.talk = talk;
        }
        let pause = self.chance.below(self.model.spread + 1);
        self.leave(who, pause);
    }

    fn notice(&mut self, ghost: u32) {
        let Some(mut talk) = self.ghosts.get(ghost as usize).copied() else { return };
        talk.give_up(&mut self.line());
        self.free_ghosts.push(ghost);
    }

    fn stranger(&mut self) -> End {
        let word = self.chance.word();
        let port = 1024 + (word >> 32) as u16 % (u16::MAX - 1024);
        End { address: STRANGERS | (word & STRANGERS_MASK) as u32, port }
    }

    fn ask(&mut self) {
        let (from, to) = (self.stranger(), End { address: SERVER, port: DNS });
        let mut line = self.line();
        if line.ask(from, to, QUESTION) == Fate::Dropped {
            self.tally.questions_dropped += 1;
        } else {
            line.ask(to, from, ANSWER);
        }
        self.again(What::Ask, self.model.udp_rate);
    }

    fn scan(&mut self) {
        let (from, to) = (self.stranger(), End { address: SERVER, port: self.model.port });
        let mut line = self.line();
        let syn = Segment { from, to, flags: flag::SYN, seq: 1, ack: 0, data: 0 };
        if line.send(&syn) == Fate::Dropped {
            self.tally.half_open_dropped += 1;
        } else {
            line.send(&Segment { from: to, to: from, flags: flag::SYN | flag::ACK, seq: 1, ack: 2, data: 0 });
        }
        self.again(What::Scan, self.model.half_open_rate);
    }
}

/// Where sequence numbers begin: below the middle, so that no conversation of less than 2 GiB comes round to 0. (The shortcut sends fewer octets, and so
/// would come round at another time.)
fn isn(number: u64) -> u32 {
    (chance::of(number, 0, 0) * f64::from(u32::MAX >> 1)) as u32 + 1
}

/// Puts a thing where there is a place, or behind the last.
fn place<T>(things: &mut Vec<T>, free: &mut Vec<u32>, thing: T) -> u32 {
    if let Some(at) = free.pop() {
        if let Some(place) = things.get_mut(at as usize) {
            *place = thing;
        }
        return at;
    }
    things.push(thing);
    u32::try_from(things.len() - 1).unwrap_or(u32::MAX)
}
