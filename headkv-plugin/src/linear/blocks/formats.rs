//! ggml's formats of blocks.

use super::{
    PART,
    codes::{Codes, Eight, Five, Four, Six, Three, Two},
    scales::{Nibbles, Offset, Parts, Plain, Scales, Signed},
};

/// How a format's blocks lie in a file.
pub trait Format: Send + Sync + 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Times 32 inputs that a block has.
    const PARTS: usize;
    /// The codes of 32 inputs, of eight outputs.
    type Codes: Codes;
    /// The scales of a block, of eight outputs.
    type Scales: Scales;

    /// The codes of 32 inputs of a block.
    fn codes(block: &[u8], part: usize) -> [u8; PART];
}

/// Half bytes, the lower ones first.
fn nibbles(bytes: &[u8]) -> [u8; PART] {
    std::array::from_fn(|i| bytes[i % 16] >> (i / 16 * 4) & 15)
}

/// Half bytes of 32 bytes, which are the lower ones of a part and the upper ones of the next.
fn alternate(bytes: &[u8], part: usize) -> [u8; PART] {
    std::array::from_fn(|i| bytes[part / 2 * PART + i] >> (part % 2 * 4) & 15)
}

/// Codes with the bits `bits(i)` above their `below`.
fn with(codes: [u8; PART], below: u32, bits: impl Fn(usize) -> u8) -> [u8; PART] {
    std::array::from_fn(|i| codes[i] | bits(i) << below)
}

macro_rules! format {
    ($name:ident: $what:literal, $bytes:literal bytes, $parts:literal x 32, $codes:ty, $scales:ty, $read:expr) => {
        #[doc = $what]
        pub struct $name;

        impl Format for $name {
            const BYTES: usize = $bytes;
            const PARTS: usize = $parts;
            type Codes = $codes;
            type Scales = $scales;

            fn codes(block: &[u8], part: usize) -> [u8; PART] {
                let read: fn(&[u8], usize) -> [u8; PART] = $read;
                read(block, part)
            }
        }
    };
}

format!(Q4_0: "A scale.", 18 bytes, 1 x 32, Four, Plain<8>, |block, _| nibbles(&block[2..]));
format!(Q4_1: "A scale and an offset.", 20 bytes, 1 x 32, Four, Offset, |block, _| nibbles(&block[4..]));
format!(Q5_0: "A scale.", 22 bytes, 1 x 32, Five, Plain<16>, |block, _| {
    with(nibbles(&block[6..]), 4, |i| block[2 + i / 8] >> (i % 8) & 1)
});
format!(Q5_1: "A scale and an offset.", 24 bytes, 1 x 32, Five, Offset, |block, _| {
    with(nibbles(&block[8..]), 4, |i| block[4 + i / 8] >> (i % 8) & 1)
});
format!(Q8_0: "A scale.", 34 bytes, 1 x 32, Eight, Plain<0>, |block, _| {
    std::array::from_fn(|i| block[2 + i])
});
format!(Q2K: "A scale and an offset for 16 inputs.", 84 bytes, 8 x 32, Two, Nibbles, |block, part| {
    std::array::from_fn(|i| block[16 + part / 4 * PART + i] >> (part % 4 * 2) & 3)
});
format!(Q3K: "A scale for 16 inputs.", 110 bytes, 8 x 32, Three, Signed<4>, |block, part| {
    let low = std::array::from_fn(|i| block[32 + part / 4 * PART + i] >> (part % 4 * 2) & 3);
    with(low, 2, |i| block[i] >> part & 1)
});
format!(Q4K: "A scale and an offset for 32 inputs.", 144 bytes, 8 x 32, Four, Parts, |block, part| {
    alternate(&block[16..], part)
});
format!(Q5K: "A scale and an offset for 32 inputs.", 176 bytes, 8 x 32, Five, Parts, |block, part| {
    with(alternate(&block[48..], part), 4, |i| block[16 + i] >> part & 1)
});
format!(Q6K: "A scale for 16 inputs.", 210 bytes, 8 x 32, Six, Signed<32>, |block, part| {
    // Of 128 inputs, the first 64 in the lower half bytes of 64 bytes, the last 64 in the upper ones.
    let (half, quarter) = (part / 4, part % 4);
    let low = |i| block[half * 64 + quarter % 2 * PART + i] >> (quarter / 2 * 4) & 15;
    let low = std::array::from_fn(low);
    with(low, 4, |i| block[128 + half * PART + i] >> (quarter * 2) & 3)
});
