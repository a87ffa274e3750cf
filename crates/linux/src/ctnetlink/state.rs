//! The states of protocols, by the kernel's numbers.

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $text] $variant = $number,)* }
        impl $name {
            /// Every state, by number.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The state with this number, if there is one.
            pub const fn numbered(number: u8) -> Option<$name> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }
            /// Its number.
            pub const fn number(self) -> u8 {
                match self { $($name::$variant => $number,)* }
            }
            /// As the kernel and `conntrack` print it.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

states! {
    /// Of a TCP connection.
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
    /// Of an SCTP association.
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
