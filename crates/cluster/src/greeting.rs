//! What a gateway runs, in a few bytes: two gateways that share a table must run the same.
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// A fingerprint of a text: equal texts have equal ones. Not a secret and no signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfigDigest(pub [u8; 16]);

impl ConfigDigest {
    /// The fingerprint of `text`.
    pub fn of(text: &[u8]) -> ConfigDigest {
        let mut hasher = SipHasher13::new_with_key(b"keepstate config");
        hasher.write(text);
        ConfigDigest(hasher.finish128().as_bytes())
    }
}

/// Stands for the services of who carries Linux's own table.
const LINUX_TABLE: ConfigDigest = ConfigDigest(*b"Linux conntrack\0");

/// What the sender of an epoch runs: the payload of a greeting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The ruleset.
    pub ruleset: ConfigDigest,
    /// The services.
    pub services: ConfigDigest,
    /// The options of NAT.
    pub nat: ConfigDigest,
    /// The sysctls.
    pub sysctls: ConfigDigest,
    /// The program's version.
    pub version: String,
}

/// In what two gateways differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GreetingDifference {
    /// Another ruleset.
    #[error("its ruleset differs")]
    Ruleset,
    /// Other services.
    #[error("its services differ")]
    Services,
    /// Other options of NAT.
    #[error("its NAT options differ")]
    Nat,
    /// Other sysctls.
    #[error("its sysctls differ")]
    Sysctls,
    /// Another version.
    #[error("it is another version of keepstate")]
    Version,
    /// Linux's table and a gateway's: neither can use the other's.
    #[error("one of them carries Linux's own table, the other one a gateway's: give keepstate sync another shard name")]
    OtherTable,
    /// Frames of another format.
    #[error("its frames cannot be read: it is another version of keepstate, whose table cannot be taken over")]
    FrameFormat,
    /// It cannot be read.
    #[error("its greeting cannot be read: it is another version of keepstate")]
    Unreadable,
}

impl Greeting {
    /// Of who carries Linux's own table: nothing else is compared.
    pub fn of_linux_table(version: &str) -> Greeting {
        Greeting { services: LINUX_TABLE, version: version.to_owned(), ..Greeting::default() }
    }

    /// As a payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        let digests = [self.ruleset, self.services, self.nat, self.sysctls];
        let mut bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
        bytes.extend_from_slice(self.version.as_bytes());
        bytes
    }

    /// Reads a payload; `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Greeting> {
        let (digests, version) = bytes.split_at_checked(64)?;
        let mut digests = digests.as_chunks::<16>().0.iter().map(|digest| ConfigDigest(*digest));
        let version = std::str::from_utf8(version).ok().filter(|version| version.len() < 256)?.to_owned();
        let (ruleset, services) = (digests.next()?, digests.next()?);
        Some(Greeting { ruleset, services, nat: digests.next()?, sysctls: digests.next()?, version })
    }

    /// In what `other` differs; empty if in nothing.
    pub fn differences(&self, other: &Greeting) -> Vec<GreetingDifference> {
        if (self.services == LINUX_TABLE) != (other.services == LINUX_TABLE) {
            return vec![GreetingDifference::OtherTable];
        }
        let checks = [
            (self.version == other.version, GreetingDifference::Version),
            (self.ruleset == other.ruleset, GreetingDifference::Ruleset),
            (self.services == other.services, GreetingDifference::Services),
            (self.nat == other.nat, GreetingDifference::Nat),
            (self.sysctls == other.sysctls, GreetingDifference::Sysctls),
        ];
        checks.into_iter().filter(|(same, _)| !same).map(|(_, difference)| difference).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let ours = Greeting { version: "0.1.0".into(), ..Greeting::default() };
        let theirs = Greeting { ruleset: ConfigDigest::of(b"a"), nat: ConfigDigest::of(b"b"), ..ours.clone() };
        let read = Greeting::decode(&theirs.to_bytes());
        assert_eq!(read.as_ref(), Some(&theirs));
        assert_eq!(ours.differences(&theirs), [GreetingDifference::Ruleset, GreetingDifference::Nat]);
        assert_eq!(ours.differences(&ours), []);
        let linux = Greeting::of_linux_table("0.1.0");
        assert_eq!(linux.differences(&theirs), [GreetingDifference::OtherTable]);
        assert_eq!(theirs.differences(&linux), [GreetingDifference::OtherTable]);
        assert_eq!(linux.differences(&linux), []);
        assert_eq!(Greeting::decode(&[0; 63]), None);
        assert_eq!(Greeting::decode(&[0xff; 65]), None, "not UTF-8");
    }
}
