//! Timeout policies: timeouts of single connections, as nftables' `ct timeout` sets them.
//!
//! A policy is the engine's sysctls with some timeouts replaced. It is created once ([`Engine::add_timeout_policy`]) and must never be removed, because
//! connections refer to it. When a sysctl is set, every policy that does not replace it follows. As in Linux, a policy is assigned before the
//! connection is confirmed; the first packet's timeout is that of the protocol's first state, whatever state the packet has led to.
pub(crate) mod policy;

pub use policy::TimeoutPolicyId;

use crate::extension::Extensions;
use crate::protocol::seconds_to_ticks;
use crate::table::record::{HotRecord, RecordKind};
use crate::{Engine, PacketCtx, Sysctl, SysctlError, Sysctls};
use alloc::vec::Vec;
use keepstate_types::ipproto;
use policy::TimeoutPolicy;

impl Engine {
    /// Returns the policy with these sysctls (timeouts, in seconds), and creates it if there is none yet.
    ///
    /// ```
    /// use keepstate_engine::{Engine, Instant, Sysctl, Sysctls, Secret};
    /// let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    /// let short = engine.add_timeout_policy(&[(Sysctl::UdpTimeout, 5)]).unwrap();
    /// assert_eq!(engine.add_timeout_policy(&[(Sysctl::UdpTimeout, 5)]).unwrap(), short);
    /// ```
    ///
    /// # Errors
    /// A value is out of its sysctl's range, or the sysctl is read-only.
    pub fn add_timeout_policy(&mut self, settings: &[(Sysctl, u32)]) -> Result<TimeoutPolicyId, SysctlError> {
        let known = self.timeout_policies.iter().position(|policy| policy.settings == settings);
        if let Some(at) = known.and_then(|at| u16::try_from(at).ok()) {
            return Ok(TimeoutPolicyId(at));
        }
        let sysctls = self.sysctls_with(settings)?;
        // An id has 16 bits: any further policy replaces the last one. No realistic ruleset has so many.
        let at = self.timeout_policies.len().min(usize::from(u16::MAX));
        self.timeout_policies.truncate(at);
        self.timeout_policies.push(TimeoutPolicy { settings: settings.to_vec(), sysctls });
        Ok(TimeoutPolicyId(at as u16))
    }

    /// The settings of a policy; empty without one.
    pub(crate) fn timeout_settings(&self, timeouts: Option<TimeoutPolicyId>) -> Vec<(Sysctl, u32)> {
        let policy = timeouts.and_then(|timeouts| self.timeout_policies.get(usize::from(timeouts.0)));
        policy.map_or_else(Vec::new, |policy| policy.settings.clone())
    }

    fn sysctls_with(&self, settings: &[(Sysctl, u32)]) -> Result<Sysctls, SysctlError> {
        let mut sysctls = self.sysctls.clone();
        settings.iter().try_for_each(|(sysctl, value)| sysctls.set(*sysctl, u64::from(*value)))?;
        Ok(sysctls)
    }

    /// Recomputes all policies after a sysctl was set.
    pub(crate) fn refresh_timeout_policies(&mut self) {
        for at in 0..self.timeout_policies.len() {
            let settings = self.timeout_policies.get_mut(at).map(|policy| core::mem::take(&mut policy.settings));
            let Some(settings) = settings else { return };
            if let (Ok(sysctls), Some(policy)) = (self.sysctls_with(&settings), self.timeout_policies.get_mut(at)) {
                *policy = TimeoutPolicy { settings, sysctls };
            }
        }
    }
}

impl Engine {
    /// Assigns a timeout policy to the packet's connection, if it is new. The last one assigned counts.
    pub fn set_timeout_policy(&self, ctx: &mut PacketCtx, timeouts: TimeoutPolicyId) {
        let Some(fresh) = ctx.unconfirmed() else { return };
        let Some(policy) = self.timeout_policies.get(usize::from(timeouts.0)) else { return };
        fresh.extension.get_or_insert_default().timeout_policy = Some(timeouts);
        fresh.timeout = seconds_to_ticks(policy.sysctls[first_timeout(fresh.original.protocol)]);
    }
}

/// The sysctls whose timeouts a connection has: those of its policy, else the engine's.
#[inline(always)]
pub(crate) fn timeouts_of<'a>(
    slot: u32,
    hot: &HotRecord,
    extensions: &Extensions,
    policies: &'a [TimeoutPolicy],
    sysctls: &'a Sysctls,
) -> &'a Sysctls {
    let policy = match hot.kind.has(RecordKind::HAS_EXTENSION) {
        true => extensions.find(slot).and_then(|extension| policies.get(usize::from(extension.timeout_policy?.0))),
        false => None,
    };
    policy.map_or(sysctls, |policy| &policy.sysctls)
}

/// The timeout of a protocol's first state.
const fn first_timeout(protocol: u8) -> Sysctl {
    match protocol {
        ipproto::TCP => Sysctl::TcpTimeoutSynSent,
        ipproto::UDP | ipproto::UDPLITE => Sysctl::UdpTimeout,
        ipproto::ICMP => Sysctl::IcmpTimeout,
        ipproto::ICMPV6 => Sysctl::Icmpv6Timeout,
        ipproto::SCTP => Sysctl::SctpTimeoutClosed,
        ipproto::GRE => Sysctl::GreTimeout,
        _ => Sysctl::GenericTimeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Instant, Secret, Zone};
    use alloc::vec;
    use keepstate_wire::{Packet, checksum};

    fn udp_packet(reply: bool) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
        let (ends, ports) = if reply {
            ([10, 0, 0, 9, 10, 0, 0, 2], [0, 53, 0x10, 0])
        } else {
            ([10, 0, 0, 2, 10, 0, 0, 9], [0x10, 0, 0, 53])
        };
        bytes.extend(ends);
        let check = checksum::internet(&bytes);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes.extend(ports);
        bytes.extend([0, 8, 0, 0]);
        bytes
    }

    #[test]
    fn timeout_policy_applies_from_the_first_packet() {
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let (query, answer) = (udp_packet(false), udp_packet(true));
        let mut ctx = engine.track(&Packet::parse(&query).unwrap(), Zone::default(), Instant(0));
        let timeouts = engine.add_timeout_policy(&[(Sysctl::UdpTimeout, 5), (Sysctl::UdpTimeoutStream, 7)]).unwrap();
        engine.set_timeout_policy(&mut ctx, timeouts);
        let conn_id = engine.confirm(ctx, Instant(0)).connection.unwrap();
        assert_eq!(engine.entry(conn_id, Instant(0)).unwrap().timeout, 5);
        engine.handle(&Packet::parse(&answer).unwrap(), Zone::default(), Instant(0));
        assert_eq!(engine.entry(conn_id, Instant(0)).unwrap().timeout, 5);
        let later = Instant(3_000_000_000);
        engine.handle(&Packet::parse(&query).unwrap(), Zone::default(), later);
        assert_eq!(engine.entry(conn_id, later).unwrap().timeout, 7);
        // Settings of the policy stay; all others follow the sysctls.
        engine.set_sysctl(Sysctl::UdpTimeoutStream, 100).unwrap();
        engine.set_sysctl(Sysctl::Checksum, 0).unwrap();
        assert!(!engine.timeout_policies[0].sysctls.is_enabled(Sysctl::Checksum));
        engine.handle(&Packet::parse(&query).unwrap(), Zone::default(), later);
        assert_eq!(engine.entry(conn_id, later).unwrap().timeout, 7);
    }
}
