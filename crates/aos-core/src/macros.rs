//! Implementations that every text-shaped type repeats.

/// Serde through `Display` and `FromStr`: on the wire the type is its canonical text.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// What every type around its own text has: `as_str`, `Display`, `AsRef<str>` and serde.
macro_rules! is_its_text {
    ($($name:ident),*) => { $(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        crate::macros::serde_as_text!($name);
    )* };
}

/// An enum of the words that a person writes, one of them the default: `ALL`, `as_str`, `Display`,
/// `FromStr` and serde, and the error for a word that is none of them, which names them.
macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident, $error:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// Each of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            /// Their words, in that order.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word in the Agentfile.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            /// True for what holds when nothing is written.
            pub fn is_default(&self) -> bool {
                *self == Self::default()
            }
        }

        #[doc = concat!("A word that is no [`", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error("expected {}", $crate::quoted::alternatives($name::WORDS))]
        pub struct $error;

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or($error)
            }
        }

        $crate::macros::serde_as_text!($name);
    };
}

pub(crate) use {is_its_text, serde_as_text, word_enum};
