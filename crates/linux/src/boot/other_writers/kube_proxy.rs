//! kube-proxy: sets the limit by the number of processors, and two timeouts, each time it starts.
use super::writer::OtherWriter;
use crate::boot::file_line::{FileLine, config_lines};
use crate::boot::overlay::Overlay;

/// What is known of one kube-proxy's settings, as they are written; none is the program's default.
#[derive(Default)]
struct KubeProxySettings {
    per_core: Option<String>,
    min: Option<String>,
    established: Option<String>,
    close_wait: Option<String>,
    /// k3s can be told to run none.
    disabled: bool,
    /// Where one of them stands, the last seen.
    location: Option<FileLine>,
}

pub(super) fn find_kube_proxy(tree: &Overlay<'_>) -> Vec<OtherWriter> {
    let mut files = CONFIG_FILES.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>();
    for directory in ["/etc/kubernetes", "/etc/kubernetes/manifests"] {
        let named = tree.list_dir(directory).into_iter().filter(|name| name.starts_with("kube-proxy"));
        files.extend(named.map(|name| format!("{directory}/{name}")).filter(|file| !tree.is_dir(file)));
    }
    let mut texts = files.into_iter().filter_map(|file| tree.read(&file).map(|text| (file, text))).collect::<Vec<_>>();
    let running = find_process(tree);
    let mut place = None;
    if let Some((process, arguments)) = &running {
        place = Some(FileLine::new(format!("{process}/cmdline"), 0));
        let config = arguments.iter().find_map(|argument| argument.strip_prefix("--config="));
        // In a container the path is the container's, and its files are seen through the process.
        let config = config.map(|config| format!("{process}/root{config}"));
        texts.extend(config.and_then(|config| tree.read_proc(&config).map(|text| (config, text))));
    }
    let mut settings = KubeProxySettings::default();
    for (file, text) in &texts {
        place.get_or_insert_with(|| FileLine::new(file, 0));
        for (number, line) in config_lines(text) {
            settings.apply_line(line, &FileLine::new(file, number));
        }
    }
    // A configuration file, where there is one, replaces the arguments.
    if let (Some((process, arguments)), None) = (&running, &settings.location) {
        let place = FileLine::new(format!("{process}/cmdline"), 0);
        arguments.iter().for_each(|argument| settings.apply_line(argument, &place));
    }
    match place {
        Some(place) if !settings.disabled => settings_to_writers(tree, settings, place),
        _ => Vec::new(),
    }
}

impl KubeProxySettings {
    /// A line of YAML (`maxPerCore: 0`) or an argument (`--conntrack-max-per-core=0`).
    fn apply_line(&mut self, line: &str, place: &FileLine) {
        let line = line.trim_start_matches(['-', ' ', '"', '\'', ',', '[']);
        let line = line.strip_prefix("kube-proxy-arg=").unwrap_or(line);
        if line == "disable-kube-proxy" {
            self.disabled = true;
        }
        let Some((key, value)) = line.split_once(['=', ':']) else { return };
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'', ',', ']']);
        let field = match key.trim() {
            "maxPerCore" | "conntrack-max-per-core" => &mut self.per_core,
            "min" | "conntrack-min" => &mut self.min,
            "tcpEstablishedTimeout" | "conntrack-tcp-timeout-established" => &mut self.established,
            "tcpCloseWaitTimeout" | "conntrack-tcp-timeout-close-wait" => &mut self.close_wait,
            "disable-kube-proxy" => {
                self.disabled = value == "true";
                return;
            }
            _ => return,
        };
        if !value.is_empty() && value != "null" {
            *field = Some(value.to_owned());
            self.location = Some(place.clone());
        }
    }
}

