//! Words of a rule.

/// Splits a statement of nft: spaces part words, quotes keep them together; braces and commas are words of their own.
pub(super) fn words(text: &str) -> Vec<&str> {
    split(text, |letter| matches!(letter, '{' | '}' | ','))
}

/// Splits a line of iptables-save.
pub(super) fn words_by_spaces(text: &str) -> Vec<&str> {
    split(text, |_| false)
}

fn split(text: &str, is_mark: impl Fn(char) -> bool) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut is_quoted) = (None, false);
    for (at, letter) in text.char_indices() {
        if letter == '"' {
            is_quoted = !is_quoted;
        }
        let is_mark = is_mark(letter);
        if is_quoted || !(letter.is_whitespace() || is_mark) {
            start = start.or(Some(at));
            continue;
        }
        words.extend(start.take().and_then(|start: usize| text.get(start..at)));
        if is_mark {
            words.extend(text.get(at..=at));
        }
    }
    words.extend(start.and_then(|start| text.get(start..)));
    words
}
