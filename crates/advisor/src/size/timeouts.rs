//! Which timeouts hold connections in the table under a demand, and what shorter or longer ones would do.
use crate::quantity::Span;
use crate::size::demand::{Demand, Need, up};
use crate::size::load;
use keepstate_engine::{Knob, Knobs};
use serde::Serialize;

/// One timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timeout {
    /// Its knob's name.
    pub knob: &'static str,
    /// Seconds now (or by this kernel's default).
    pub present: u64,
    /// Seconds advised.
    pub advised: u64,
    /// Connections it holds under this demand with the value it has now.
    pub holds: u64,
    /// Why that value.
    pub why: String,
    /// What a shorter one would do.
    pub shorter: &'static str,
    /// What a longer one would do.
    pub longer: &'static str,
}

/// Dead peers are worth a shorter timeout from this share of the living on.
const WORTH_PERCENT: u64 = 5;
const HOUR: u64 = 3600;

/// What is advised for a need; those that hold most first. Of a table only looked at, only TIME_WAIT's part can be told, and only from the rate.
pub fn advise(need: &Need, knobs: &Knobs) -> Vec<Timeout> {
    let demand = match need {
        Need::Demand(demand) => demand,
        Need::Observed(seen) => return seen.rate.and_then(|rate| time_wait(rate, knobs)).into_iter().collect(),
    };
    let mut timeouts = vec![established(demand, knobs)];
    let seconds = |knob: Knob| u64::from(knobs[knob]);
    let mut kept = |knob: Knob, a_second: f64, why: &str, shorter, longer| {
        let (present, holds) = (seconds(knob), up(a_second * seconds(knob) as f64));
        if holds > 0 {
            timeouts.push(Timeout {
                knob: knob.name(),
                present,
                advised: present,
                holds,
                why: why.into(),
                shorter,
                longer,
            });
        }
    };
    kept(
        Knob::TcpTimeoutSynRecv,
        demand.half_open_rate,
        "half-open connections are not assured: a full table drops them first, so they cost places and no service",
        "a slow client's last segment of the handshake may come too late",
        "a flood fills more of the table",
    );
    kept(
        Knob::UdpTimeout,
        demand.udp_rate,
        "a question and its answer; an answer that comes later than this is a new connection, or lost behind NAT",
        "fewer places; slow answers are lost behind NAT",
        "more places; no gain for questions that are answered at once",
    );
    if demand.notice.is_some() && demand.silent > 0.0 {
        kept(
            Knob::TcpTimeoutFinWait,
            demand.rate * demand.silent,
            "holds what the other end closed and the dead peer never answered",
            "fewer places; a peer that was only slow is cut off while it still sends",
            "more places for connections that are over",
        );
    }
    timeouts.extend(time_wait(demand.rate * (1.0 - demand.silent), knobs));
    timeouts.sort_by_key(|timeout| std::cmp::Reverse(timeout.holds));
    timeouts
}

/// The knobs, with what is advised.
pub fn applied(timeouts: &[Timeout], knobs: &Knobs) -> Knobs {
    let mut knobs = knobs.clone();
    for timeout in timeouts {
        if let Some(knob) = Knob::named(timeout.knob) {
            // What is advised is never longer than a kernel takes, or it stays as it was.
            let _ = knobs.set(knob, timeout.advised);
        }
    }
    knobs
}

fn time_wait(closed_a_second: f64, knobs: &Knobs) -> Option<Timeout> {
    let present = u64::from(knobs[Knob::TcpTimeoutTimeWait]);
    let holds = up(closed_a_second * present as f64);
    (holds > 0).then(|| Timeout {
        knob: Knob::TcpTimeoutTimeWait.name(),
        present,
        advised: present,
        holds,
        why: "it holds rate × timeout; Linux's own sockets stay in TIME_WAIT 60 s, so 60 is the least that makes sense"
            .into(),
        shorter: "fewer places; a late segment of a connection that is over is then invalid, or picked up as a new one",
        longer: "more places for connections that are over",
    })
}

fn established(demand: &Demand, knobs: &Knobs) -> Timeout {
    let present = u64::from(knobs[Knob::TcpTimeoutEstablished]);
    let (least, least_why) = demand.least_established();
    let rounded = least.div_ceil(HOUR).saturating_mul(HOUR);
    let held_by_it = load::linger(demand, knobs).1 == Knob::TcpTimeoutEstablished;
    let dead = if held_by_it { up(demand.rate * demand.silent * present as f64) } else { 0 };
    let matters = u128::from(dead) * 100 > u128::from(demand.connections) * u128::from(WORTH_PERCENT);
    let (advised, why) = if present < least {
        (rounded, format!("at least {}: {least_why}; with less, living connections are forgotten", Span(least)))
    } else if matters && present > rounded {
        let why = format!("dead peers stand for {}; at least {}: {least_why}; whole hours", Span(present), Span(least));
        (rounded, why)
    } else {
        let why = match demand.notice {
            Some(notice) if !held_by_it => format!(
                "the other end closes a silent connection after {}, long before; no shorter than {} in any case: {least_why}",
                Span(notice),
                Span(least)
            ),
            _ => format!("few connections end without a word; no shorter than {}: {least_why}", Span(least)),
        };
        (present, why)
    };
    Timeout {
        knob: Knob::TcpTimeoutEstablished.name(),
        present,
        advised,
        holds: demand.connections.saturating_add(dead),
        why,
        shorter: "dead peers leave sooner; below the least, living connections are forgotten: picked up again without NAT (loose=1), \
                  reset behind NAT, a reconnect storm where rules drop what is invalid",
        longer: "dead peers stay longer: rate × share that ends silently × timeout",
    }
}
