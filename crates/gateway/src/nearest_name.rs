//! Which known name was meant by an unknown one.

/// The name among `known` that is the fewest edits away from `wrong`, if it is near enough to be meant: at most a third of the letters differ.
///
/// Case, `_` and `-` make no difference: `on_exit` is `on-exit`.
pub fn nearest_name<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = plain_letters(wrong);
    let distance = |name: &&str| edit_distance(&wrong, &plain_letters(name));
    let (best, distance) =
        known.into_iter().map(|name| (name, distance(&name))).min_by_key(|(_, distance)| *distance)?;
    (distance * 3 <= best.chars().count().max(wrong.len()).max(3)).then_some(best)
}

fn plain_letters(name: &str) -> Vec<char> {
    // Longer names than this are no typing errors, and the distance is quadratic.
    name.chars().take(64).map(|letter| if letter == '_' { '-' } else { letter.to_ascii_lowercase() }).collect()
}

/// Levenshtein's distance.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], at + 1);
        for (column, other) in b.iter().enumerate() {
            let kept = before + usize::from(letter != other);
            before = row[column + 1];
            row[column + 1] = kept.min(before + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["ruleset", "services", "on-exit", "offload", "mtu"];
        for (wrong, meant) in [
            ("rulset", Some("ruleset")),
            ("service", Some("services")),
            ("on_exit", Some("on-exit")),
            ("MTU", Some("mtu")),
            ("ofload", Some("offload")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest_name(wrong, known), meant, "{wrong}");
        }
        assert_eq!(nearest_name("x", []), None);
    }
}
