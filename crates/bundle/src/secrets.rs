//! Secrets: values of options, settings and headers whose name says that they are secret, passwords in URLs, private keys, and words
//! that can be nothing else (tokens of well-known services), whatever stands before them.
//!
//! They are replaced in every file of a bundle, whether addresses are kept or not. A value is replaced whole, never in part.

/// What stands in the place of a secret.
pub const REDACTED: &str = "[REDACTED]";

/// Parts of a name that make its value a secret.
const SECRET_PARTS: [&str; 10] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "bearer",
    "authorization",
    "credential",
    "cookie",
    "signature",
];

/// Ends of a name that do.
const SECRET_ENDS: [&str; 4] = ["pass", "pwd", "psk", "auth"];

/// Words that begin like this and go on are tokens: of JSON web tokens (their header is `{"`), GitHub, GitLab, Slack, AWS, Google, Vault, k3s.
const TOKEN_BEGINS: [&str; 13] =
    ["eyJ", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "ASIA", "AIza", "hvs.", "K10"];
/// They have at least so many characters; no ordinary word does.
const TOKEN_LEAST: usize = 20;

/// Replaces the secrets of a text, or of a command line whose words end with a zero byte.
pub fn redact_secrets(text: &str) -> String {
    if text.contains('\0') {
        return redact_words(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut in_private_key = false;
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        if in_private_key || (line.contains("-----BEGIN") && line.contains("PRIVATE KEY")) {
            in_private_key = !line.contains("-----END");
            out.push_str(REDACTED);
        } else {
            out.push_str(&redact_line(line));
        }
        out.push_str(end);
    }
    out
}

/// A command line: each word as a line, and the word after a secret option without a value.
fn redact_words(text: &str) -> String {
    let mut is_value = false;
    // k3s and rke2 have a letter for their token.
    let program = text.split('\0').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let has_letter = program.starts_with("k3s") || program.starts_with("rke2");
    let words = text.split('\0').map(|word| {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let is_secret = is_secret_name(name) || has_letter && name == "-t";
        let is_option = name.starts_with('-') && is_secret;
        let redacted = match value {
            _ if is_value && !word.is_empty() && !word.starts_with("--") => REDACTED.to_owned(),
            Some(_) if is_secret => format!("{name}={REDACTED}"),
            _ => redact_secrets(word),
        };
        is_value = is_option && value.is_none();
        redacted
    });
    words.collect::<Vec<_>>().join("\0")
}

fn redact_line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(|letter: char| is_name_char(letter) || letter == ':') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix("://") {
            // scheme://user:password@host
            let authority = after.split(['/', '?', '#', ' ', '\t', '"', '\'']).next().unwrap_or_default();
            out.push_str("://");
            rest = after;
            if let Some(at_sign) = authority.rfind('@') {
                out.push_str(REDACTED);
                rest = after.get(at_sign..).unwrap_or_default();
            }
            continue;
        }
        let end = from.find(|letter| !is_name_char(letter)).unwrap_or(from.len());
        let (name, after) = from.split_at(end.max(1));
        rest = after;
        if is_token(name) {
            // With what belongs to it: `K10…::server:password`.
            out.push_str(REDACTED);
            rest =
                after.find([' ', '\t', '"', '\'', ',', ';', '&']).and_then(|end| after.get(end..)).unwrap_or_default();
            continue;
        }
        out.push_str(name);
        if !is_secret_name(name) {
            continue;
        }
        let value_at = after.find(|letter: char| !" \t=:\"'".contains(letter)).unwrap_or(after.len());
        let (separator, value) = after.split_at(value_at);
        // `token = x`, `"token": "x"`, `Bearer x`, `--token x`; a word like `secrets are` in a sentence stays.
        let is_assigned = separator.contains(['=', ':']);
        let lower = name.to_ascii_lowercase();
        if value.is_empty() || !(is_assigned || lower == "bearer" || name.starts_with('-')) {
            continue;
        }
        out.push_str(separator);
        out.push_str(REDACTED);
        rest = match separator.chars().next_back().filter(|last| matches!(last, '"' | '\'')) {
            // A quoted value ends with its quote; without one, with the line.
            Some(quote) => value.find(quote).and_then(|end| value.get(end..)).unwrap_or_default(),
            // A header's value, and one that has blanks, are not told apart: all of the line goes.
            None if lower.contains("authorization") || lower.contains("cookie") => "",
            None => value.find([' ', '\t', '"', '\'']).and_then(|end| value.get(end..)).unwrap_or_default(),
        };
    }
    out.push_str(rest);
    out
}

