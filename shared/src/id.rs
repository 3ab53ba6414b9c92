//! Names and numbers that identify things. All are cheap to clone, ordered and printable.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// Why a name is not a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{name}\" is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
)]
pub struct BadLabel {
    name: String,
}

/// A DNS label in lower case (RFC 1035 §2.3.1, letters relaxed to digits by RFC 1123 §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

impl Label {
    /// Parses a label. Upper case is folded: names are compared as DNS compares them.
    pub fn new(text: &str) -> Result<Label, BadLabel> {
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits {
            Ok(Label(text.to_ascii_lowercase().into()))
        } else {
            Err(BadLabel {
                name: text.chars().take(80).collect(),
            })
        }
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Label);

        impl $name {
            /// Parses the name; see [`Label::new`].
            pub fn new(text: &str) -> Result<Self, BadLabel> {
                Label::new(text).map(Self)
            }

            /// The name's text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadLabel;
            fn from_str(text: &str) -> Result<Self, BadLabel> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

label!(
    /// A node's name, unique in its cluster.
    NodeName
);
label!(
    /// A network's name.
    NetworkName
);
label!(
    /// A role's name.
    RoleName
);
label!(
    /// A cluster's name.
    ClusterName
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(", $format, ")"), self.0)
            }
        }
    };
}

number!(
    /// Fencing token: belongs to one role, one node and one boot, and only ever grows. 0 is "none yet".
    Epoch,
    "{}"
);
number!(
    /// A node's consensus id, drawn at random for a fresh data directory. A lost directory is another id (V7).
    NodeId,
    "{:x}"
);
number!(
    /// One run of a node's process. Ordered: a later run of the same node has a greater boot.
    Boot,
    "{:x}"
);
number!(
    /// The cluster's id, drawn when it is initialised. 0 is "not initialised".
    ClusterId,
    "{:x}"
);
number!(
    /// Version of the electorate; 0 is "none learned yet". It grows by one with every committed change.
    ElectorateId,
    "{}"
);

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// May become active; votes.
    #[default]
    Member,
    /// Receives all replicated state; never active, never votes.
    Observer,
    /// Votes; never active; runs no application.
    Witness,
}

impl Kind {
    /// Whether nodes of this kind vote.
    pub fn votes(self) -> bool {
        self != Kind::Observer
    }

    /// Whether nodes of this kind may become active.
    pub fn may_act(self) -> bool {
        self == Kind::Member
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Member => "member",
            Kind::Observer => "observer",
            Kind::Witness => "witness",
        })
    }
}

/// One run of one node: the unit that promises are made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The node's consensus id.
    pub node: NodeId,
    /// The run.
    pub boot: Boot,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_dns_labels() {
        for good in ["a", "orders", "a-1", "9", &"x".repeat(63)] {
            assert!(NodeName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
        assert_eq!(NodeName::new("Orders").unwrap(), NodeName::new("orders").unwrap());
    }
}
