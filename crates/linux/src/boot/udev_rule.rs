//! udev rules that run sysctl when the module is loaded.
use super::file_line::FileLine;
use super::glob;
use super::overlay::Overlay;
use super::setting::{SysctlSetting, parse_settings, slash_key};

/// A rule that runs sysctl when `nf_conntrack` is added.
///
/// Conditions other than the event's own (`ACTION`, `SUBSYSTEM`, `KERNEL`, `DEVPATH`) are not known before it happens: such a
/// rule is passed over, with a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdevRule {
    /// Where it stands.
    pub location: FileLine,
    /// The command it runs.
    pub command: String,
    /// What the command writes.
    pub run: UdevSysctlRun,
}

/// What a command of a rule writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdevSysctlRun {
    /// All of sysctl.d, below these prefixes where there are any (with slashes, `net/netfilter`).
    Directories {
        /// Only keys at or below one of these; everything where there are none.
        prefixes: Vec<String>,
        /// Is it `systemd-sysctl` (which does not read `/etc/sysctl.conf`) or `sysctl --system` (which does)?
        systemd: bool,
    },
    /// These files alone.
    Files(Vec<String>),
    /// These assignments, `KEY=VALUE`.
    Assignments(Vec<String>),
    /// Nothing; with the reason.
    NoEffect(String),
}

impl UdevRule {
    /// All rules that run sysctl at that event, in the order udev reads them.
    pub(super) fn find(tree: &Overlay<'_>) -> Vec<UdevRule> {
        let mut rules = Vec::new();
        for file in tree.drop_ins("udev/rules.d", ".rules") {
            for (number, line) in logical_lines(&file.text) {
                let place = FileLine::new(&file.path, number);
                rules.extend(parse_rule(tree, &line, &place));
            }
        }
        rules
    }
}

impl UdevSysctlRun {
    /// Of a command, what follows the program up to the next command.
    fn parse_command(command: &str) -> Option<(String, UdevSysctlRun)> {
        let plain = command.replace(['\'', '"'], " ");
        let mut words = plain.split_whitespace();
        let program = words.find(|word| matches!(word.rsplit('/').next(), Some("systemd-sysctl" | "sysctl")))?;
        let systemd = program.ends_with("systemd-sysctl");
        let arguments = words.take_while(|word| !word.starts_with(['&', ';', '|']));
        let (mut prefixes, mut others, mut all) = (Vec::new(), Vec::new(), systemd);
        let mut wants_prefix = false;
        let mut loads = false;
        for word in arguments.map(|word| word.trim_end_matches(';')) {
            if std::mem::take(&mut wants_prefix) {
                prefixes.push(slash_key(word));
            } else if word == "--prefix" {
                wants_prefix = true;
            } else if let Some(prefix) = word.strip_prefix("--prefix=") {
                prefixes.push(slash_key(prefix));
            } else if word == "--system" {
                all = true;
            } else if let Some(file) = word.strip_prefix("--load=") {
                loads = true;
                others.push(file.to_owned());
            } else if let Some(file) = word.strip_prefix("-p") {
                loads = true;
                others.extend((!file.is_empty()).then(|| file.to_owned()));
            } else if word == "--load" {
                loads = true;
            } else if !word.starts_with('-') {
                others.push(word.to_owned());
            }
        }
        let rerun = match (systemd, all, loads) {
            // Files named to systemd-sysctl are read instead of the directories.
            (true, ..) if !others.is_empty() => UdevSysctlRun::Files(others),
            (_, true, _) => UdevSysctlRun::Directories { prefixes, systemd },
            (_, _, true) if others.is_empty() => UdevSysctlRun::Files(vec!["/etc/sysctl.conf".to_owned()]),
            (_, _, true) => UdevSysctlRun::Files(others),
            _ => UdevSysctlRun::Assignments(others),
        };
        Some((program.to_owned(), rerun))
    }

    /// The settings it would write, before what the directories hold is put in order.
    pub(super) fn settings(
        &self,
        tree: &Overlay<'_>,
        place: &FileLine,
        all: impl Fn(bool) -> Vec<SysctlSetting>,
    ) -> Vec<SysctlSetting> {
        match self {
            UdevSysctlRun::Directories { systemd, .. } => all(*systemd),
            UdevSysctlRun::Files(files) => {
                let texts = files.iter().filter_map(|file| Some((file, tree.read(file)?)));
                texts.flat_map(|(file, text)| parse_settings(file, &text)).collect()
            }
            UdevSysctlRun::Assignments(pairs) => {
                let pairs = pairs.iter().flat_map(|pair| parse_settings(&place.file, pair));
                pairs.map(|setting| SysctlSetting { location: place.clone(), ..setting }).collect()
            }
            UdevSysctlRun::NoEffect(_) => Vec::new(),
        }
    }

