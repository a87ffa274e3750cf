//! The sysctls `net.netfilter.nf_conntrack_*`: names, defaults, ranges, values.
use core::ops::Index;
use thiserror::Error;

macro_rules! sysctls {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $default:literal, $kind:ident;)*
     without a file in Linux: $($(#[doc = $own_doc:literal])+ $own:ident = $own_name:literal, $own_default:literal, $own_kind:ident;)*) => {
        /// One sysctl, or a timeout that only policies change. Its [name](Sysctl::name) is the last part of the key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        #[non_exhaustive]
        pub enum Sysctl { $($(#[doc = $doc])+ $variant,)* $($(#[doc = $own_doc])+ $own,)* }

        impl Sysctl {
            /// Every sysctl, sorted by name.
            pub const ALL: &'static [Sysctl] = &[$(Sysctl::$variant,)*];
            /// Also what Linux has no file for.
            pub(crate) const EVERY: &'static [Sysctl] = &[$(Sysctl::$variant,)* $(Sysctl::$own,)*];
            const TABLE: [(&'static str, u32, ValueKind); Sysctl::EVERY.len()] =
                [$(($name, $default, ValueKind::$kind),)* $(($own_name, $own_default, ValueKind::$own_kind),)*];
            const HELP: [&'static str; Sysctl::EVERY.len()] = [$(concat!($($doc),+),)* $(concat!($($own_doc),+),)*];
        }
    };
}

/// The values that a sysctl accepts.
#[derive(Clone, Copy)]
enum ValueKind {
    /// 0 or 1.
    Switch,
    /// 0, 1 or 2.
    ZeroToTwo,
    /// 0 to 255.
    Byte,
    /// 0 to 4294967295.
    Number,
    /// Whole seconds.
    Seconds,
    /// Read-only.
    ReadOnly,
}

sysctls! {
    /// Count packets and bytes of connections created from now on.
    Acct = "nf_conntrack_acct", 0, Switch;
    /// Size of the index: as much memory as Linux uses for this many buckets. It grows when connections need more.
    Buckets = "nf_conntrack_buckets", 262144, Number;
    /// Verify checksums; a packet with a bad one is invalid.
    Checksum = "nf_conntrack_checksum", 1, Switch;
    /// Number of connections (read-only).
    Count = "nf_conntrack_count", 0, ReadOnly;
    /// Report events: 0 never, 1 always, 2 while there is a subscriber.
    Events = "nf_conntrack_events", 2, ZeroToTwo;
    /// Maximum number of expectations.
    ExpectMax = "nf_conntrack_expect_max", 4096, Number;
    /// Maximum bytes of queued IPv6 fragments; above it the oldest are dropped.
    Frag6HighThresh = "nf_conntrack_frag6_high_thresh", 4194304, Number;
    /// Bytes of IPv6 fragments down to which the oldest are dropped (no effect in recent kernels).
    Frag6LowThresh = "nf_conntrack_frag6_low_thresh", 3145728, Number;
    /// Seconds to wait for missing IPv6 fragments.
    Frag6Timeout = "nf_conntrack_frag6_timeout", 60, Seconds;
    /// Seconds for protocols without their own tracker.
    GenericTimeout = "nf_conntrack_generic_timeout", 600, Seconds;
    /// Seconds for GRE without a reply.
    GreTimeout = "nf_conntrack_gre_timeout", 30, Seconds;
    /// Seconds for GRE seen in both directions.
    GreTimeoutStream = "nf_conntrack_gre_timeout_stream", 180, Seconds;
    /// Seconds for an ICMP query.
    IcmpTimeout = "nf_conntrack_icmp_timeout", 30, Seconds;
    /// Seconds for an ICMPv6 query.
    Icmpv6Timeout = "nf_conntrack_icmpv6_timeout", 30, Seconds;
    /// Log invalid packets of this protocol number; 255 for all, 0 for none.
    LogInvalid = "nf_conntrack_log_invalid", 0, Byte;
    /// Maximum number of connections.
    Max = "nf_conntrack_max", 262144, Number;
    /// Seconds in CLOSED.
    SctpTimeoutClosed = "nf_conntrack_sctp_timeout_closed", 10, Seconds;
    /// Seconds in COOKIE_ECHOED.
    SctpTimeoutCookieEchoed = "nf_conntrack_sctp_timeout_cookie_echoed", 3, Seconds;
    /// Seconds in COOKIE_WAIT.
    SctpTimeoutCookieWait = "nf_conntrack_sctp_timeout_cookie_wait", 3, Seconds;
    /// Seconds in ESTABLISHED.
    SctpTimeoutEstablished = "nf_conntrack_sctp_timeout_established", 210, Seconds;
    /// Seconds in HEARTBEAT_SENT.
    SctpTimeoutHeartbeatSent = "nf_conntrack_sctp_timeout_heartbeat_sent", 30, Seconds;
    /// Seconds in SHUTDOWN_ACK_SENT.
    SctpTimeoutShutdownAckSent = "nf_conntrack_sctp_timeout_shutdown_ack_sent", 3, Seconds;
    /// Seconds in SHUTDOWN_RECD.
    SctpTimeoutShutdownRecd = "nf_conntrack_sctp_timeout_shutdown_recd", 3, Seconds;
    /// Seconds in SHUTDOWN_SENT.
    SctpTimeoutShutdownSent = "nf_conntrack_sctp_timeout_shutdown_sent", 3, Seconds;
    /// Let out-of-window segments pass, except RSTs.
    TcpBeLiberal = "nf_conntrack_tcp_be_liberal", 0, Switch;
    /// Do not mark out-of-window RSTs as invalid.
    TcpIgnoreInvalidRst = "nf_conntrack_tcp_ignore_invalid_rst", 0, Switch;
    /// Pick up established connections whose handshake was not seen.
    TcpLoose = "nf_conntrack_tcp_loose", 1, Switch;
    /// Retransmissions without a reply after which the timeout is lowered.
    TcpMaxRetrans = "nf_conntrack_tcp_max_retrans", 3, Byte;
    /// Seconds in CLOSE.
    TcpTimeoutClose = "nf_conntrack_tcp_timeout_close", 10, Seconds;
    /// Seconds in CLOSE_WAIT.
    TcpTimeoutCloseWait = "nf_conntrack_tcp_timeout_close_wait", 60, Seconds;
    /// Seconds in ESTABLISHED.
    TcpTimeoutEstablished = "nf_conntrack_tcp_timeout_established", 432000, Seconds;
    /// Seconds in FIN_WAIT.
    TcpTimeoutFinWait = "nf_conntrack_tcp_timeout_fin_wait", 120, Seconds;
    /// Seconds in LAST_ACK.
    TcpTimeoutLastAck = "nf_conntrack_tcp_timeout_last_ack", 30, Seconds;
    /// Seconds after too many retransmissions, or with a zero window.
    TcpTimeoutMaxRetrans = "nf_conntrack_tcp_timeout_max_retrans", 300, Seconds;
    /// Seconds in SYN_RECV.
    TcpTimeoutSynRecv = "nf_conntrack_tcp_timeout_syn_recv", 60, Seconds;
    /// Seconds in SYN_SENT.
    TcpTimeoutSynSent = "nf_conntrack_tcp_timeout_syn_sent", 120, Seconds;
    /// Seconds in TIME_WAIT.
    TcpTimeoutTimeWait = "nf_conntrack_tcp_timeout_time_wait", 120, Seconds;
    /// Seconds while data is unacknowledged.
    TcpTimeoutUnacknowledged = "nf_conntrack_tcp_timeout_unacknowledged", 300, Seconds;
    /// Record start and stop times of connections created from now on.
    Timestamp = "nf_conntrack_timestamp", 0, Switch;
    /// Seconds for UDP without a reply.
    UdpTimeout = "nf_conntrack_udp_timeout", 30, Seconds;
    /// Seconds for a UDP stream.
    UdpTimeoutStream = "nf_conntrack_udp_timeout_stream", 120, Seconds;

    without a file in Linux:
    /// Seconds in SYN_SENT2, of a simultaneous open: only a timeout policy changes it.
    TcpTimeoutSynSent2 = "nf_conntrack_tcp_timeout_syn_sent2", 120, Seconds;
}

/// The longest timeout: Linux stores timeouts as an `int` of ticks (CONFIG_HZ=250) and rejects longer ones.
const MAX_TIMEOUT_SECONDS: u64 = (i32::MAX as u64) / crate::time::TICKS_PER_SECOND;

impl Sysctl {
    /// Its name, without `net.netfilter.`.
    pub const fn name(self) -> &'static str {
        Sysctl::TABLE[self as usize].0
    }
    /// Its default in Linux 6.18 on a machine with more than 4 GiB of memory.
    pub const fn default_value(self) -> u32 {
        Sysctl::TABLE[self as usize].1
    }
    /// What it does, in one sentence.
    pub fn help(self) -> &'static str {
        Sysctl::HELP[self as usize].trim()
    }
    /// The one of this name, with those that Linux has no file for.
    pub(crate) fn any_by_name(name: &str) -> Option<Sysctl> {
        Sysctl::EVERY.iter().copied().find(|sysctl| sysctl.name() == name)
    }
    /// Its unit, for display: `seconds`, or empty.
    pub const fn unit(self) -> &'static str {
        match Sysctl::TABLE[self as usize].2 {
            ValueKind::Seconds => "seconds",
            _ => "",
        }
    }
    /// The smallest and the largest value it accepts; `None` if it is read-only.
    pub const fn range(self) -> Option<(u64, u64)> {
        match Sysctl::TABLE[self as usize].2 {
            ValueKind::Switch => Some((0, 1)),
            ValueKind::ZeroToTwo => Some((0, 2)),
            ValueKind::Byte => Some((0, 255)),
            ValueKind::Number => Some((0, u32::MAX as u64)),
            ValueKind::Seconds => Some((0, MAX_TIMEOUT_SECONDS)),
            ValueKind::ReadOnly => None,
        }
    }
    /// Finds a sysctl by any spelling that sysctl(8) accepts: `net.netfilter.nf_conntrack_max`, `net/netfilter/nf_conntrack_max`,
    /// `nf_conntrack_max`, and the old `net.nf_conntrack_max`.
    ///
    /// ```
    /// use keepstate_engine::Sysctl;
    /// assert_eq!(Sysctl::from_name("net.netfilter.nf_conntrack_tcp_loose"), Some(Sysctl::TcpLoose));
    /// assert_eq!(Sysctl::from_name("net/nf_conntrack_max"), Some(Sysctl::Max));
    /// assert_eq!(Sysctl::from_name("net.ipv4.ip_forward"), None);
    /// ```
    pub fn from_name(key: &str) -> Option<Sysctl> {
        let name =
            ["net.netfilter.", "net/netfilter/"].iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key);
        if matches!(name, "net.nf_conntrack_max" | "net/nf_conntrack_max") {
            return Some(Sysctl::Max);
        }
        Sysctl::ALL.iter().copied().find(|sysctl| sysctl.name() == name)
    }
}

/// Why a sysctl could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// The value is out of the sysctl's range.
    #[error("{} takes {min} to {max}, not {value}", sysctl.name())]
    OutOfRange {
        /// The sysctl.
        sysctl: Sysctl,
        /// The rejected value.
        value: u64,
        /// The smallest value it accepts.
        min: u64,
        /// The largest value it accepts.
        max: u64,
    },
    /// The sysctl is read-only.
    #[error("{} can only be read", .0.name())]
    ReadOnly(Sysctl),
}

/// The value of every sysctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctls([u32; Sysctl::EVERY.len()]);

impl Default for Sysctls {
    fn default() -> Self {
        Sysctls(core::array::from_fn(|at| Sysctl::TABLE[at].1))
    }
}

impl Index<Sysctl> for Sysctls {
    type Output = u32;
    fn index(&self, sysctl: Sysctl) -> &u32 {
        &self.0[sysctl as usize]
    }
}

impl Sysctls {
    /// The defaults that a kernel of `generation` computes on a machine with `memory` bytes (without reserved pages).
    ///
    /// ```
    /// use keepstate_engine::{KernelVersion, Sysctl, Sysctls};
    /// // A "4 GB" machine has less than 4 GiB of managed memory: the common 65,536.
    /// let sysctls = Sysctls::kernel_defaults(KernelVersion::V5_15, 3_900_000_000);
    /// assert_eq!((sysctls[Sysctl::Max], sysctls[Sysctl::Buckets]), (65536, 65536));
    /// ```
    pub fn kernel_defaults(generation: KernelVersion, memory: u64) -> Sysctls {
        let mut sysctls = Sysctls::default();
        let (buckets, max) = generation.table_sizes(memory);
        sysctls.set_unchecked(Sysctl::Buckets, buckets);
        sysctls.set_unchecked(Sysctl::Max, max);
        sysctls.set_unchecked(Sysctl::ExpectMax, (buckets / 256).max(1) * 4);
        if matches!(generation, KernelVersion::V3_10 | KernelVersion::V4_19) {
            sysctls.set_unchecked(Sysctl::Events, 1);
            sysctls.set_unchecked(Sysctl::UdpTimeoutStream, 180);
        }
        sysctls
    }

    /// Sets one sysctl.
    ///
    /// # Errors
    /// The value is out of range, or the sysctl is read-only. Then nothing has changed.
    pub fn set(&mut self, sysctl: Sysctl, value: u64) -> Result<(), SysctlError> {
        let (least, greatest) = sysctl.range().ok_or(SysctlError::ReadOnly(sysctl))?;
        match u32::try_from(value) {
            Ok(number) if (least..=greatest).contains(&value) => {
                self.set_unchecked(sysctl, number);
                Ok(())
            }
            _ => Err(SysctlError::OutOfRange { sysctl, value, min: least, max: greatest }),
        }
    }

    fn set_unchecked(&mut self, sysctl: Sysctl, value: u32) {
        self.0[sysctl as usize] = value;
    }

    /// Is this switch on?
    pub fn is_enabled(&self, sysctl: Sysctl) -> bool {
        self[sysctl] != 0
    }
}

/// A range of kernel versions that compute defaults alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KernelVersion {
    /// Up to 3.19: as 4.19, but never more than 16,384 buckets.
    V3_10,
    /// 4.0 to 5.14: four entries a bucket.
    V4_19,
    /// 5.15 to 6.17: one entry a bucket.
    V5_15,
    /// 6.18.
    #[default]
    V6_18,
}

