//! The states of TCP and SCTP, by the kernel's numbers and names.
use core::fmt;
use core::str::FromStr;

/// A name that is no state or status bit of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName;

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown name")
    }
}

impl core::error::Error for UnknownName {}

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $text] #[cfg_attr(feature = "serde", serde(rename = $text))] $variant = $number,)*
        }

        impl $name {
            /// Every state, in the order of the kernel's numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The state with this number, if there is one.
            pub const fn from_number(number: u8) -> Option<$name> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }

            /// The kernel's number.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The name that the kernel and `conntrack` print.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<$name, UnknownName> {
                $name::ALL.iter().copied().find(|state| state.name() == name).ok_or(UnknownName)
            }
        }
    };
}

states! {
    /// The states of a TCP connection (`enum tcp_conntrack`).
    TcpState {
        None = 0 "NONE",
        SynSent = 1 "SYN_SENT",
        SynRecv = 2 "SYN_RECV",
        Established = 3 "ESTABLISHED",
        FinWait = 4 "FIN_WAIT",
        CloseWait = 5 "CLOSE_WAIT",
        LastAck = 6 "LAST_ACK",
        TimeWait = 7 "TIME_WAIT",
        Close = 8 "CLOSE",
        SynSent2 = 9 "SYN_SENT2",
    }
}

states! {
    /// The states of an SCTP association (`enum sctp_conntrack`).
    SctpState {
        None = 0 "NONE",
        Closed = 1 "CLOSED",
        CookieWait = 2 "COOKIE_WAIT",
        CookieEchoed = 3 "COOKIE_ECHOED",
        Established = 4 "ESTABLISHED",
        ShutdownSent = 5 "SHUTDOWN_SENT",
        ShutdownRecd = 6 "SHUTDOWN_RECD",
        ShutdownAckSent = 7 "SHUTDOWN_ACK_SENT",
        HeartbeatSent = 8 "HEARTBEAT_SENT",
    }
}