    /// Does it write this key (with slashes)? A prefix ends where a name ends.
    pub(super) fn covers_key(&self, key: &str) -> bool {
        let UdevSysctlRun::Directories { prefixes, .. } = self else { return true };
        prefixes.is_empty()
            || prefixes.iter().map(|prefix| prefix.trim_end_matches('/')).any(|prefix| {
                prefix.is_empty()
                    || key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }
}

/// The rule on a line, for each command of it that is sysctl's, where it holds for our event.
fn parse_rule(tree: &Overlay<'_>, line: &str, place: &FileLine) -> Vec<UdevRule> {
    let items = parse_udev_keys(line);
    let runs = items.iter().filter(|item| {
        item.operator != "==" && item.operator != "!=" && (item.key == "RUN" || item.key == "RUN{program}")
    });
    let commands = runs.filter_map(|item| {
        UdevSysctlRun::parse_command(&item.value).map(|(program, rerun)| (item.value.clone(), program, rerun))
    });
    let commands = commands.collect::<Vec<_>>();
    if commands.is_empty() {
        return Vec::new();
    }
    for item in items.iter().filter(|item| item.operator == "==" || item.operator == "!=") {
        match item.matches_module_add() {
            Some(true) => {}
            Some(false) => return Vec::new(),
            None => {
                tree.add_note(format!(
                    "{place} runs sysctl, but whether its condition {} holds is not known: not counted",
                    item.key
                ));
                return Vec::new();
            }
        }
    }
    // Without the program at its place the rule is void; a bundle holds no programs at all, and says nothing about it.
    let programs = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].iter().any(|path| tree.exists(path));
    let ruled = commands.into_iter().map(|(command, program, rerun)| {
        if let UdevSysctlRun::Directories { prefixes, .. } = &rerun
            && prefixes.iter().any(|prefix| prefix.starts_with("proc/sys"))
        {
            tree.add_note(format!(
                "{place}: a --prefix that begins with /proc/sys matches no key; write --prefix=/net/netfilter"
            ));
        }
        let void = programs && program.starts_with('/') && !tree.exists(&program);
        let writes = if void { UdevSysctlRun::NoEffect(format!("{program} does not exist")) } else { rerun };
        UdevRule { location: place.clone(), command, run: writes }
    });
    ruled.collect()
}

/// `KEY=="value"`.
struct UdevKey {
    key: String,
    operator: String,
    value: String,
}

impl UdevKey {
    /// Does it hold when the module is added? None where that cannot be known.
    fn matches_module_add(&self) -> Option<bool> {
        let ours = match self.key.as_str() {
            "ACTION" => "add",
            "SUBSYSTEM" | "SUBSYSTEMS" => "module",
            "KERNEL" | "KERNELS" => "nf_conntrack",
            "DEVPATH" => "/module/nf_conntrack",
            _ => return None,
        };
        let matched = self.value.split('|').any(|one| glob::matches(one, ours));
        Some(matched == (self.operator == "=="))
    }
}

/// The items of a rule; what is no item ends them.
fn parse_udev_keys(line: &str) -> Vec<UdevKey> {
    let mut items = Vec::new();
    let mut rest = line;
    while let Some((key, after)) = rest.split_once('"') {
        let key = key.trim_start_matches([',', ' ', '\t']).trim_end();
        let operator = ["==", "!=", "+=", "-=", ":=", "="].into_iter().find(|sign| key.ends_with(sign));
        let Some(operator) = operator else { break };
        let (value, beyond) = parse_quoted(after);
        let key = key.strip_suffix(operator).unwrap_or(key).trim().to_owned();
        items.push(UdevKey { key, operator: operator.to_owned(), value });
        rest = beyond;
    }
    items
}

/// A value up to its closing quote (`\"` is a letter), and what follows.
fn parse_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, text.get(at.saturating_add(1)..).unwrap_or_default()),
            '\\' if text.get(at..).is_some_and(|rest| rest.starts_with("\\\"")) => {
                letters.next();
                value.push('"');
            }
            other => value.push(other),
        }
    }
    (value, "")
}

/// The lines, those that end in a backslash joined with the next, numbered by the first.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut joined = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if open.is_none() && (line.is_empty() || line.starts_with('#')) {
            continue;
        }
        let (number, mut whole) = open.take().unwrap_or((index.saturating_add(1), String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                open = Some((number, whole));
            }
            None => {
                whole.push_str(line);
                joined.push((number, whole));
            }
        }
    }
    joined.extend(open);
    joined
}
