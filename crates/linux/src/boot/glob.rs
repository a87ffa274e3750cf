//! Shell patterns, as sysctl.d and udev write them.

/// Does the pattern match the whole text? `*` and `?` stop at a slash, as in glob(7); `[a-z]` and `[!a-z]` name letters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // The positions in the text that the pattern so far can reach: a row instead of a recursion, so no pattern is slow.
    let mut reach = vec![false; text.len().saturating_add(1)];
    if let Some(first) = reach.first_mut() {
        *first = true;
    }
    let mut rest = pattern;
    while let Some((&letter, after)) = rest.split_first() {
        rest = after;
        if letter == b'*' {
            reach = expand_star(&reach, text);
            continue;
        }
        let set = if letter == b'[' { parse_char_class(after) } else { None };
        if let Some((_, beyond)) = set {
            rest = beyond;
        }
        let mut next = vec![false; reach.len()];
        for ((from, to), &byte) in reach.iter().zip(next.iter_mut().skip(1)).zip(text) {
            *to = *from
                && match (letter, set) {
                    (b'?', _) => byte != b'/',
                    (_, Some((members, _))) => byte != b'/' && char_class_contains(members, byte),
                    _ => byte == letter,
                };
        }
        reach = next;
    }
    reach.last().copied().unwrap_or(false)
}

/// Does it hold any sign of a pattern?
pub(super) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// What is reachable after a `*`.
fn expand_star(reach: &[bool], text: &[u8]) -> Vec<bool> {
    let mut open = false;
    let mut bytes = text.iter();
    reach
        .iter()
        .map(|here| {
            open |= *here;
            let now = open;
            if bytes.next() == Some(&b'/') {
                open = false;
            }
            now
        })
        .collect()
}

/// The members of a set and what follows its `]`; none where it is never closed, then `[` is a letter.
fn parse_char_class(after: &[u8]) -> Option<(&[u8], &[u8])> {
    // A ] that comes first is a member.
    let first = usize::from(matches!(after.first(), Some(b'!' | b'^'))).saturating_add(1);
    let end = after.iter().skip(first).position(|byte| *byte == b']')?.checked_add(first)?;
    Some((after.get(..end)?, after.get(end.checked_add(1)?..)?))
}

fn char_class_contains(members: &[u8], byte: u8) -> bool {
    let (negated, mut members) = match members.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, members),
    };
    let mut found = false;
    while let Some((&low, rest)) = members.split_first() {
        members = rest;
        let high = match rest {
            [b'-', high, beyond @ ..] => {
                members = beyond;
                *high
            }
            _ => low,
        };
        found |= (low..=high).contains(&byte);
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_stop_at_slashes() {
        assert!(matches("net/ipv4/conf/*/rp_filter", "net/ipv4/conf/eth0.1/rp_filter"));
        assert!(!matches("net/*", "net/netfilter/nf_conntrack_max"));
        assert!(matches("net/netfilter/nf_conntrack_*", "net/netfilter/nf_conntrack_max"));
        assert!(matches("a?c*", "abc") && !matches("a?c", "a/c") && !matches("a", "ab") && !matches("", "a"));
        assert!(matches("[a-c]x[!0-9]", "bxz") && !matches("[a-c]x[!0-9]", "bx1") && matches("[x", "[x"));
        assert!(matches("[]]", "]"));
    }

    proptest! {
        #[test]
        fn text_matches_itself_and_a_star_matches_any_part(before in "[a-z_]{0,8}", middle in "[a-z_]{0,8}", after in "[a-z_]{0,8}") {
            let text = format!("{before}{middle}{after}");
            prop_assert!(matches(&text, &text));
            let starred = format!("{before}*{after}");
            prop_assert!(matches(&starred, &text));
            let extra = format!("{}x", text);
            prop_assert!(!matches(&text, &extra));
        }

        #[test]
        fn arbitrary_patterns_do_not_panic(pattern in "[\\[\\]!*?a-c/-]{0,12}", text in "[a-c/]{0,12}") {
            let _ = matches(&pattern, &text);
        }
    }
}
