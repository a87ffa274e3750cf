//! Which files a bundle holds.

/// Files of each namespace, in this order.
pub const NAMESPACE_FILES: [&str; 6] = [
    "/proc/net/stat/nf_conntrack",
    "/proc/net/snmp",
    "/proc/net/sockstat",
    "/proc/net/sockstat6",
    "/proc/net/fib_trie",
    "/proc/net/if_inet6",
];

/// Files of the machine.
pub const MACHINE_FILES: [&str; 11] = [
    "/proc/1/comm",
    "/etc/tuned/active_profile",
    "/proc/sys/kernel/osrelease",
    "/proc/uptime",
    "/proc/meminfo",
    "/proc/modules",
    "/sys/module/nf_conntrack/initstate",
    "/sys/module/nf_conntrack/parameters/hashsize",
    "/run/.containerenv",
    "/.dockerenv",
    "/run/systemd/container",
];

/// Directories of configuration that may set sysctls or load the module.
pub const CONFIG_DIRECTORIES: [&str; 24] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
    "/lib/modules-load.d",
    "/etc/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
    "/etc/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
    "/etc/cloud/cloud.cfg.d",
    "/etc/cron.d",
    "/etc/rc.d",
    "/etc/local.d",
    "/etc/network/if-up.d",
    "/etc/NetworkManager/dispatcher.d",
    "/etc/systemd/system",
    "/var/spool/cron/crontabs",
];

/// Single configuration files of that kind.
pub const CONFIG_FILES: [&str; 8] = [
    "/etc/sysctl.conf",
    "/etc/modules",
    "/etc/rc.local",
    "/etc/crontab",
    "/etc/ufw/sysctl.conf",
    "/etc/network/interfaces",
    "/etc/cloud/cloud.cfg",
    "/etc/tuned/tuned-main.conf",
];

/// Directories of tuned profiles; each profile is a directory.
pub const TUNED_PROFILE_DIRECTORIES: [&str; 4] =
    ["/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned"];

/// Files whose existence shows who sets sysctls at boot; their content does not matter.
pub const MARKER_FILES: [&str; 7] = [
    "/sbin/sysctl",
    "/usr/sbin/sysctl",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd-sysctl",
    "/lib/systemd/systemd-sysctl",
    "/etc/init.d/procps",
];

/// Files whose numbers are none of addresses.
pub const KEPT_NUMBERS: [&str; 2] = ["/proc/sys/kernel/osrelease", "/proc/uptime"];

/// Process names of programs known to write conntrack sysctls; their command lines are collected.
pub const KNOWN_WRITERS: [&str; 5] = ["kube-proxy", "k3s-server", "k3s-agent", "tuned", "cilium-agent"];
