//! May tracking be turned off? One verdict from an audit. Whatever could not be seen is never taken for nothing.
use keepstate_linux::dependents::{Audit, Dependent, Sure};

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing depends on it.
    May,
    /// So many things depend on it.
    Depends(usize),
    /// So many things could not be seen, or cannot be told.
    Unknown(usize),
}

impl Verdict {
    /// What an audit comes to.
    pub fn of(audit: &Audit) -> Verdict {
        let depending = audit.dependents().filter(|(_, dependent)| is_weighty(dependent)).count();
        let doubts =
            audit.dependents().filter(|(_, dependent)| is_doubtful(dependent)).count() + audit.unseen().count();
        match (depending, doubts) {
            (0, 0) => Verdict::May,
            (0, doubts) => Verdict::Unknown(doubts),
            (depending, _) => Verdict::Depends(depending),
        }
    }

    /// The exit code: 0 it may, 1 it may not, 3 that cannot be told.
    pub fn code(self) -> u8 {
        match self {
            Verdict::May => 0,
            Verdict::Depends(_) => 1,
            Verdict::Unknown(_) => 3,
        }
    }

    /// For programs: may it be turned off?
    pub fn name(self) -> &'static str {
        match self {
            Verdict::May => "yes",
            Verdict::Depends(_) => "no",
            Verdict::Unknown(_) => "unknown",
        }
    }

    /// For people.
    pub fn sentence(self) -> String {
        match self {
            Verdict::May => "Connection tracking may be turned off: nothing depends on it.".into(),
            Verdict::Depends(1) => "Connection tracking must stay: one thing depends on it.".into(),
            Verdict::Depends(count) => format!("Connection tracking must stay: {count} things depend on it."),
            Verdict::Unknown(1) => {
                "Whether anything depends on connection tracking is unknown: one thing could not be seen.".into()
            }
            Verdict::Unknown(count) => {
                format!("Whether anything depends on connection tracking is unknown: {count} things could not be seen.")
            }
        }
    }
}

/// Would something break?
pub fn is_weighty(dependent: &Dependent) -> bool {
    !dependent.need.is_idle() && dependent.sure >= Sure::Likely
}

fn is_doubtful(dependent: &Dependent) -> bool {
    !dependent.need.is_idle() && dependent.sure < Sure::Likely
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_linux::dependents::module::Tracking;
    use keepstate_linux::dependents::rules::Need;
    use keepstate_linux::dependents::{Kind, Unseen};

    fn audit(dependents: &[(Kind, Sure)], unseen: usize) -> Audit {
        let dependent = |(need, sure): &(Kind, Sure)| Dependent {
            need: *need,
            by: "nftables",
            place: String::new(),
            number: None,
            what: String::new(),
            owner: None,
            sure: *sure,
        };
        let unseen = vec![Unseen { what: "x".into(), why: "y".into() }; unseen];
        let machine = dependents.iter().map(dependent).collect();
        Audit {
            tracking: Tracking::BuiltIn,
            modules: Vec::new(),
            loaded_by: Vec::new(),
            namespaces: Vec::new(),
            machine,
            unseen,
        }
    }

    #[test]
    fn the_unseen_is_never_nothing() {
        let nat = (Kind::Rule(Need::Nat), Sure::Certain);
        let socket = (Kind::Service, Sure::Possible);
        assert_eq!(Verdict::of(&audit(&[], 0)), Verdict::May);
        assert_eq!(Verdict::of(&audit(&[], 1)), Verdict::Unknown(1));
        assert_eq!(Verdict::of(&audit(&[socket], 0)), Verdict::Unknown(1));
        assert_eq!(Verdict::of(&audit(&[nat, socket], 2)), Verdict::Depends(1));
        let idle = [(Kind::IdleNat, Sure::Certain), (Kind::Harmless, Sure::Certain)];
        assert_eq!(Verdict::of(&audit(&idle, 0)), Verdict::May);
        let codes = [Verdict::May, Verdict::Depends(1), Verdict::Unknown(1)].map(Verdict::code);
        assert_eq!(codes, [0, 1, 3]);
    }
}
