//! A scenario: sysctls, and packets in order. The grammars generate it, the comparator runs it, a scenario file stores it.
use super::step::OracleStep;
use keepstate_engine::{Sysctl, Sysctls};

/// Sysctls and packets. A scenario begins with an empty table.
#[derive(Clone, Debug, Default)]
pub struct OracleScenario {
    pub sysctls: Vec<(Sysctl, u64)>,
    pub steps: Vec<OracleStep>,
    /// A long scenario with pauses between bursts; any other must end before anything can expire.
    pub slow: bool,
}

/// Sysctls that scenarios change. A scenario that does not name one sets it to its default.
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
    /// The value of every sysctl that scenarios change.
    pub fn sysctl_values(&self) -> impl Iterator<Item = (Sysctl, u64)> + '_ {
        SCENARIO_SYSCTLS.iter().map(|sysctl| {
            let named = self.sysctls.iter().find(|(named, _)| named == sysctl).map(|(_, value)| *value);
            let default = if *sysctl == Sysctl::Acct { 1 } else { u64::from(sysctl.default_value()) };
            (*sysctl, named.unwrap_or(default))
        })
    }

    /// The engine's sysctls for this scenario.
    pub fn engine_sysctls(&self) -> Result<Sysctls, keepstate_engine::SysctlError> {
        let mut sysctls = Sysctls::default();
        // Scenarios are short, and a small index makes a new engine cheap.
        sysctls.set(Sysctl::Buckets, 4096)?;
        for (sysctl, value) in self.sysctl_values() {
            sysctls.set(sysctl, value)?;
        }
        Ok(sysctls)
    }

    /// The same scenario with only some of its steps.
    pub fn with_steps(&self, steps: Vec<OracleStep>) -> OracleScenario {
        OracleScenario { sysctls: self.sysctls.clone(), steps, slow: self.slow }
    }
}
