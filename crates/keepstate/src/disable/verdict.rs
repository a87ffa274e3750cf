//! May tracking be turned off? One verdict from an audit. Whatever could not be seen is never taken for nothing.
use keepstate_linux::ct_users::{Confidence, CtUser, CtUserAudit};

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisableVerdict {
    /// Nothing depends on it.
    Safe,
    /// So many things depend on it.
    InUse(usize),
    /// So many things could not be seen, or cannot be told.
    Unknown(usize),
}

impl DisableVerdict {
    /// What an audit comes to.
    pub fn from_audit(audit: &CtUserAudit) -> DisableVerdict {
        let depending = audit.ct_users().filter(|(_, dependent)| breaks_when_disabled(dependent)).count();
        let doubts =
            audit.ct_users().filter(|(_, dependent)| is_uncertain(dependent)).count() + audit.not_checked().count();
        match (depending, doubts) {
            (0, 0) => DisableVerdict::Safe,
            (0, doubts) => DisableVerdict::Unknown(doubts),
            (depending, _) => DisableVerdict::InUse(depending),
        }
    }

    /// The exit code: 0 it may, 1 it may not, 3 that cannot be told.
    pub fn exit_code(self) -> u8 {
        match self {
            DisableVerdict::Safe => 0,
            DisableVerdict::InUse(_) => 1,
            DisableVerdict::Unknown(_) => 3,
        }
    }

    /// For programs: may it be turned off?
    pub fn name(self) -> &'static str {
        match self {
            DisableVerdict::Safe => "yes",
            DisableVerdict::InUse(_) => "no",
            DisableVerdict::Unknown(_) => "unknown",
        }
    }

    /// For people.
    pub fn sentence(self) -> String {
        match self {
            DisableVerdict::Safe => "Connection tracking may be turned off: nothing depends on it.".into(),
            DisableVerdict::InUse(1) => "Connection tracking must stay: one thing depends on it.".into(),
            DisableVerdict::InUse(count) => format!("Connection tracking must stay: {count} things depend on it."),
            DisableVerdict::Unknown(1) => {
                "Whether anything depends on connection tracking is unknown: one thing could not be seen.".into()
            }
            DisableVerdict::Unknown(count) => {
                format!("Whether anything depends on connection tracking is unknown: {count} things could not be seen.")
            }
        }
    }
}

/// Would something break?
pub fn breaks_when_disabled(dependent: &CtUser) -> bool {
    !dependent.kind.is_idle() && dependent.confidence >= Confidence::Likely
}

fn is_uncertain(dependent: &CtUser) -> bool {
    !dependent.kind.is_idle() && dependent.confidence < Confidence::Likely
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_linux::ct_users::kernel_module::CtModuleState;
    use keepstate_linux::ct_users::listed_ruleset::CtFeature;
    use keepstate_linux::ct_users::{CtUserKind, NotChecked};

    fn audit(dependents: &[(CtUserKind, Confidence)], unseen: usize) -> CtUserAudit {
        let dependent = |(need, sure): &(CtUserKind, Confidence)| CtUser {
            kind: *need,
            listed_by: "nftables",
            location: String::new(),
            number: None,
            description: String::new(),
            owner: None,
            confidence: *sure,
        };
        let unseen = vec![NotChecked { what: "x".into(), why: "y".into() }; unseen];
        let machine = dependents.iter().map(dependent).collect();
        CtUserAudit {
            module_state: CtModuleState::BuiltIn,
            modules: Vec::new(),
            modules_load_files: Vec::new(),
            namespaces: Vec::new(),
            host_wide: machine,
            not_checked: unseen,
        }
    }

    #[test]
    fn missing_input_is_unknown() {
        let nat = (CtUserKind::Rule(CtFeature::Nat), Confidence::Certain);
        let socket = (CtUserKind::Service, Confidence::Possible);
        assert_eq!(DisableVerdict::from_audit(&audit(&[], 0)), DisableVerdict::Safe);
        assert_eq!(DisableVerdict::from_audit(&audit(&[], 1)), DisableVerdict::Unknown(1));
        assert_eq!(DisableVerdict::from_audit(&audit(&[socket], 0)), DisableVerdict::Unknown(1));
        assert_eq!(DisableVerdict::from_audit(&audit(&[nat, socket], 2)), DisableVerdict::InUse(1));
        let idle = [(CtUserKind::IdleNat, Confidence::Certain), (CtUserKind::UntrackedOnly, Confidence::Certain)];
        assert_eq!(DisableVerdict::from_audit(&audit(&idle, 0)), DisableVerdict::Safe);
        let codes =
            [DisableVerdict::Safe, DisableVerdict::InUse(1), DisableVerdict::Unknown(1)].map(DisableVerdict::exit_code);
        assert_eq!(codes, [0, 1, 3]);
    }
}
