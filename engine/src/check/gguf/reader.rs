//! The parts that a header is made of, each compared with the bytes that are left before it is read.

use super::Header;
use std::io::{self, Read};

/// Bytes of a key or of a tensor's name at most; the format allows no more.
const MOST_NAME: u64 = 65_535;
/// Dimensions of a tensor at most; the format allows no more.
const MOST_DIMENSIONS: u32 = 4;
/// Levels of arrays in arrays at most; no model has any.
const MOST_NESTED: usize = 1;
/// Elements of all arrays together at most: the runtime keeps 32 bytes for each. Vocabularies have half a million.
const MOST_ELEMENTS: u64 = 1 << 24;
/// A tensor's place: where it begins behind the header, and its bytes.
pub(super) type Place = (u64, u64);

/// Elements and bytes of a block of a type, by its number; `None` for types that the runtime lacks.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 => (1, 4),
        1 | 30 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        10 => (256, 84),
        11 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        _ => return None,
    })
}

pub(super) fn damaged(what: impl std::fmt::Display) -> String {
    format!("has a damaged header ({what})")
}

/// Reads a header, and knows how many bytes are left.
pub(super) struct Reader<R> {
    from: R,
    pub at: u64,
    length: u64,
    /// Whether counts have 32 bits, as in version 1.
    pub narrow: bool,
    /// Elements of all arrays so far.
    elements: u64,
}

impl<R: Read> Reader<R> {
    pub fn new(from: R, length: u64) -> Self {
        Self {
            from,
            at: 0,
            length,
            narrow: false,
            elements: 0,
        }
    }

    fn left(&self) -> u64 {
        self.length - self.at
    }

