//! One line of sysctl.d, and what a run over many of them writes.
use super::file_line::{FileLine, config_lines};
use super::glob;
use crate::sysctl;
use std::collections::BTreeSet;

/// A line as it stands in a file. A key without a value is kept from patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SysctlSetting {
    /// With slashes, below `/proc/sys`.
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) location: FileLine,
}

/// A value written to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SysctlWrite {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) location: FileLine,
}

/// The lines of one file. Lines that say nothing to sysctl are passed over, as it does.
pub(super) fn parse_settings(file: &str, text: &str) -> Vec<SysctlSetting> {
    let read = config_lines(text).filter_map(|(number, line)| {
        let place = FileLine::new(file, number);
        match line.split_once('=') {
            Some((key, value)) => {
                let key = key.trim();
                // The sign says only that a failure is no error.
                let key = key.strip_prefix('-').unwrap_or(key);
                Some(SysctlSetting {
                    key: slash_key(key.trim()),
                    value: Some(value.trim().to_owned()),
                    location: place,
                })
            }
            None => {
                Some(SysctlSetting { key: slash_key(line.strip_prefix('-')?.trim()), value: None, location: place })
            }
        }
    });
    read.filter(|setting| !setting.key.is_empty()).collect()
}

/// What is written, in order. `keys` are those that patterns are held against.
///
/// `systemd-sysctl` collects before it writes: a key named twice is written once, where the last different value stood.
/// Whoever names a key, a pattern leaves it alone.
pub(super) fn resolve_writes(settings: &[SysctlSetting], keys: &[String], collects: bool) -> Vec<SysctlWrite> {
    let mut order = Vec::<&SysctlSetting>::new();
    for setting in settings {
        let earlier = order.iter().position(|other| other.key == setting.key).filter(|_| collects);
        if let Some(earlier) = earlier {
            if order.get(earlier).is_some_and(|other| other.value == setting.value) {
                continue;
            }
            order.remove(earlier);
        }
        order.push(setting);
    }
    let named = order.iter().map(|setting| setting.key.as_str()).filter(|key| !glob::is_glob(key));
    let named = named.collect::<BTreeSet<&str>>();
    let mut writes = Vec::new();
    for setting in &order {
        let Some(value) = &setting.value else { continue };
        let mut write = |key: &str| {
            writes.push(SysctlWrite { key: key.to_owned(), value: value.clone(), location: setting.location.clone() })
        };
        if glob::is_glob(&setting.key) {
            let free = keys.iter().filter(|key| !named.contains(key.as_str()));
            free.filter(|key| glob::matches(&setting.key, key)).for_each(|key| write(key));
        } else {
            write(&setting.key);
        }
    }
    writes
}

/// The key with slashes, however it is written. A path from `/proc` is no key: neither sysctl takes it for one.
pub(super) fn slash_key(key: &str) -> String {
    let path = sysctl::path(key);
    let below = path.strip_prefix("/proc/sys").unwrap_or(&path);
    below.to_string_lossy().into_owned()
}

/// The name a conntrack key's value goes by here; none for other keys. The two names of the limit are one value.
pub(super) fn canonical_key(key: &str) -> Option<String> {
    match slash_key(key).as_str() {
        "net/nf_conntrack_max" => Some(CONNTRACK_MAX_KEY.to_owned()),
        slashed => {
            let name = slashed.strip_prefix("net/netfilter/").filter(|name| name.starts_with("nf_conntrack_"))?;
            Some(format!("net.netfilter.{name}"))
        }
    }
}

/// The limit's key.
pub(super) const CONNTRACK_MAX_KEY: &str = "net.netfilter.nf_conntrack_max";

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, keys: &[&str], collects: bool) -> Vec<(String, String, usize)> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let writes = resolve_writes(&parse_settings("f", text), &keys, collects);
        writes.into_iter().map(|write| (write.key, write.value, write.location.line)).collect()
    }

    #[test]
    fn keys_with_dots_slashes_and_dash_are_parsed() {
        let text = "# a\n; b\n\nnet/a/b.c = 1 2 \n-net.a.d/e=3\nnonsense\n-net.x\n";
        let read = parse_settings("f", text);
        let seen =
            read.iter().map(|one| (one.key.as_str(), one.value.as_deref(), one.location.line)).collect::<Vec<_>>();
        assert_eq!(seen, [("net/a/b.c", Some("1 2"), 4), ("net/a/d.e", Some("3"), 5), ("net/x", None, 7)]);
        assert_eq!(canonical_key("net.nf_conntrack_max").as_deref(), Some(CONNTRACK_MAX_KEY));
        assert_eq!(canonical_key("/proc/sys/net/netfilter/nf_conntrack_max"), None);
        assert_eq!(canonical_key("net.ipv4.ip_forward"), None);
    }

    #[test]
    fn a_glob_does_not_override_an_explicit_key() {
        let text = "net.a = 1\nnet.* = 9\n-net.b\n";
        let expected = [("net/a".to_owned(), "1".to_owned(), 1), ("net/c".to_owned(), "9".to_owned(), 2)];
        assert_eq!(resolved(text, &["net/a", "net/b", "net/c"], true), expected);
    }

    #[test]
    fn systemd_sysctl_writes_a_repeated_key_once_at_its_last_change() {
        let order = |collects| -> Vec<usize> {
            resolved("a=1\nb=2\na=1\nb=3\n", &[], collects).into_iter().map(|(_, _, line)| line).collect()
        };
        assert_eq!((order(true), order(false)), (vec![1, 4], vec![1, 2, 3, 4]));
        assert!(resolved("a=1\n-a\n", &[], true).is_empty(), "a key without a value takes the earlier value back");
    }
}
