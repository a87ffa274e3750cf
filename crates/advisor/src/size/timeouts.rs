//! The timeouts that hold entries under a load, and what shorter or longer ones would do.
use crate::size::demand::{Demand, Workload, ceil_u64};
use crate::size::load;
use crate::units::Seconds;
use keepstate_engine::{Sysctl, Sysctls};
use serde::Serialize;

/// One timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeoutAdvice {
    /// The name of its sysctl.
    pub knob: &'static str,
    /// Seconds now, or by this kernel's default.
    pub present: u64,
    /// Recommended seconds.
    pub advised: u64,
    /// Entries it holds under this load with its current value.
    pub holds: u64,
    /// Why that value.
    pub why: String,
    /// The effect of a shorter one.
    pub shorter: &'static str,
    /// The effect of a longer one.
    pub longer: &'static str,
}

/// Percent of the open connections from which dead peers justify a shorter timeout.
const DEAD_PEER_PERCENT: u64 = 5;
const HOUR: u64 = 3600;

/// The advice for a workload, those that hold the most entries first. Of an observed table only TIME_WAIT is known, by the rate.
pub fn advise(need: &Workload, knobs: &Sysctls) -> Vec<TimeoutAdvice> {
    let demand = match need {
        Workload::Demand(demand) => demand,
        Workload::Observed(seen) => return seen.rate.and_then(|rate| time_wait(rate, knobs)).into_iter().collect(),
    };
    let mut timeouts = vec![established(demand, knobs)];
    let seconds = |knob: Sysctl| u64::from(knobs[knob]);
    let mut keep = |knob: Sysctl, a_second: f64, why: &str, shorter, longer| {
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
    keep(
        Sysctl::TcpTimeoutSynRecv,
        demand.half_open_rate,
        "half-open connections are not ASSURED: a full table evicts them first",
        "the last handshake segment of a slow client may come too late",
        "a flood fills more of the table",
    );
    keep(
        Sysctl::UdpTimeout,
        demand.udp_rate,
        "query and reply; a reply after this time is a new connection, or lost behind NAT",
        "fewer entries; slow replies are lost behind NAT",
        "more entries; no gain for queries that are answered at once",
    );
    if demand.notice.is_some() && demand.silent > 0.0 {
        keep(
            Sysctl::TcpTimeoutFinWait,
            demand.rate * demand.silent,
            "connections closed by the other end whose dead peer never answers",
            "fewer entries; a peer that is only slow is cut off while it still sends",
            "more entries for closed connections",
        );
    }
    timeouts.extend(time_wait(demand.rate * (1.0 - demand.silent), knobs));
    timeouts.sort_by_key(|timeout| std::cmp::Reverse(timeout.holds));
    timeouts
}

/// The sysctls with the recommended timeouts.
pub fn apply_advice(timeouts: &[TimeoutAdvice], knobs: &Sysctls) -> Sysctls {
    let mut knobs = knobs.clone();
    for timeout in timeouts {
        if let Some(knob) = Sysctl::from_name(timeout.knob) {
            // A value the kernel does not accept leaves the sysctl as it was.
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
        why: "rate of closed connections × timeout; Linux's own sockets stay in TIME_WAIT for 60 s, so do not go below 60"
            .into(),
        shorter: "fewer entries; a late segment of a closed connection is then INVALID, or picked up as a new connection",
        longer: "more entries for closed connections",
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
        (rounded, format!("at least {}: {least_why}; with less, open connections are forgotten", Seconds(least)))
    } else if matters && present > rounded {
        let why = format!(
            "dead peers stay for {}; at least {}: {least_why}; rounded up to hours",
            Seconds(present),
            Seconds(least)
        );
        (rounded, why)
    } else {
        let why = match demand.notice {
            Some(notice) if !held_by_it => format!(
                "the other end closes silent connections after {}; never below {}: {least_why}",
                Seconds(notice),
                Seconds(least)
            ),
            _ => format!("few connections end silently; never below {}: {least_why}", Seconds(least)),
        };
        (present, why)
    };
    TimeoutAdvice {
        knob: Sysctl::TcpTimeoutEstablished.name(),
        present,
        advised,
        holds: demand.connections.saturating_add(dead),
        why,
        shorter: "dead peers expire sooner; below the minimum, open connections are forgotten: picked up again without NAT (loose=1), \
                  reset behind NAT, reconnect storms if rules drop INVALID packets",
        longer: "dead peers stay longer: rate × share of silent ends × timeout",
    }
}
