//! The kernel's limits of ICMP errors, which are the gateway's too: read at the start and once a second from then on, so that `sysctl -w` has effect.
//!
//! The files are opened once: a running gateway may not open them any more (Landlock). One that does not exist, or says what is not understood, leaves the limit as it is.
use keepstate_router::IcmpLimits;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How often they are read.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest value: a list of types.
const MAX_VALUE: usize = 1024;

/// The open files, and what they have said.
pub(crate) struct IcmpSysctls {
    files: [Option<File>; 6],
    limits: IcmpLimits,
    read_at: Instant,
}

impl IcmpSysctls {
    /// Opens and reads them.
    pub(crate) fn open() -> IcmpSysctls {
        let files = [
            "ipv4/icmp_ratelimit",
            "ipv4/icmp_ratemask",
            "ipv4/icmp_msgs_per_sec",
            "ipv4/icmp_msgs_burst",
            "ipv6/icmp/ratelimit",
            "ipv6/icmp/ratemask",
        ]
        .map(|name| File::open(format!("/proc/sys/net/{name}")).ok());
        let mut sysctls = IcmpSysctls { files, limits: IcmpLimits::default(), read_at: Instant::now() };
        sysctls.limits = sysctls.read();
        sysctls
    }

    /// What they said when they were last read.
    pub(crate) fn limits(&self) -> IcmpLimits {
        self.limits.clone()
    }

    /// Reads them again, if it is time; what they say, if that has changed.
    pub(crate) fn poll(&mut self) -> Option<IcmpLimits> {
        if self.read_at.elapsed() < INTERVAL {
            return None;
        }
        self.read_at = Instant::now();
        let limits = self.read();
        let changed = limits != self.limits;
        self.limits = limits;
        changed.then(|| self.limits())
    }

    fn read(&self) -> IcmpLimits {
        let mut values = self.files.iter().map(|file| file.as_ref().and_then(read_value));
        let mut next = || values.next().flatten().unwrap_or_default();
        let [interval_v4, types_v4, per_second, burst, interval_v6, types_v6]: [String; 6] =
            std::array::from_fn(|_| next());
        let before = &self.limits;
        let milliseconds = |text: &str, before| text.parse().map_or(before, Duration::from_millis);
        IcmpLimits {
            interval_v4: milliseconds(&interval_v4, before.interval_v4),
            // Linux lists the 32 bits as a signed number.
            types_v4: types_v4.parse::<i64>().map_or(before.types_v4, |bits| bits as u32),
            interval_v6: milliseconds(&interval_v6, before.interval_v6),
            types_v6: parse_types(&types_v6).unwrap_or(before.types_v6),
            per_second: per_second.parse().unwrap_or(before.per_second),
            burst: burst.parse().unwrap_or(before.burst),
        }
    }
}

fn read_value(file: &File) -> Option<String> {
    let mut bytes = [0; MAX_VALUE];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let text = String::from_utf8_lossy(bytes.get(..length)?).trim().to_owned();
    Some(text)
}

/// `0-1,3-127`: a bit for each type.
fn parse_types(text: &str) -> Option<[u64; 4]> {
    let mut bits = [0; 4];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last]: [u8; 2] = [first.parse().ok()?, last.parse().ok()?];
        for one in first..=last {
            *bits.get_mut(usize::from(one / 64))? |= 1 << (one % 64);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_types_are_read() {
        assert_eq!(parse_types("0-1,3-127"), Some(IcmpLimits::default().types_v6));
        assert_eq!(parse_types("1,255"), Some([2, 0, 0, 1 << 63]));
        assert_eq!(parse_types("3-1"), Some([0; 4]));
        for text in ["", "1-", "256", "x", "1,,2"] {
            assert_eq!(parse_types(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_there_leaves_the_limits_as_they_are() {
        let before = IcmpLimits { per_second: 7, ..IcmpLimits::default() };
        let sysctls = IcmpSysctls { files: Default::default(), limits: before.clone(), read_at: Instant::now() };
        assert_eq!(sysctls.read(), before);
    }
}
