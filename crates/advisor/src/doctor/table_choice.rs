//! Which ways of failing by choice fit a finding about a gateway's table: lines of `[table]` in its gateway.toml, with the values that `keepstate simulate --compare` tries.
//!
//! The kernel's table has no such choices: they are proposed for a gateway alone.
use super::finding::{RemedyStep, StepLocation};
use crate::simulate::TableChoice;

/// The choices that fit the finding of this name, by their names in gateway.toml, and why.
fn fitting(finding: &str) -> &'static [(&'static str, &'static str)] {
    const GROWS: (&str, &str) =
        ("grow-to", "the limit doubles when it is reached, up to this many connections; nothing is dropped before");
    const KEEPS_LOGINS: (&str, &str) =
        ("reserve", "keeps entries for logins when all others are in use; add your own services");
    const SHORTENS: (&str, &str) =
        ("adaptive-timeouts", "timeouts become shorter while the table fills, so idle entries make room");
    match finding {
        "table-full-half-open" => &[
            ("source-limit", "no source takes more than its share; forged sources are many, and only timeouts help"),
            SHORTENS,
            KEEPS_LOGINS,
        ],
        "table-full-assured" | "table-nearly-full" => &[GROWS, KEEPS_LOGINS],
        "time-wait-dominates" | "close-wait-lingers" | "dead-peers-linger" | "udp-dominates" => &[SHORTENS],
        _ => &[],
    }
}

/// Lines for a gateway's file that fit the finding of this name, in a table of `limit` connections. 0 is no limit, and nothing then fails by choice.
pub fn table_choices(finding: &str, limit: u64) -> Vec<RemedyStep> {
    let Some(limit) = u32::try_from(limit).ok().filter(|limit| *limit > 1) else { return Vec::new() };
    let usual = TableChoice::usual(limit);
    let step = |(name, why): &(&str, &str)| {
        let choice = usual.iter().find(|choice| choice.name == *name)?;
        let line = match *name {
            "reserve" | "source-limit" => format!("{name} = [\"{}\"]", choice.setting),
            "adaptive-timeouts" => format!("{name} = \"{}\"", choice.setting),
            _ => format!("{name} = {}", choice.setting),
        };
        let at = StepLocation::Elsewhere("[table] of the gateway's gateway.toml".into());
        Some(RemedyStep::command(at, line, *why))
    };
    fitting(finding).iter().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::RULES;
    use keepstate_engine::{AdmissionPolicy, Engine, Instant, Secret, Sysctl, Sysctls};

    /// The line as the gateway reads it.
    fn read(line: &str, policy: &mut AdmissionPolicy) {
        let (key, value) = line.split_once(" = ").unwrap();
        let text = value.trim_matches(['[', ']']).trim_matches('"');
        match key {
            "reserve" => policy.reserves.push(text.parse().unwrap()),
            "source-limit" => policy.source_limits.push(text.parse().unwrap()),
            "adaptive-timeouts" => policy.adaptive_timeouts = Some(text.parse().unwrap()),
            "grow-to" => policy.grow_to = Some(value.parse().unwrap()),
            _ => panic!("{line}"),
        }
    }

    fn names(finding: &str, limit: u64) -> Vec<String> {
        let lines = table_choices(finding, limit).into_iter().filter_map(|step| step.command);
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_line_is_what_a_table_of_that_size_takes() {
        for limit in [2, 10, 1000, 65_536, 4_000_000_000] {
            for rule in RULES.iter().copied().flatten() {
                let mut policy = AdmissionPolicy::default();
                let steps = table_choices(rule.name, limit);
                steps.iter().for_each(|step| read(step.command.as_deref().unwrap(), &mut policy));
                assert!(policy.grow_to.is_none_or(|ceiling| u64::from(ceiling) > limit), "{}", rule.name);
                let mut sysctls = Sysctls::default();
                sysctls.set(Sysctl::Buckets, 16).unwrap();
                sysctls.set(Sysctl::Max, limit).unwrap();
                let mut engine = Engine::new(sysctls, Secret([7; 16]));
                engine
                    .set_admission(policy, Instant(0))
                    .unwrap_or_else(|error| panic!("{} {limit}: {error}", rule.name));
            }
        }
    }

    #[test]
    fn each_finding_gets_what_fits_it() {
        assert_eq!(names("table-full-half-open", 1000), ["source-limit", "adaptive-timeouts", "reserve"]);
        assert_eq!(names("table-full-assured", 1000), ["grow-to", "reserve"]);
        assert_eq!(names("udp-dominates", 1000), ["adaptive-timeouts"]);
        assert_eq!(names("no-statistics", 1000), [""; 0]);
        assert_eq!(names("table-full-assured", 0), [""; 0], "without a limit nothing is full");
        let known: Vec<&str> = RULES.iter().copied().flatten().map(|rule| rule.name).collect();
        let named = ["table-full-half-open", "table-full-assured", "table-nearly-full", "time-wait-dominates"];
        let others = ["close-wait-lingers", "dead-peers-linger", "udp-dominates"];
        assert!(named.iter().chain(&others).all(|name| known.contains(name) && !fitting(name).is_empty()));
    }
}