fn is_name_char(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// Does this name stand before a secret? `monkey` does not, `key`, `api_key` and `sshKey` do.
fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_key = lower.strip_suffix("key").is_some_and(|before| {
        before.is_empty() || before.ends_with(['_', '-', '.']) || name.ends_with("Key") || lower.ends_with("apikey")
    });
    let is_end = !lower.ends_with("bypass") && SECRET_ENDS.iter().any(|end| lower.ends_with(end));
    is_key || is_end || SECRET_PARTS.iter().any(|part| lower.contains(part))
}

/// Is the word itself a token?
fn is_token(word: &str) -> bool {
    word.len() >= TOKEN_LEAST && TOKEN_BEGINS.iter().any(|begin| word.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_class_is_redacted() {
        for text in [
            "kube-proxy\0--token=hunter2\0--v=2\0",
            "k3s\0--token\0hunter2\0",
            "cilium-agent\0--etcd-password=a hunter2 b\0",
            "tuned\0https://user:hunter2@host/x\0",
            "sh\0-c\0run --token hunter2 now\0",
            "PASSWORD=hunter2",
            "passwd: 'hunter2'",
            "{\"apiKey\": \"with hunter2 in it\", \"a\": 1}",
            "net.ipv4.tcp_fastopen_key = hunter2",
            "key=hunter2",
            "client_secret : hunter2",
            "Authorization: Basic hunter2 and more",
            "x bearer hunter2",
            "-H 'Authorization: Bearer hunter2'",
            "sysctl-url http://a:p@hunter2@host/",
            "-----BEGIN RSA PRIVATE KEY-----\nhunter2\nhunter2\n-----END RSA PRIVATE KEY-----\nafter\n",
            "-----BEGIN PRIVATE KEY-----\nhunter2 is cut off",
            "agent -token hunter2 -v",
            "agent\0-token\0hunter2\0",
            "MYSQL_PWD=hunter2",
            "redis\0--requirepass\0hunter2\0",
            "wifi-psk=hunter2",
            "proxy\0--basic-auth=me:hunter2\0",
            "k3s agent\0-t\0hunter2\0--server\0https://10.0.0.1:6443\0",
            "/usr/local/bin/k3s\0agent\0-t=hunter2\0",
            "get https://host/x?a=1&X-Amz-Signature=hunter2",
            "run eyJhbGciOiJIUzI1NiJ9.eyJodW50ZXIyIjoxfQ.hunter2",
            "agent\0K10d0b2c8e4aa77f3c1d9::server:hunter2\0",
            "git clone x glpat-0123456789hunter2abc",
        ] {
            let redacted = redact_secrets(text);
            assert!(!redacted.contains("hunter2") && redacted.contains(REDACTED), "{text:?} gave {redacted:?}");
            assert_eq!(redact_secrets(&redacted), redacted, "twice is once");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "net.netfilter.nf_conntrack_max = 1000\n",
            "ipv4 2 tcp 6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [ASSURED] use=2\n",
            "kube-proxy\0--config=/var/lib/kube-proxy/config.conf\0--conntrack-max-per-core=0\0",
            "ACTION==\"add\", KERNEL==\"nf_conntrack\", RUN+=\"/lib/systemd/systemd-sysctl --prefix=/net/netfilter\"",
            "http://host:80/a@b\n",
            "monkey = 3, no secrets here\n",
            "nf_conntrack: table full, dropping packet\n",
            "queue flags bypass to 0-3\n",
            "-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1:80 -m comment --comment K10\n",
            "kube-proxy\0-t\0x\0--v=2\0",
        ] {
            assert_eq!(redact_secrets(text), text);
        }
        let redacted = redact_secrets("a\0--token=x\0--max=3\0");
        assert_eq!(redacted, "a\0--token=[REDACTED]\0--max=3\0");
    }
}
