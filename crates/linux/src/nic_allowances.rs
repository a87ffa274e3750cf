//! Packets dropped by limits of the cloud's network, outside this machine.
//!
//! Amazon's ENA counts them as `…_allowance_exceeded`; `ethtool -S` shows them. Virtual interfaces have none and are not asked.
use crate::command::{self, CommandError};
use crate::sysroot::SysRoot;

/// A counter that is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicAllowance {
    /// The device.
    pub interface: String,
    /// The counter, as the driver calls it.
    pub name: String,
    /// Packets.
    pub packets: u64,
}

/// The counters found, and the errors.
#[derive(Clone, Debug, Default)]
pub struct NicAllowances {
    /// Every such counter, also those that stand at zero.
    pub counters: Vec<NicAllowance>,
    /// Why an interface could not be asked.
    pub errors: Vec<CommandError>,
}

/// Bytes of one device's counters that are read: some have hundreds of queues.
const MAX_OUTPUT: u64 = 1 << 20;

/// The counters of every device of this thread's namespace, or those found in files.
pub fn read(root: &SysRoot) -> NicAllowances {
    let mut found = NicAllowances::default();
    if root.is_live() {
        for device in root.list_dir("/sys/class/net").unwrap_or_default() {
            if !root.exists(format!("/sys/class/net/{device}/device")) {
                continue;
            }
            match command::output(root, &["ethtool", "-S", &device], MAX_OUTPUT) {
                Ok(text) => found.counters.extend(parse(&device, &text)),
                // A driver without counters says so by failing.
                Err(CommandError::Failed { .. }) => (),
                Err(silent) => {
                    found.errors.push(silent);
                    break;
                }
            }
        }
    } else {
        for path in command::collected_files(root, &["ethtool", "-S", ""]) {
            let device = path.rsplit("ethtool_-S_").next().unwrap_or_default().to_owned();
            if let Ok(text) = root.read(&path) {
                found.counters.extend(parse(&device, &text));
            }
        }
    }
    found
}

/// The counters in what `ethtool -S` printed.
pub fn parse(device: &str, text: &str) -> Vec<NicAllowance> {
    let counter = |line: &str| {
        let (name, packets) = line.split_once(':')?;
        let name = name.trim();
        let packets = packets.trim().parse().ok()?;
        name.ends_with("_allowance_exceeded").then(|| NicAllowance {
            interface: device.to_owned(),
            name: name.to_owned(),
            packets,
        })
    };
    text.lines().filter_map(counter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_ena_allowance_counters() {
        let text = "NIC statistics:\n     tx_timeout: 0\n     conntrack_allowance_exceeded: 1204\n     pps_allowance_exceeded: x\n";
        let expected =
            NicAllowance { interface: "eth0".into(), name: "conntrack_allowance_exceeded".into(), packets: 1204 };
        assert_eq!(parse("eth0", text), [expected]);
    }
}
