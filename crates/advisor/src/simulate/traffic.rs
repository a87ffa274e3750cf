//! What each event does: clients connect, send and disconnect.
use crate::simulate::choices::OPERATOR_PORT;
use crate::simulate::conversation::{SendOutcome, TcpConversation};
use crate::simulate::model::{MQTT_PINGREQ_BYTES, ReconnectStorm, StormCause};
use crate::simulate::packet_builder::{SimEndpoint, SimSegment, flag};
use crate::simulate::rng;
use crate::simulate::simulation::{Client, Ending, ScheduledEvent, SimEventKind, Simulation};
use keepstate_engine::CtInfo;

/// 10.0.0.0/8, the clients.
const CLIENT_NET: u32 = 10 << 24;
const CLIENT_NET_MASK: u32 = (1 << 24) - 1;
/// 192.0.2.1, the server (RFC 5737).
const SERVER_ADDRESS: u32 = 0xc000_0201;
/// 100.64.0.0/10, other hosts (RFC 6598).
const REMOTE_NET: u32 = 0x6440_0000;
const REMOTE_NET_MASK: u64 = (1 << 22) - 1;
/// 172.16.0.1 scans, 172.16.0.2 logs in.
const SCANNER_ADDRESS: u32 = 0xac10_0001;
const OPERATOR_ADDRESS: u32 = 0xac10_0002;
/// The ports of a client, in turn; as Linux's ephemeral ports.
const FIRST_PORT: u16 = 32_768;
const PORT_COUNT: u16 = 28_232;
const DNS_PORT: u16 = 53;
/// Bytes of a DNS query, its response, CONNECT, and a reply to a client's message.
const DNS_QUERY_BYTES: u16 = 40;
const DNS_RESPONSE_BYTES: u16 = 120;
const MQTT_CONNECT_BYTES: u32 = 40;
const REPLY_BYTES: u16 = 4;
/// A SYN is repeated after 1, 2 and 4 s; the attempt ends 15 s after the first.
const SYN_ATTEMPTS: u8 = 4;
const SECOND: u64 = 1000;

impl Simulation {
    /// Runs one event.
    pub(super) fn dispatch(&mut self, event: ScheduledEvent) {
        let who = event.client;
        match event.kind {
            SimEventKind::ClientArrival => self.add_client(),
            SimEventKind::UdpQuery => self.send_udp_query(),
            SimEventKind::HalfOpenSyn => self.send_half_open_syn(),
            SimEventKind::ScanSyn => self.send_scan_syn(),
            SimEventKind::OperatorLogin => self.log_in(),
            SimEventKind::Syn => self.send_syn(who),
            SimEventKind::HandshakeAck => self.complete_handshake(who),
            SimEventKind::Message => self.send_message(who),
            SimEventKind::ConnectionEnd => self.end_connection(who),
            SimEventKind::DeadPeerClose => self.close_dead_peer(who),
        }
    }

    fn add_client(&mut self) {
        let number = self.arrived;
        self.arrived += 1;
        let address = CLIENT_NET | (number as u32 & CLIENT_NET_MASK);
        // When addresses repeat, ports differ; and initial sequence numbers all differ.
        let port = FIRST_PORT + ((number >> 24) % u64::from(PORT_COUNT)) as u16;
        let server = SimEndpoint { address: SERVER_ADDRESS, port: self.model.port };
        let conversation = TcpConversation {
            client: SimEndpoint { address, port },
            server,
            client_seq: isn(number),
            server_seq: isn(!number),
        };
        let client = Client {
            conversation,
            opened_at: self.now,
            ends_at: u64::MAX,
            ending: Ending::Close,
            messages_sent: 0,
            syn_attempts: 0,
            failures: 0,
            was_refused: false,
        };
        let who = insert_in_free_slot(&mut self.clients, &mut self.free_clients, client);
        self.stats.waiting += 1;
        self.send_syn(who);
        match self.model.clients {
            // Clients arrive evenly; computed from the beginning so that rounding does not add up.
            Some(clients) if self.arrived < u64::from(clients) => {
                self.schedule((self.arrived as f64 * 1e3 / self.model.arrival) as u64, SimEventKind::ClientArrival, 0);
            }
            Some(_) => (),
            None => self.schedule_random(SimEventKind::ClientArrival, self.model.arrival),
        }
    }