impl KernelVersion {
    /// The defaults of `nf_conntrack_buckets` and `nf_conntrack_max` on a machine with `memory` bytes.
    pub fn table_sizes(self, memory: u64) -> (u32, u32) {
        const GIB: u64 = 1 << 30;
        const BUCKETS_PER_PAGE: u64 = 512;
        let share = memory / 16384 / 8;
        let buckets = match self {
            KernelVersion::V4_19 if memory > 4 * GIB => 65536,
            KernelVersion::V3_10 | KernelVersion::V4_19 if memory > GIB => 16384,
            KernelVersion::V3_10 | KernelVersion::V4_19 => share.max(32),
            KernelVersion::V5_15 | KernelVersion::V6_18 if memory > 4 * GIB => 262_144,
            KernelVersion::V5_15 | KernelVersion::V6_18 if memory > GIB => 65536,
            KernelVersion::V5_15 | KernelVersion::V6_18 => share.max(1024),
        };
        let buckets = u32::try_from(buckets.next_multiple_of(BUCKETS_PER_PAGE)).unwrap_or(u32::MAX);
        let entries_a_bucket = if matches!(self, KernelVersion::V3_10 | KernelVersion::V4_19) { 4 } else { 1 };
        (buckets, buckets.saturating_mul(entries_a_bucket))
    }
}
