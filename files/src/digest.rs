//! SHA-256, in hexadecimal.

use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// A digest that is being computed.
#[derive(Clone, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// Adds all that can be read.
    ///
    /// # Errors
    /// Whatever the reader says.
    pub fn read(&mut self, mut from: impl Read) -> io::Result<()> {
        io::copy(&mut from, &mut self.0).map(|_| ())
    }

    /// The digest, 64 letters.
    pub fn hexadecimal(self) -> String {
        let bytes = self.0.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The digest of all parts in a row.
pub fn sha256(parts: &[&[u8]]) -> String {
    let mut digest = Digest::default();
    parts.iter().for_each(|part| digest.update(part));
    digest.hexadecimal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_good_as_the_whole() {
        // The standard's own example.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&[b"a", b"", b"bc"]), known);
        let mut read = Digest::default();
        read.read(&b"abc"[..]).unwrap();
        assert_eq!(read.hexadecimal(), known);
    }
}
