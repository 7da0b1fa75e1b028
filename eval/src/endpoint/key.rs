//! The secret that a server asks for.

use crate::Error;
use std::{env, fmt};

/// The environment variable that holds it: unlike a flag it is in no process list, no shell history and no report.
pub const VARIABLE: &str = "HEADKV_API_KEY";

/// An API key, sent as `Authorization: Bearer KEY`. It is never shown.
#[derive(Clone, PartialEq)]
pub struct Key(String);

impl Key {
    /// The key in [`VARIABLE`], if there is one.
    ///
    /// # Errors
    /// [`Error::Option`] for a key that no HTTP header can carry.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        match env::var(VARIABLE) {
            Ok(key) if key.is_empty() => Ok(None),
            Ok(key) => Self::new(&key).map(Some),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(unfit()),
        }
    }

    /// A key.
    ///
    /// # Errors
    /// [`Error::Option`] for a key that no HTTP header can carry.
    pub fn new(key: &str) -> Result<Self, Error> {
        // A line break at the end comes from the file that the variable was filled from.
        let key = key.trim_end();
        if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(key.into()))
        } else {
            Err(unfit())
        }
    }

    /// A text without the key, should it hold it.
    pub(super) fn hide(&self, text: &str) -> String {
        text.replace(&self.0, "(key)")
    }

    /// The header's value.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

fn unfit() -> Error {
    Error::Option(format!(
        "the key in {VARIABLE} has characters that are not visible ASCII; set it again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_and_never_shown() {
        let key = Key::new("sk-123\n").unwrap();
        assert_eq!(key.bearer(), "Bearer sk-123");
        assert!(!format!("{key:?}").contains("123"));
        assert_eq!(key.hide("Bearer sk-123!"), "Bearer (key)!");
        for wrong in ["", "a b", "a\r\nHost: x", "ключ"] {
            let message = Key::new(wrong).unwrap_err().to_string();
            assert!(message.contains(VARIABLE) && !message.contains("Host"));
        }
    }
}
