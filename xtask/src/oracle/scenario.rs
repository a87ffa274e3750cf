//! A story: knobs, and packets in order. What the grammars write, the judges play, and a ledger prints.
use super::step::OracleStep;
use keepstate_engine::{Sysctl, Sysctls};

/// Knobs and packets. It begins with an empty table.
#[derive(Clone, Debug, Default)]
pub struct OracleScenario {
    pub sysctls: Vec<(Sysctl, u64)>,
    pub steps: Vec<OracleStep>,
    /// Lasts long on purpose, and waits between bursts; any other story must end before anything can expire.
    pub slow: bool,
}

/// Knobs that stories change: each is put back to its default by a story that does not name it.
pub const SCENARIO_SYSCTLS: &[Sysctl] = &[
    Sysctl::Acct,
    Sysctl::Checksum,
    Sysctl::GenericTimeout,
    Sysctl::GreTimeout,
    Sysctl::GreTimeoutStream,
    Sysctl::IcmpTimeout,
    Sysctl::Icmpv6Timeout,
    Sysctl::SctpTimeoutClosed,
    Sysctl::SctpTimeoutCookieEchoed,
    Sysctl::SctpTimeoutCookieWait,
    Sysctl::SctpTimeoutEstablished,
    Sysctl::SctpTimeoutHeartbeatSent,
    Sysctl::SctpTimeoutShutdownAckSent,
    Sysctl::SctpTimeoutShutdownRecd,
    Sysctl::SctpTimeoutShutdownSent,
    Sysctl::TcpBeLiberal,
    Sysctl::TcpIgnoreInvalidRst,
    Sysctl::TcpLoose,
    Sysctl::TcpMaxRetrans,
    Sysctl::TcpTimeoutClose,
    Sysctl::TcpTimeoutCloseWait,
    Sysctl::TcpTimeoutEstablished,
    Sysctl::TcpTimeoutFinWait,
    Sysctl::TcpTimeoutLastAck,
    Sysctl::TcpTimeoutMaxRetrans,
    Sysctl::TcpTimeoutSynRecv,
    Sysctl::TcpTimeoutSynSent,
    Sysctl::TcpTimeoutTimeWait,
    Sysctl::TcpTimeoutUnacknowledged,
    Sysctl::UdpTimeout,
    Sysctl::UdpTimeoutStream,
];

impl OracleScenario {
    /// The value of every knob that stories change.
    pub fn sysctl_values(&self) -> impl Iterator<Item = (Sysctl, u64)> + '_ {
        SCENARIO_SYSCTLS.iter().map(|knob| {
            let named = self.sysctls.iter().find(|(named, _)| named == knob).map(|(_, value)| *value);
            let default = if *knob == Sysctl::Acct { 1 } else { u64::from(knob.default_value()) };
            (*knob, named.unwrap_or(default))
        })
    }

    /// The engine's knobs for this story.
    pub fn engine_sysctls(&self) -> Result<Sysctls, keepstate_engine::SysctlError> {
        let mut knobs = Sysctls::default();
        // Stories are short; a small index makes a fresh engine cheap.
        knobs.set(Sysctl::Buckets, 4096)?;
        for (knob, value) in self.sysctl_values() {
            knobs.set(knob, value)?;
        }
        Ok(knobs)
    }

    /// The same story with only some of its steps.
    pub fn with_steps(&self, steps: Vec<OracleStep>) -> OracleScenario {
        OracleScenario { sysctls: self.sysctls.clone(), steps, slow: self.slow }
    }
}
