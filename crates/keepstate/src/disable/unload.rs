//! What to type to unload connection tracking, and to keep it from being loaded again; or why not.
use super::verdict::Verdict;
use keepstate_linux::dependents::Audit;
use keepstate_linux::dependents::module::{Tracking, removal_order};

/// What `--unload` comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unload {
    /// There is nothing to unload.
    Absent,
    /// Why it is refused.
    Refused {
        /// In a sentence.
        why: String,
        /// It was refused because something could not be seen.
        unknown: bool,
    },
    /// What to type, in order.
    Commands(Vec<String>),
}

/// Decides from an audit of everything.
pub fn unload(audit: &Audit, verdict: Verdict) -> Unload {
    let refused = |why: String| Unload::Refused { why, unknown: matches!(verdict, Verdict::Unknown(_)) };
    match &audit.tracking {
        Tracking::Absent => return Unload::Absent,
        Tracking::BuiltIn => {
            let why = "nf_conntrack is built into this kernel and cannot be unloaded; without rules that ask for it nothing is tracked";
            return Unload::Refused { why: why.into(), unknown: false };
        }
        Tracking::Module { .. } => (),
    }
    if verdict != Verdict::May {
        return refused(verdict.sentence());
    }
    let idle = audit.dependents().count();
    if idle > 0 {
        let what = if idle == 1 { "one thing holds it" } else { "these things hold it" };
        return refused(format!(
            "nothing would break, but {what}, listed under \"These lose nothing\": remove them first"
        ));
    }
    let order = removal_order(&audit.modules, "nf_conntrack");
    let mut commands = vec![format!("modprobe -r {}", order.join(" "))];
    // A blacklist alone does not keep a module from being loaded for another's sake.
    commands.push(format!("printf 'install nf_conntrack /bin/false\\n' > {KEEPS_AWAY}"));
    // Where a file still has it loaded at boot, that would fail there, and be logged as a failure.
    commands.extend(
        audit.loaded_by.iter().map(|file| format!("sed -i '/^[[:space:]]*nf_conntrack[[:space:]]*$/d' {file}")),
    );
    Unload::Commands(commands)
}

/// The file that keeps the module from being loaded again.
pub const KEEPS_AWAY: &str = "/etc/modprobe.d/keepstate-no-conntrack.conf";

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_linux::dependents::module::loaded;
    use keepstate_linux::dependents::{Dependent, Kind, Sure, Unseen};

    fn audit(tracking: Tracking) -> Audit {
        let modules = loaded("nf_nat 1 0 - Live\nnf_conntrack 1 1 nf_nat, Live\n");
        Audit {
            tracking,
            modules,
            loaded_by: vec!["/etc/modules".into()],
            namespaces: Vec::new(),
            machine: Vec::new(),
            unseen: Vec::new(),
        }
    }

    fn module() -> Tracking {
        Tracking::Module { references: Some(1), holders: vec!["nf_nat".into()] }
    }

    #[test]
    fn only_what_nobody_holds() {
        let mut audit = audit(module());
        let Unload::Commands(commands) = unload(&audit, Verdict::May) else { panic!("refused") };
        assert_eq!(commands[0], "modprobe -r nf_nat nf_conntrack");
        assert!(commands[1].contains("install nf_conntrack /bin/false"), "{commands:?}");
        assert!(commands[2].starts_with("sed ") && commands[2].ends_with(" /etc/modules"), "{commands:?}");
        audit.machine.push(Dependent {
            need: Kind::IdleNat,
            by: "iptables-legacy",
            place: "ip nat".into(),
            number: None,
            what: String::new(),
            owner: None,
            sure: Sure::Certain,
        });
        assert!(matches!(unload(&audit, Verdict::of(&audit)), Unload::Refused { unknown: false, .. }));
        audit.unseen.push(Unseen { what: String::new(), why: String::new() });
        assert!(matches!(unload(&audit, Verdict::of(&audit)), Unload::Refused { unknown: true, .. }));
    }

    #[test]
    fn absent_and_built_in() {
        assert_eq!(unload(&audit(Tracking::Absent), Verdict::Depends(1)), Unload::Absent);
        let Unload::Refused { why, .. } = unload(&audit(Tracking::BuiltIn), Verdict::May) else { panic!("allowed") };
        assert!(why.contains("built into this kernel"), "{why}");
    }
}