    /// Schedules the next random arrival at this rate per second. Times keep their fractions, so that a high rate is not rounded away.
    fn schedule_random(&mut self, what: SimEventKind, rate: f64) {
        let wait = self.rng.exponential(1e3 / rate);
        let due = match what {
            SimEventKind::UdpQuery => &mut self.next_arrivals.udp_query,
            SimEventKind::HalfOpenSyn => &mut self.next_arrivals.half_open,
            SimEventKind::ScanSyn => &mut self.next_arrivals.scan,
            _ => &mut self.next_arrivals.client,
        };
        *due += wait;
        let at = *due as u64;
        self.schedule(at, what, 0);
    }

    fn send_syn(&mut self, who: u32) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let mut conversation = client.conversation;
        let outcome = conversation.open(&mut self.link());
        let Some(client) = self.clients.get_mut(who as usize) else { return };
        client.conversation = conversation;
        if outcome != SendOutcome::Dropped {
            client.syn_attempts = 0;
            let at = self.now + self.model.round_trip;
            return self.schedule(at, SimEventKind::HandshakeAck, who);
        }
        client.syn_attempts += 1;
        self.stats.syns_dropped += 1;
        if client.syn_attempts < SYN_ATTEMPTS {
            let at = self.now + (SECOND << (client.syn_attempts - 1));
            return self.schedule(at, SimEventKind::Syn, who);
        }
        self.stats.refused += 1;
        self.stats.clients_refused += u64::from(!client.was_refused);
        client.was_refused = true;
        // The last SYN is waited for 8 s.
        self.schedule_retry(who, 8 * SECOND);
    }

    /// An attempt failed: the client waits, longer each time, and retries from another port.
    fn schedule_retry(&mut self, who: u32, after: u64) {
        let Some(client) = self.clients.get_mut(who as usize) else { return };
        client.syn_attempts = 0;
        let pause = (SECOND << client.failures.min(40)).min(self.model.retry);
        client.failures = client.failures.saturating_add(1);
        // Half of it is random, so that retries do not all come at the same moment.
        let pause = pause / 2 + self.rng.next_below(pause / 2 + 1);
        self.schedule_reconnect(who, after + pause);
    }

    /// The client has no connection; if it is one that comes again, it does so after `pause`.
    fn schedule_reconnect(&mut self, who: u32, pause: u64) {
        if self.model.clients.is_none() {
            self.free_clients.push(who);
            self.stats.waiting = self.stats.waiting.saturating_sub(1);
            return;
        }
        let Some(client) = self.clients.get_mut(who as usize) else { return };
        let end = &mut client.conversation.client;
        end.port = FIRST_PORT + (end.port.wrapping_sub(FIRST_PORT) + 1) % PORT_COUNT;
        self.schedule(self.now + pause, SimEventKind::Syn, who);
    }

    fn complete_handshake(&mut self, who: u32) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let mut conversation = client.conversation;
        let mut line = self.link();
        let entered = conversation.complete_handshake(&mut line);
        let outcome = if entered == SendOutcome::Dropped {
            entered
        } else {
            conversation.exchange(MQTT_CONNECT_BYTES, REPLY_BYTES, &mut line)
        };
        if outcome == SendOutcome::Dropped || entered == SendOutcome::Dropped {
            // It was pushed out while half open, and its place is taken.
            self.stats.broken += 1;
            return self.schedule_retry(who, 0);
        }
        self.stats.opened += 1;
        self.stats.connected += 1;
        self.stats.waiting = self.stats.waiting.saturating_sub(1);
        let (ends, end) = self.draw_ending(who);
        if let Some(client) = self.clients.get_mut(who as usize) {
            *client = Client {
                conversation,
                opened_at: self.now,
                ends_at: ends,
                ending: end,
                messages_sent: 0,
                failures: 0,
                ..*client
            };
        }
        self.schedule_next_message(who, entered != SendOutcome::Passed);
    }

    /// When a connection that begins now will end, and how.
    fn draw_ending(&mut self, who: u32) -> (u64, Ending) {
        let life = self.model.lifetime.map(|mean| self.rng.exponential(mean as f64) as u64 + 1);
        let silent = self.rng.next_f64() < self.model.silent;
        let natural = (
            life.map_or(u64::MAX, |life| self.now.saturating_add(life)),
            match silent {
                true => Ending::Silence,
                false => Ending::Close,
            },
        );
        let hit = |(number, storm): (usize, &ReconnectStorm)| {
            let here = storm.at > self.now && rng::unit_hash(self.seed, number as u64, u64::from(who)) < storm.share;
            here.then_some((
                storm.at,
                match storm.cause {
                    StormCause::Restart => Ending::Reset,
                    StormCause::Outage => Ending::Silence,
                },
            ))
        };
        let storm = self.model.storms.iter().enumerate().filter_map(hit).min_by_key(|(at, _)| *at);
        storm.filter(|(at, _)| *at < natural.0).unwrap_or(natural)
    }

    /// What the client does next: the next of its words that could matter, or the end.
    fn schedule_next_message(&mut self, who: u32, forgotten: bool) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let end = client.ends_at;
        let Some((every, _)) = self.model.periodic_message() else {
            return self.schedule(end, SimEventKind::ConnectionEnd, who);
        };
        let last = (end - client.opened_at - 1) / every;
        let steps = if forgotten { 1 } else { (self.max_skip / every).max(1) };
        let next = client.messages_sent.saturating_add(steps).min(last);
        if next <= client.messages_sent {
            return self.schedule(end, SimEventKind::ConnectionEnd, who);
        }
        let at = client.opened_at.saturating_add(next.saturating_mul(every));
        if let Some(client) = self.clients.get_mut(who as usize) {
            client.messages_sent = next;
        }
        self.schedule(at, SimEventKind::Message, who);
    }

    fn send_message(&mut self, who: u32) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let (_, size) = self.model.periodic_message().unwrap_or((0, MQTT_PINGREQ_BYTES));
        let mut conversation = client.conversation;
        let outcome = conversation.exchange(size, REPLY_BYTES, &mut self.link());
        if let Some(client) = self.clients.get_mut(who as usize) {
            client.conversation = conversation;
        }
        match outcome {
            SendOutcome::Passed => return self.schedule_next_message(who, false),
            SendOutcome::EntryGone(CtInfo::Invalid) => self.stats.invalid += 1,
            SendOutcome::EntryGone(_) => self.stats.picked_up += 1,
            SendOutcome::Dropped => {
                self.stats.broken += 1;
                self.stats.connected = self.stats.connected.saturating_sub(1);
                self.stats.waiting += 1;
                return self.schedule_retry(who, 0);
            }
        }
        self.schedule_next_message(who, true);
    }

    fn end_connection(&mut self, who: u32) {
        let Some(client) = self.clients.get(who as usize).copied() else { return };
        let mut conversation = client.conversation;
        match client.ending {
            Ending::Close => {
                conversation.close(&mut self.link());
                self.stats.closed += 1;
            }
            Ending::Reset => {
                conversation.reset(&mut self.link());
                self.stats.reset += 1;
            }
            Ending::Silence => {
                self.stats.fell_silent += 1;
                if let (Some(notice), Some(message)) =
                    (self.model.notice, self.model.periodic_message().or(Some((u64::MAX, 0))))
                {
                    let last_sent = client.opened_at.saturating_add(client.messages_sent.saturating_mul(message.0));
                    let at = last_sent.saturating_add(notice).max(self.now);
                    let peer = insert_in_free_slot(&mut self.dead_peers, &mut self.free_dead_peers, conversation);
                    self.schedule(at, SimEventKind::DeadPeerClose, peer);
                }
            }
        }
        self.stats.connected = self.stats.connected.saturating_sub(1);
        self.stats.waiting += 1;
        if let Some(client) = self.clients.get_mut(who as usize) {
            client.conversation = conversation;
        }
        let pause = self.rng.next_below(self.model.spread + 1);
        self.schedule_reconnect(who, pause);
    }

    fn close_dead_peer(&mut self, peer: u32) {
        let Some(mut conversation) = self.dead_peers.get(peer as usize).copied() else { return };
        conversation.server_close(&mut self.link());
        self.free_dead_peers.push(peer);
    }

    fn random_remote(&mut self) -> SimEndpoint {
        let word = self.rng.next_u64();
        let port = 1024 + (word >> 32) as u16 % (u16::MAX - 1024);
        SimEndpoint { address: REMOTE_NET | (word & REMOTE_NET_MASK) as u32, port }
    }

    fn send_udp_query(&mut self) {
        let (from, to) = (self.random_remote(), SimEndpoint { address: SERVER_ADDRESS, port: DNS_PORT });
        let mut line = self.link();
        if line.send_udp(from, to, DNS_QUERY_BYTES) == SendOutcome::Dropped {
            self.stats.questions_dropped += 1;
        } else {
            line.send_udp(to, from, DNS_RESPONSE_BYTES);
        }
        self.schedule_random(SimEventKind::UdpQuery, self.model.udp_rate);
    }

    fn send_half_open_syn(&mut self) {
        let (from, to) = (self.random_remote(), SimEndpoint { address: SERVER_ADDRESS, port: self.model.port });
        let mut line = self.link();
        let syn = SimSegment { from, to, flags: flag::SYN, seq: 1, ack: 0, data: 0 };
        if line.send_tcp(&syn) == SendOutcome::Dropped {
            self.stats.half_open_dropped += 1;
        } else {
            line.send_tcp(&SimSegment { from: to, to: from, flags: flag::SYN | flag::ACK, seq: 1, ack: 2, data: 0 });
        }
        self.schedule_random(SimEventKind::HalfOpenSyn, self.model.half_open_rate);
    }
}

