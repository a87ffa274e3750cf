//! Commands that unload connection tracking and keep it from being loaded again; or why not.
use super::verdict::DisableVerdict;
use keepstate_linux::ct_users::CtUserAudit;
use keepstate_linux::ct_users::kernel_module::{CtModuleState, removal_order};

/// The result of `--unload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnloadPlan {
    /// Nothing to unload.
    Absent,
    /// Refused.
    Refused {
        /// The reason.
        why: String,
        /// Is the reason that something could not be checked?
        unknown: bool,
    },
    /// Commands, in order.
    Commands(Vec<String>),
}

/// Decides from an audit of the whole machine.
pub fn plan_unload(audit: &CtUserAudit, verdict: DisableVerdict) -> UnloadPlan {
    let refused = |why: String| UnloadPlan::Refused { why, unknown: matches!(verdict, DisableVerdict::Unknown(_)) };
    match &audit.module_state {
        CtModuleState::Absent => return UnloadPlan::Absent,
        CtModuleState::BuiltIn => {
            let why = "nf_conntrack is built into this kernel and cannot be unloaded; without rules that use it nothing is tracked";
            return UnloadPlan::Refused { why: why.into(), unknown: false };
        }
        CtModuleState::Module { .. } => (),
    }
    if verdict != DisableVerdict::Safe {
        return refused(verdict.sentence());
    }
    let idle = audit.ct_users().count();
    if idle > 0 {
        let what = if idle == 1 { "one item uses it" } else { "these items use it" };
        return refused(format!("nothing would break, but {what} (see \"Not affected\"): remove them first"));
    }
    let order = removal_order(&audit.modules, "nf_conntrack");
    let mut commands = vec![format!("modprobe -r {}", order.join(" "))];
    // A blacklist alone does not stop a module from being loaded as a dependency.
    commands.push(format!("printf 'install nf_conntrack /bin/false\\n' > {MODPROBE_BLOCK_FILE}"));
    // Otherwise files that load it at boot would log a failure.
    commands.extend(
        audit
            .modules_load_files
            .iter()
            .map(|file| format!("sed -i '/^[[:space:]]*nf_conntrack[[:space:]]*$/d' {file}")),
    );
    UnloadPlan::Commands(commands)
}

/// The file that blocks the module.
pub const MODPROBE_BLOCK_FILE: &str = "/etc/modprobe.d/keepstate-no-conntrack.conf";

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_linux::ct_users::kernel_module::parse_proc_modules;
    use keepstate_linux::ct_users::{Confidence, CtUser, CtUserKind, NotChecked};

    fn audit(tracking: CtModuleState) -> CtUserAudit {
        let modules = parse_proc_modules("nf_nat 1 0 - Live\nnf_conntrack 1 1 nf_nat, Live\n");
        CtUserAudit {
            module_state: tracking,
            modules,
            modules_load_files: vec!["/etc/modules".into()],
            namespaces: Vec::new(),
            host_wide: Vec::new(),
            not_checked: Vec::new(),
        }
    }

    fn module() -> CtModuleState {
        CtModuleState::Module { references: Some(1), holders: vec!["nf_nat".into()] }
    }

    #[test]
    fn unload_is_refused_while_something_holds_it() {
        let mut audit = audit(module());
        let UnloadPlan::Commands(commands) = plan_unload(&audit, DisableVerdict::Safe) else { panic!("refused") };
        assert_eq!(commands[0], "modprobe -r nf_nat nf_conntrack");
        assert!(commands[1].contains("install nf_conntrack /bin/false"), "{commands:?}");
        assert!(commands[2].starts_with("sed ") && commands[2].ends_with(" /etc/modules"), "{commands:?}");
        audit.host_wide.push(CtUser {
            kind: CtUserKind::IdleNat,
            listed_by: "iptables-legacy",
            location: "ip nat".into(),
            number: None,
            description: String::new(),
            owner: None,
            confidence: Confidence::Certain,
        });
        assert!(matches!(
            plan_unload(&audit, DisableVerdict::from_audit(&audit)),
            UnloadPlan::Refused { unknown: false, .. }
        ));
        audit.not_checked.push(NotChecked { what: String::new(), why: String::new() });
        assert!(matches!(
            plan_unload(&audit, DisableVerdict::from_audit(&audit)),
            UnloadPlan::Refused { unknown: true, .. }
        ));
    }

    #[test]
    fn absent_and_built_in() {
        assert_eq!(plan_unload(&audit(CtModuleState::Absent), DisableVerdict::InUse(1)), UnloadPlan::Absent);
        let UnloadPlan::Refused { why, .. } = plan_unload(&audit(CtModuleState::BuiltIn), DisableVerdict::Safe) else {
            panic!("allowed")
        };
        assert!(why.contains("built into this kernel"), "{why}");
    }
}
