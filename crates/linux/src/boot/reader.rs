//! Who reads sysctl.d at boot.
use super::setting::{Setting, canonical, settings};
use super::tree::Tree;

/// Who reads `sysctl.d` at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// `systemd-sysctl`, after the modules of `modules-load.d`; it does not read `/etc/sysctl.conf`.
    Systemd,
    /// A script that runs `sysctl --system`, which reads `/etc/sysctl.conf` last.
    Procps,
    /// Nobody: why.
    Nobody(String),
}

impl Reader {
    pub(super) fn find(tree: &Tree<'_>) -> Reader {
        let first = tree.fleeting("/proc/1/comm").map(|name| name.trim().to_owned());
        let any = |paths: &[&str]| paths.iter().any(|path| tree.exists(path));
        let systemd = match first.as_deref() {
            Some("systemd") => true,
            // Another first process is a container's: what is installed there is not what starts it.
            Some(other) if other != "init" && !other.is_empty() => {
                return Reader::Nobody(format!("the first process is {other}, which reads no sysctl.d"));
            }
            _ => any(&["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/run/systemd/system"]),
        };
        if systemd {
            let unit = "/etc/systemd/system/systemd-sysctl.service";
            return match tree.is_masked(unit) {
                true => Reader::Nobody(format!("{unit} is a link to /dev/null: the service is masked")),
                false => Reader::Systemd,
            };
        }
        if any(&["/etc/init.d/procps", "/etc/init.d/sysctl", "/etc/rc.d/rc.sysinit"]) {
            return Reader::Procps;
        }
        Reader::Nobody("there is neither systemd nor a script that runs sysctl at boot".to_owned())
    }

    /// Every line of `sysctl.d`, in the order `systemd-sysctl` or `sysctl --system` reads them.
    pub(super) fn lines(tree: &Tree<'_>, systemd: bool) -> Vec<Setting> {
        let files = tree.drop_ins("sysctl.d", ".conf");
        let linked = files.iter().any(|file| tree.is_same(&file.path, CONF));
        let mut all = files.iter().flat_map(|file| settings(&file.path, &file.text)).collect::<Vec<_>>();
        let conf = tree.read(CONF).map(|text| settings(CONF, &text)).unwrap_or_default();
        if !systemd {
            all.extend(conf);
        } else if !linked && let Some(lost) = conf.iter().find(|setting| canonical(&setting.key).is_some()) {
            tree.note(format!("{} is not read at boot: systemd-sysctl reads sysctl.d only", lost.place));
        }
        all
    }
}

const CONF: &str = "/etc/sysctl.conf";
