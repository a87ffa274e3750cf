//! Which timeouts hold connections in the table under a demand, and what shorter or longer ones would do.
use crate::size::demand::{Demand, Workload, ceil_u64};
use crate::size::load;
use crate::units::Seconds;
use keepstate_engine::{Sysctl, Sysctls};
use serde::Serialize;

/// One timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeoutAdvice {
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
const DEAD_PEER_PERCENT: u64 = 5;
const HOUR: u64 = 3600;

/// What is advised for a need; those that hold most first. Of a table only looked at, only TIME_WAIT's part can be told, and only from the rate.
pub fn advise(need: &Workload, knobs: &Sysctls) -> Vec<TimeoutAdvice> {
    let demand = match need {
        Workload::Demand(demand) => demand,
        Workload::Observed(seen) => return seen.rate.and_then(|rate| time_wait(rate, knobs)).into_iter().collect(),
    };
    let mut timeouts = vec![established(demand, knobs)];
    let seconds = |knob: Sysctl| u64::from(knobs[knob]);
    let mut kept = |knob: Sysctl, a_second: f64, why: &str, shorter, longer| {
        let (present, holds) = (seconds(knob), ceil_u64(a_second * seconds(knob) as f64));
        if holds > 0 {
            timeouts.push(TimeoutAdvice {
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
        Sysctl::TcpTimeoutSynRecv,
        demand.half_open_rate,
        "half-open connections are not assured: a full table drops them first, so they cost places and no service",
        "a slow client's last segment of the handshake may come too late",
        "a flood fills more of the table",
    );
    kept(
        Sysctl::UdpTimeout,
        demand.udp_rate,
        "a question and its answer; an answer that comes later than this is a new connection, or lost behind NAT",
        "fewer places; slow answers are lost behind NAT",
        "more places; no gain for questions that are answered at once",
    );
    if demand.notice.is_some() && demand.silent > 0.0 {
        kept(
            Sysctl::TcpTimeoutFinWait,
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
pub fn apply_advice(timeouts: &[TimeoutAdvice], knobs: &Sysctls) -> Sysctls {
    let mut knobs = knobs.clone();
    for timeout in timeouts {
        if let Some(knob) = Sysctl::from_name(timeout.knob) {
            // What is advised is never longer than a kernel takes, or it stays as it was.
            let _ = knobs.set(knob, timeout.advised);
        }
    }
    knobs
}

fn time_wait(closed_a_second: f64, knobs: &Sysctls) -> Option<TimeoutAdvice> {
    let present = u64::from(knobs[Sysctl::TcpTimeoutTimeWait]);
    let holds = ceil_u64(closed_a_second * present as f64);
    (holds > 0).then(|| TimeoutAdvice {
        knob: Sysctl::TcpTimeoutTimeWait.name(),
        present,
        advised: present,
        holds,
        why: "it holds rate × timeout; Linux's own sockets stay in TIME_WAIT 60 s, so 60 is the least that makes sense"
            .into(),
        shorter: "fewer places; a late segment of a connection that is over is then invalid, or picked up as a new one",
        longer: "more places for connections that are over",
    })
}

fn established(demand: &Demand, knobs: &Sysctls) -> TimeoutAdvice {
    let present = u64::from(knobs[Sysctl::TcpTimeoutEstablished]);
    let (least, least_why) = demand.min_established_timeout();
    let rounded = least.div_ceil(HOUR).saturating_mul(HOUR);
    let held_by_it = load::dead_peer_entry_lifetime(demand, knobs).1 == Sysctl::TcpTimeoutEstablished;
    let dead = if held_by_it { ceil_u64(demand.rate * demand.silent * present as f64) } else { 0 };
    let matters = u128::from(dead) * 100 > u128::from(demand.connections) * u128::from(DEAD_PEER_PERCENT);
    let (advised, why) = if present < least {
        (rounded, format!("at least {}: {least_why}; with less, living connections are forgotten", Seconds(least)))
    } else if matters && present > rounded {
        let why =
            format!("dead peers stand for {}; at least {}: {least_why}; whole hours", Seconds(present), Seconds(least));
        (rounded, why)
    } else {
        let why = match demand.notice {
            Some(notice) if !held_by_it => format!(
                "the other end closes a silent connection after {}, long before; no shorter than {} in any case: {least_why}",
                Seconds(notice),
                Seconds(least)
            ),
            _ => format!("few connections end without a word; no shorter than {}: {least_why}", Seconds(least)),
        };
        (present, why)
    };
    TimeoutAdvice {
        knob: Sysctl::TcpTimeoutEstablished.name(),
        present,
        advised,
        holds: demand.connections.saturating_add(dead),
        why,
        shorter: "dead peers leave sooner; below the least, living connections are forgotten: picked up again without NAT (loose=1), \
                  reset behind NAT, a reconnect storm where rules drop what is invalid",
        longer: "dead peers stay longer: rate × share that ends silently × timeout",
    }
}