    /// Refuses a count of things that take `bytes` each at least and cannot all be there.
    pub fn fits(&self, count: u64, bytes: u64, what: &str) -> Result<(), String> {
        match count.checked_mul(bytes) {
            Some(bytes) if bytes <= self.left() => Ok(()),
            _ => Err(damaged(format_args!(
                "{count} {what} in the {} bytes that are left",
                self.left()
            ))),
        }
    }

    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.fits(N as u64, 1, "bytes")?;
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(unreadable)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), String> {
        self.fits(bytes, 1, "bytes")?;
        let skipped = io::copy(&mut self.from.by_ref().take(bytes), &mut io::sink());
        if skipped.map_err(unreadable)? < bytes {
            return Err("is truncated".into());
        }
        self.at += bytes;
        Ok(())
    }

    pub fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    pub fn count(&mut self) -> Result<u64, String> {
        if self.narrow {
            self.u32().map(u64::from)
        } else {
            self.u64()
        }
    }

    fn text(&mut self, bytes: u64) -> Result<String, String> {
        self.fits(bytes, 1, "bytes of text")?;
        let mut text = Vec::new();
        let read = self.from.by_ref().take(bytes).read_to_end(&mut text);
        if (read.map_err(unreadable)? as u64) < bytes {
            return Err("is truncated".into());
        }
        self.at += bytes;
        // The runtime takes away zeros at the end.
        let text = String::from_utf8_lossy(&text);
        Ok(text.trim_end_matches('\0').into())
    }

    /// A key or a tensor's name.
    pub fn name(&mut self) -> Result<String, String> {
        let bytes = self.count()?;
        if bytes > MOST_NAME {
            return Err(damaged(format_args!("a name of {bytes} bytes")));
        }
        self.text(bytes)
    }

    /// A value, of which the header notes what says something of the model's shape.
    pub fn value(&mut self, key: String, header: &mut Header) -> Result<(), String> {
        let kind = self.u32()?;
        match kind {
            8 => {
                let bytes = self.count()?;
                if key != "general.architecture" {
                    return self.skip(bytes);
                }
                if bytes > MOST_NAME {
                    return Err(damaged(format_args!("a name of {bytes} bytes")));
                }
                header.architecture = Some(self.text(bytes)?);
                Ok(())
            }
            9 => {
                let count = self.array(0)?;
                header.arrays.insert(key, count);
                Ok(())
            }
            _ => {
                if let Some(number) = self.scalar(kind)? {
                    header.numbers.insert(key, number);
                }
                Ok(())
            }
        }
    }

    /// A number, if it is whole and not negative.
    fn scalar(&mut self, kind: u32) -> Result<Option<u64>, String> {
        Ok(match kind {
            0 => Some(self.bytes::<1>()?[0].into()),
            1 => u64::try_from(i8::from_le_bytes(self.bytes()?)).ok(),
            2 => Some(u16::from_le_bytes(self.bytes()?).into()),
            3 => u64::try_from(i16::from_le_bytes(self.bytes()?)).ok(),
            4 => Some(self.u32()?.into()),
            5 => u64::try_from(i32::from_le_bytes(self.bytes()?)).ok(),
            6 => self.bytes::<4>().map(|_| None)?,
            7 => match self.bytes::<1>()? {
                [0 | 1] => None,
                [other] => return Err(damaged(format_args!("true or false as {other}"))),
            },
            10 => Some(self.u64()?),
            11 => u64::try_from(i64::from_le_bytes(self.bytes()?)).ok(),
            12 => self.bytes::<8>().map(|_| None)?,
            other => return Err(damaged(format_args!("a value of type {other}"))),
        })
    }

    /// An array's length, when it was skipped.
    fn array(&mut self, nested: usize) -> Result<u64, String> {
        let kind = self.u32()?;
        let count = self.count()?;
        let each = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            // Their lengths at least.
            8 if self.narrow => 4,
            8 => 8,
            9 if nested < MOST_NESTED && self.narrow => 8,
            9 if nested < MOST_NESTED => 12,
            9 => return Err(damaged("arrays in arrays in arrays")),
            other => return Err(damaged(format_args!("an array of type {other}"))),
        };
        self.fits(count, each, "elements of an array")?;
        self.elements += count;
        if self.elements > MOST_ELEMENTS {
            return Err(damaged(format_args!(
                "more than {MOST_ELEMENTS} elements of arrays"
            )));
        }
        match kind {
            7 => {
                for _ in 0..count {
                    self.scalar(7)?;
                }
            }
            8 => {
                for _ in 0..count {
                    let bytes = self.count()?;
                    self.skip(bytes)?;
                }
            }
            9 => {
                for _ in 0..count {
                    self.array(nested + 1)?;
                }
            }
            _ => self.skip(count * each)?,
        }
        Ok(count)
    }

    /// Where a tensor lies.
    pub fn tensor(&mut self, name: &str) -> Result<Place, String> {
        let wrong = |what: String| damaged(format_args!("the tensor {name:?} {what}"));
        let dimensions = self.u32()?;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(wrong(format!("has {dimensions} dimensions")));
        }
        let mut elements = 1u64;
        let mut row = 1;
        for at in 0..dimensions {
            let size = self.count()?;
            if at == 0 {
                row = size;
            }
            elements = elements
                .checked_mul(size)
                .filter(|&elements| elements > 0)
                .ok_or_else(|| wrong("has no size that can be".into()))?;
        }
        let kind = self.u32()?;
        let (of, bytes) = block(kind)
            .ok_or_else(|| wrong(format!("is of type {kind}, which the runtime lacks")))?;
        if row % of != 0 {
            return Err(wrong(format!(
                "has rows of {row} elements in blocks of {of}"
            )));
        }
        let bytes = (elements / of)
            .checked_mul(bytes)
            .ok_or_else(|| wrong("has no size that can be".into()))?;
        Ok((self.u64()?, bytes))
    }
}

fn unreadable(why: io::Error) -> String {
    match why.kind() {
        io::ErrorKind::UnexpectedEof => "is truncated".into(),
        _ => format!("cannot be read ({why})"),
    }
}
