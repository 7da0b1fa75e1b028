//! The header of a GGUF file (the format of llama.cpp; its specification is `docs/gguf.md` of the project ggml).

use super::MOST_POSITIONS;
use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read},
};

/// Bytes of a key or of a tensor's name at most; the format allows no more.
const MOST_NAME: u64 = 65_535;
/// Dimensions of a tensor at most; the format allows no more.
const MOST_DIMENSIONS: u32 = 4;
/// Arrays in arrays at most; no model has any.
const MOST_NESTED: usize = 2;
/// Elements of all arrays together at most: the runtime keeps 32 bytes for each. Vocabularies have half a million.
const MOST_ELEMENTS: u64 = 1 << 24;
/// Where tensors begin unless the file says otherwise: at multiples of this.
const ALIGNMENT: u64 = 32;

/// What a header says of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// All whole numbers by their keys.
    pub numbers: BTreeMap<String, u64>,
    /// Lengths of all arrays by their keys.
    pub arrays: BTreeMap<String, u64>,
    /// How many tensors there are.
    pub tensors: u64,
}

/// Reads and checks the header of a file of `length` bytes: every count, type and alignment, and that every tensor lies in
/// the file and none in another.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's name.
pub fn read(from: impl Read, length: u64) -> Result<Header, String> {
    let mut reader = Reader {
        from,
        at: 0,
        length,
        narrow: false,
        elements: 0,
    };
    if length < 24 || &reader.bytes::<4>()? != b"GGUF" {
        return Err("is truncated or not in the GGUF format".into());
    }
    let version = reader.u32()?;
    if !(1..=3).contains(&version) {
        return Err(format!(
            "has version {version} of the GGUF format, not 1 to 3"
        ));
    }
    reader.narrow = version == 1;
    let (tensors, values) = (reader.count()?, reader.count()?);
    // A tensor takes 24 bytes at least and a value 9, in the first version 16 and 9.
    reader.fits(tensors, 16, "tensors")?;
    reader.fits(values, 9, "values")?;
    let mut header = Header {
        tensors,
        ..Header::default()
    };
    let mut keys = HashSet::new();
    for _ in 0..values {
        let key = reader.name()?;
        if !keys.insert(key.clone()) {
            return Err(damaged(format_args!("the key {key:?} comes twice")));
        }
        reader.value(key, &mut header)?;
    }
    let mut names = HashSet::new();
    let mut places = Vec::new();
    for _ in 0..tensors {
        let name = reader.name()?;
        let place = reader.tensor(&name)?;
        if !names.insert(name.clone()) {
            return Err(damaged(format_args!("the tensor {name:?} comes twice")));
        }
        places.push((place, name));
    }
    let alignment = match header.numbers.get("general.alignment") {
        Some(&alignment) if alignment.is_power_of_two() => alignment,
        Some(alignment) => return Err(damaged(format_args!("an alignment of {alignment}"))),
        None => ALIGNMENT,
    };
    let data = reader
        .at
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| damaged(format_args!("an alignment of {alignment}")))?;
    inside(places, data, alignment, length)?;
    Ok(header)
}

/// Checks that what a header says makes a model.
///
/// # Errors
/// As [`read`].
pub fn fit(header: &Header) -> Result<(), String> {
    let Some(architecture) = &header.architecture else {
        return Err("does not say its architecture (general.architecture)".into());
    };
    let number = |key: &str| {
        let key = format!("{architecture}.{key}");
        header.numbers.get(&key).map(|&number| (key, number))
    };
    let between = |key: &str, most: u64| match number(key) {
        Some((key, found)) if !(1..=most).contains(&found) => {
            Err(format!("says {key} = {found}, where 1 to {most} can be"))
        }
        _ => Ok(()),
    };
    // Every layer has a tensor of its own.
    between("block_count", header.tensors)?;
    between("context_length", MOST_POSITIONS)?;
    for key in [
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "embedding_length",
        "rope.dimension_count",
    ] {
        between(key, u64::from(u32::MAX))?;
    }
    if let (Some((key, heads)), Some((_, kv_heads))) = (
        number("attention.head_count"),
        number("attention.head_count_kv"),
    ) && heads % kv_heads != 0
    {
        return Err(format!(
            "says {key} = {heads}, no multiple of {kv_heads} KV heads"
        ));
    }
    match header.arrays.get("tokenizer.ggml.tokens") {
        None | Some(0) => Err("holds no tokens (tokenizer.ggml.tokens)".into()),
        Some(_) => Ok(()),
    }
}

/// A tensor's place: where it begins behind the header, and its bytes.
type Place = (u64, u64);

fn inside(
    mut places: Vec<(Place, String)>,
    data: u64,
    alignment: u64,
    length: u64,
) -> Result<(), String> {
    places.sort();
    let mut end = 0;
    for ((offset, bytes), name) in &places {
        let last = data
            .checked_add(*offset)
            .and_then(|at| at.checked_add(*bytes));
        if last.is_none_or(|last| last > length) {
            let last = last.map_or("no byte that there is".into(), |last| {
                format!("byte {last}")
            });
            return Err(format!(
                "is truncated: tensor {name:?} ends at {last} of {length}"
            ));
        }
        if offset % alignment != 0 || *offset < end {
            return Err(damaged(format_args!(
                "the tensor {name:?} begins inside another"
            )));
        }
        end = offset + bytes;
    }
    Ok(())
}

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
        9 => (32, 36),
        10 => (256, 84),
        11 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        _ => return None,
    })
}

fn damaged(what: impl std::fmt::Display) -> String {
    format!("has a damaged header ({what})")
}

/// Reads a header, and knows how many bytes are left.
struct Reader<R> {
    from: R,
    at: u64,
    length: u64,
    /// Whether counts have 32 bits, as in version 1.
    narrow: bool,
    /// Elements of all arrays so far.
    elements: u64,
}

impl<R: Read> Reader<R> {
    fn left(&self) -> u64 {
        self.length - self.at
    }

    /// Refuses a count of things that take `bytes` each at least and cannot all be there.
    fn fits(&self, count: u64, bytes: u64, what: &str) -> Result<(), String> {
        match count.checked_mul(bytes) {
            Some(bytes) if bytes <= self.left() => Ok(()),
            _ => Err(damaged(format_args!(
                "{count} {what} in the {} bytes that are left",
                self.left()
            ))),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
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

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn count(&mut self) -> Result<u64, String> {
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
    fn name(&mut self) -> Result<String, String> {
        let bytes = self.count()?;
        if bytes > MOST_NAME {
            return Err(damaged(format_args!("a name of {bytes} bytes")));
        }
        self.text(bytes)
    }

    /// A value, of which the header notes what says something of the model's shape.
    fn value(&mut self, key: String, header: &mut Header) -> Result<(), String> {
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
    fn tensor(&mut self, name: &str) -> Result<Place, String> {
        let wrong = |what: String| damaged(format_args!("the tensor {name:?} {what}"));
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
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
