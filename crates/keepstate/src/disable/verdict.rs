//! Can tracking be turned off? One verdict from an audit. What could not be checked never counts as unused.
use keepstate_linux::ct_users::{Confidence, CtUser, CtUserAudit};

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisableVerdict {
    /// Nothing depends on it.
    Safe,
    /// This many users depend on it.
    InUse(usize),
    /// This many items could not be checked, or are uncertain.
    Unknown(usize),
}

impl DisableVerdict {
    /// The verdict of an audit.
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

    /// The exit code: 0 yes, 1 no, 3 unknown.
    pub fn exit_code(self) -> u8 {
        match self {
            DisableVerdict::Safe => 0,
            DisableVerdict::InUse(_) => 1,
            DisableVerdict::Unknown(_) => 3,
        }
    }

    /// The value of `may_be_disabled` in JSON.
    pub fn name(self) -> &'static str {
        match self {
            DisableVerdict::Safe => "yes",
            DisableVerdict::InUse(_) => "no",
            DisableVerdict::Unknown(_) => "unknown",
        }
    }

    /// A sentence.
    pub fn sentence(self) -> String {
        match self {
            DisableVerdict::Safe => "Connection tracking can be turned off: nothing depends on it.".into(),
            DisableVerdict::InUse(1) => "Connection tracking is in use: one item depends on it.".into(),
            DisableVerdict::InUse(count) => format!("Connection tracking is in use: {count} items depend on it."),
            DisableVerdict::Unknown(1) => {
                "Unknown whether connection tracking is in use: one item could not be checked.".into()
            }
            DisableVerdict::Unknown(count) => {
                format!("Unknown whether connection tracking is in use: {count} items could not be checked.")
            }
        }
    }
}

/// Would it break without tracking?
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
