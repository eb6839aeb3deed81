//! What a sender of events shows so that it is believed.
//! Invariants: it is never printed, and comparing it takes a time that tells nothing.

use std::fmt;

/// Shorter ones can be guessed.
const MIN_BYTES: usize = 16;
/// What fits a header of everybody.
const MAX_BYTES: usize = 512;

/// A shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a secret; white space around it, as files have at their end, is none of it.
    /// # Errors
    /// When it is short, long, or cannot be written into a header.
    pub fn new(text: &str) -> Result<Secret, String> {
        let text = text.trim();
        if !(MIN_BYTES..=MAX_BYTES).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "the secret must have {MIN_BYTES} to {MAX_BYTES} letters, digits and signs, as `openssl rand -hex 32` makes them"
            ));
        }
        Ok(Secret(text.into()))
    }

    /// Whether `shown` is it.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let own = self.0.as_bytes();
        own.len() == shown.len() && own.iter().zip(shown).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_whole_secret_is_it() {
        let secret = Secret::new(" 0123456789abcdef\n").unwrap();
        assert!(secret.is(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdeg", b"0123456789abcdef0"] {
            assert!(!secret.is(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn weak_secrets_are_refused() {
        for weak in ["", "short", "0123456789 abcdef", "0123456789abcdeé", &"x".repeat(513)] {
            assert!(Secret::new(weak).unwrap_err().contains("openssl"), "{weak}");
        }
    }
}