impl Simulation {
    /// One host tries one port of another, which does not answer.
    fn send_scan_syn(&mut self) {
        let to = self.random_remote();
        let port = FIRST_PORT + self.rng.next_below(u64::from(PORT_COUNT)) as u16;
        let from = SimEndpoint { address: SCANNER_ADDRESS, port };
        let syn = SimSegment { from, to, flags: flag::SYN, seq: 1, ack: 0, data: 0 };
        if self.link().send_tcp(&syn) == SendOutcome::Dropped {
            self.stats.scan_dropped += 1;
        }
        self.schedule_random(SimEventKind::ScanSyn, self.model.scan_rate);
    }

    /// An operator logs in, looks, and leaves; one SYN is tried.
    fn log_in(&mut self) {
        let number = self.stats.logins;
        self.stats.logins += 1;
        let client =
            SimEndpoint { address: OPERATOR_ADDRESS, port: FIRST_PORT + (number % u64::from(PORT_COUNT)) as u16 };
        let server = SimEndpoint { address: SERVER_ADDRESS, port: OPERATOR_PORT };
        let mut session = TcpConversation { client, server, client_seq: isn(number), server_seq: isn(!number) };
        let mut line = self.link();
        if session.open(&mut line) == SendOutcome::Dropped {
            self.stats.logins_dropped += 1;
        } else {
            session.complete_handshake(&mut line);
            session.close(&mut line);
        }
        if let Some(every) = self.model.operator_every {
            self.schedule(self.now + every, SimEventKind::OperatorLogin, 0);
        }
    }
}

/// Where sequence numbers begin: below the middle, so that no conversation of less than 2 GiB comes round to 0. (The shortcut sends fewer octets, and so
/// would come round at another time.)
fn isn(number: u64) -> u32 {
    (rng::unit_hash(number, 0, 0) * f64::from(u32::MAX >> 1)) as u32 + 1
}

/// Puts a thing where there is a place, or behind the last.
fn insert_in_free_slot<T>(things: &mut Vec<T>, free: &mut Vec<u32>, thing: T) -> u32 {
    if let Some(at) = free.pop() {
        if let Some(place) = things.get_mut(at as usize) {
            *place = thing;
        }
        return at;
    }
    things.push(thing);
    u32::try_from(things.len() - 1).unwrap_or(u32::MAX)
}
