//! Names of shards and nodes: short, and safe as a part of a subject, a key or a file's name. What tells two processes apart that have one name by mistake.
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name, in bytes.
const MAX_NAME_LEN: usize = 63;

/// Why a name is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\": a name has 1 to {MAX_NAME_LEN} characters of a-z, A-Z, 0-9, - and _")]
pub struct InvalidName(String);

/// A random number of one run of a node's program: two machines that were given one name, by a copied configuration, have different ones. 0: not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeInstance(pub u64);

impl fmt::Display for NodeInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for NodeInstance {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<NodeInstance, std::num::ParseIntError> {
        u64::from_str_radix(text, 16).map(NodeInstance)
    }
}

fn check_name(name: &str) -> Result<Arc<str>, InvalidName> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(is_valid) {
        Ok(name.into())
    } else {
        Err(InvalidName(name.chars().take(MAX_NAME_LEN + 1).collect::<String>().escape_debug().to_string()))
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<$name, InvalidName> {
                check_name(name).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A shard's name: 1 to 63 of `a-z A-Z 0-9 - _`.
    ShardName
);
name_type!(
    /// A gateway's name in its cluster: 1 to 63 of `a-z A-Z 0-9 - _`.
    NodeName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_a_subject_and_in_a_path() {
        for name in ["a", "gw-1", "North_2", &"x".repeat(63)] {
            assert_eq!(name.parse::<ShardName>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for name in ["", ".", "a.b", "a/b", "*", ">", "a b", "ü", "\n", &"x".repeat(64)] {
            assert!(name.parse::<NodeName>().is_err(), "{name:?}");
        }
        let error = "a\nb".parse::<NodeName>().map(drop).map_err(|error| error.to_string());
        assert_eq!(error, Err("\"a\\nb\": a name has 1 to 63 characters of a-z, A-Z, 0-9, - and _".into()));
    }
}