/// The process that runs kube-proxy, by its directory in `/proc`, and its arguments. k3s has it within its own.
fn find_process(tree: &Overlay<'_>) -> Option<(String, Vec<String>)> {
    let ids = tree.list_dir("/proc").into_iter().filter(|name| name.bytes().all(|letter| letter.is_ascii_digit()));
    ids.map(|id| format!("/proc/{id}")).find_map(|process| {
        let line = tree.read_proc(&format!("{process}/cmdline")).unwrap_or_default();
        let arguments = line.split('\0').map(str::to_owned).collect::<Vec<_>>();
        let program = arguments.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let name = tree.read_proc(&format!("{process}/comm")).unwrap_or_default();
        let ours = program == "kube-proxy" || matches!(name.trim(), "kube-proxy" | "k3s-server" | "k3s-agent");
        ours.then_some((process, arguments))
    })
}

fn settings_to_writers(tree: &Overlay<'_>, settings: KubeProxySettings, evidence: FileLine) -> Vec<OtherWriter> {
    let place = settings.location.unwrap_or(evidence);
    let of = |text: &Option<String>, default: u64| text.as_ref().map_or(Some(default), |text| text.parse::<u64>().ok());
    let (per_core, min) = (of(&settings.per_core, DEFAULT_MAX_PER_CORE), of(&settings.min, DEFAULT_MIN));
    let mut found = Vec::new();
    // Zero for each processor is kube-proxy's way to leave the limit alone.
    if per_core != Some(0) {
        let limit =
            per_core.zip(min).zip(count_cpus(tree)).map(|((each, min), count)| each.saturating_mul(count).max(min));
        let shown = |number: Option<u64>| number.map_or("an unknown number".to_owned(), |number| number.to_string());
        let (each, least) = (shown(per_core), shown(min));
        let what = format!("sets nf_conntrack_max when it starts: {each} per CPU, at least {least}");
        found.push(("nf_conntrack_max", what, limit.map(|limit| limit.to_string())));
    }
    let timeouts = [
        ("nf_conntrack_tcp_timeout_established", settings.established, "24h"),
        ("nf_conntrack_tcp_timeout_close_wait", settings.close_wait, "1h"),
    ];
    for (key, span, default) in timeouts {
        let span = span.unwrap_or_else(|| default.to_owned());
        let value = parse_go_duration(&span);
        if value != Some(0) {
            found.push((key, format!("sets the timeout when it starts: {span}"), value.map(|value| value.to_string())));
        }
    }
    let named = found.into_iter().map(|(key, what, value)| OtherWriter {
        name: "kube-proxy".to_owned(),
        description: what,
        location: place.clone(),
        key: Some(format!("net.netfilter.{key}")),
        value,
    });
    named.collect()
}

/// The number of processors, as the kernel lists them; none where that is not among the files.
fn count_cpus(tree: &Overlay<'_>) -> Option<u64> {
    let text = tree.read("/proc/cpuinfo")?;
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    u64::try_from(count).ok().filter(|count| *count > 0)
}

/// Whole seconds of a span as Go writes it: `24h0m0s`, `1h`, `90s`, `0`.
fn parse_go_duration(span: &str) -> Option<u64> {
    let (mut total, mut number) = (0_u64, String::new());
    for letter in span.chars() {
        let unit = match letter {
            '0'..='9' => {
                number.push(letter);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(std::mem::take(&mut number).parse::<u64>().ok()?.checked_mul(unit)?)?;
    }
    match number.as_str() {
        "" => Some(total),
        "0" => Some(total),
        _ => None,
    }
}

const CONFIG_FILES: [&str; 3] =
    ["/var/lib/kube-proxy/config.conf", "/var/lib/kube-proxy/kubeconfig", "/etc/rancher/k3s/config.yaml"];
/// kube-proxy's defaults.
const DEFAULT_MAX_PER_CORE: u64 = 32_768;
const DEFAULT_MIN: u64 = 131_072;

#[cfg(test)]
mod tests {
    use super::parse_go_duration;

    #[test]
    fn parses_go_durations() {
        let spans = [("24h0m0s", Some(86_400)), ("90s", Some(90)), ("0", Some(0)), ("1.5h", None), ("5", None)];
        for (span, expected) in spans {
            assert_eq!(parse_go_duration(span), expected, "{span}");
        }
    }
}
