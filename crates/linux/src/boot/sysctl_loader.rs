//! Which program reads sysctl.d at boot.
use super::ineffective_line::{IneffectiveLine, number_without_separators};
use super::overlay::Overlay;
use super::setting::{SysctlSetting, canonical_key, parse_settings};

/// The program that reads `sysctl.d` at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SysctlLoader {
    /// `systemd-sysctl`, after the modules of `modules-load.d`; it does not read `/etc/sysctl.conf`.
    SystemdSysctl,
    /// A script that runs `sysctl --system`, which reads `/etc/sysctl.conf` last.
    Procps,
    /// None; with the reason.
    NotLoaded(String),
}

impl SysctlLoader {
    pub(super) fn detect(tree: &Overlay<'_>) -> SysctlLoader {
        let first = tree.read_proc("/proc/1/comm").map(|name| name.trim().to_owned());
        let any = |paths: &[&str]| paths.iter().any(|path| tree.exists(path));
        let systemd = match first.as_deref() {
            Some("systemd") => true,
            // Another first process is a container's: what is installed there is not what starts it.
            Some(other) if other != "init" && !other.is_empty() => {
                return SysctlLoader::NotLoaded(format!("the first process is {other}, which does not read sysctl.d"));
            }
            _ => any(&["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/run/systemd/system"]),
        };
        if systemd {
            let unit = "/etc/systemd/system/systemd-sysctl.service";
            return match tree.is_masked(unit) {
                true => SysctlLoader::NotLoaded(format!("{unit} is masked (a link to /dev/null)")),
                false => SysctlLoader::SystemdSysctl,
            };
        }
        if any(&["/etc/init.d/procps", "/etc/init.d/sysctl", "/etc/rc.d/rc.sysinit"]) {
            return SysctlLoader::Procps;
        }
        SysctlLoader::NotLoaded("no systemd, and no script that runs sysctl at boot".to_owned())
    }

    /// Every line of `sysctl.d`, in the order `systemd-sysctl` or `sysctl --system` reads them.
    pub(super) fn settings_in_order(tree: &Overlay<'_>, systemd: bool) -> Vec<SysctlSetting> {
        let files = tree.drop_ins("sysctl.d", ".conf");
        let linked = files.iter().any(|file| tree.is_same_file(&file.path, SYSCTL_CONF));
        let mut all = files.iter().flat_map(|file| parse_settings(&file.path, &file.text)).collect::<Vec<_>>();
        let conf = tree.read(SYSCTL_CONF).map(|text| parse_settings(SYSCTL_CONF, &text)).unwrap_or_default();
        if !systemd {
            all.extend(conf);
        } else if !linked && let Some(lost) = conf.iter().find(|setting| canonical_key(&setting.key).is_some()) {
            let value = lost.value.as_deref().unwrap_or_default();
            tree.add_ineffective(IneffectiveLine {
                location: lost.location.clone(),
                setting: format!("{} = {value}", lost.key.replace('/', ".")),
                reason: "is not read at boot: systemd-sysctl reads sysctl.d only".to_owned(),
                key: canonical_key(&lost.key),
                value: number_without_separators(value),
            });
        }
        all
    }
}

const SYSCTL_CONF: &str = "/etc/sysctl.conf";
