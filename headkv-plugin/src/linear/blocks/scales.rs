//! Scales and offsets of the blocks of eight outputs.

use super::{PANEL, isa::Isa};

/// What the codes of 32 inputs are worth, by halves of them: `scale * code + offset`.
pub struct Worth<F> {
    pub scale: [F; 2],
    pub offset: [F; 2],
}

/// Scales as they lie in memory.
pub trait Scales: Copy + Send + Sync {
    /// Whether the two halves of 32 inputs differ.
    const HALVES: bool = false;
    /// Whether there are offsets.
    const OFFSETS: bool = true;

    /// Reads the scales of eight outputs' blocks.
    fn pack(blocks: &[&[u8]; PANEL]) -> Self;

    /// What the codes of 32 inputs are worth, the block's `part`-th.
    fn worth<I: Isa>(&self, isa: I, part: usize) -> Worth<I::Floats>;
}

type Half = [u16; PANEL];

/// A number of 16 bits in each block.
fn half(blocks: &[&[u8]; PANEL], at: usize) -> Half {
    blocks.map(|block| u16::from_le_bytes([block[at], block[at + 1]]))
}

#[inline(always)]
fn same<F: Copy>(scale: F, offset: F) -> Worth<F> {
    Worth {
        scale: [scale; 2],
        offset: [offset; 2],
    }
}

/// A scale; codes stand for what is `ZERO` less.
#[derive(Clone, Copy)]
pub struct Plain<const ZERO: u8>(Half);

impl<const ZERO: u8> Scales for Plain<ZERO> {
    const OFFSETS: bool = ZERO > 0;

    fn pack(blocks: &[&[u8]; PANEL]) -> Self {
        Self(half(blocks, 0))
    }

    #[inline(always)]
    fn worth<I: Isa>(&self, isa: I, _: usize) -> Worth<I::Floats> {
        let scale = isa.half(&self.0);
        same(scale, isa.mul(scale, isa.splat(-f32::from(ZERO))))
    }
}

/// A scale and an offset.
#[derive(Clone, Copy)]
pub struct Offset {
    scale: Half,
    offset: Half,
}

impl Scales for Offset {
    fn pack(blocks: &[&[u8]; PANEL]) -> Self {
        Self {
            scale: half(blocks, 0),
            offset: half(blocks, 2),
        }
    }

    #[inline(always)]
    fn worth<I: Isa>(&self, isa: I, _: usize) -> Worth<I::Floats> {
        same(isa.half(&self.scale), isa.half(&self.offset))
    }
}

/// Of 4- and 5-bit K formats: scales and offsets of 6 bits for every 32 inputs, which have a scale each.
#[derive(Clone, Copy)]
pub struct Parts {
    scale: Half,
    offset: Half,
    scales: [[u8; PANEL]; 8],
    offsets: [[u8; PANEL]; 8],
}

impl Scales for Parts {
    fn pack(blocks: &[&[u8]; PANEL]) -> Self {
        // The first four of each in the lower bits of a byte each, whose upper two bits complete the others.
        let bytes = blocks.map(|block| &block[4..16]);
        let number = |at: usize, part: usize| {
            bytes.map(|bytes| match part {
                0..4 => bytes[at + part] & 63,
                _ => bytes[4 + part] >> at & 15 | bytes[at + part - 4] >> 6 << 4,
            })
        };
        Self {
            scale: half(blocks, 0),
            offset: half(blocks, 2),
            scales: std::array::from_fn(|part| number(0, part)),
            offsets: std::array::from_fn(|part| number(4, part)),
        }
    }

    #[inline(always)]
    fn worth<I: Isa>(&self, isa: I, part: usize) -> Worth<I::Floats> {
        let minus = isa.mul(isa.half(&self.offset), isa.splat(-1.0));
        same(
            isa.mul(isa.half(&self.scale), isa.unsigned(&self.scales[part])),
            isa.mul(minus, isa.unsigned(&self.offsets[part])),
        )
    }
}

/// Of 3- and 6-bit K formats: scales with a sign for every 16 inputs; codes stand for what is `ZERO` less.
#[derive(Clone, Copy)]
pub struct Signed<const ZERO: u8> {
    scale: Half,
    scales: [[i8; PANEL]; 16],
}

impl<const ZERO: u8> Scales for Signed<ZERO> {
    const HALVES: bool = true;

    fn pack(blocks: &[&[u8]; PANEL]) -> Self {
        // The scale comes last.
        let scale = half(blocks, blocks[0].len() - 2);
        let number = |block: &[u8], at: usize| match ZERO {
            32 => block[192 + at] as i8,
            // Four bits in one of eight bytes, two in one of the four behind them; 32 is zero.
            _ => {
                let bytes = &block[96..108];
                let low = bytes[at % 8] >> (at / 8 * 4) & 15;
                let high = bytes[8 + at % 4] >> (at / 4 * 2) & 3;
                (low | high << 4) as i8 - 32
            }
        };
        Self {
            scale,
            scales: std::array::from_fn(|at| blocks.map(|block| number(block, at))),
        }
    }

    #[inline(always)]
    fn worth<I: Isa>(&self, isa: I, part: usize) -> Worth<I::Floats> {
        let all = isa.half(&self.scale);
        let first = isa.mul(all, isa.signed(&self.scales[2 * part]));
        let last = isa.mul(all, isa.signed(&self.scales[2 * part + 1]));
        let zero = isa.splat(-f32::from(ZERO));
        Worth {
            scale: [first, last],
            offset: [isa.mul(first, zero), isa.mul(last, zero)],
        }
    }
}

/// Of the 2-bit K format: scales in the lower, offsets in the upper four bits of a byte for every 16 inputs.
#[derive(Clone, Copy)]
pub struct Nibbles {
    scale: Half,
    offset: Half,
    both: [[u8; PANEL]; 16],
}

impl Scales for Nibbles {
    const HALVES: bool = true;

    fn pack(blocks: &[&[u8]; PANEL]) -> Self {
        Self {
            scale: half(blocks, 80),
            offset: half(blocks, 82),
            both: std::array::from_fn(|at| blocks.map(|block| block[at])),
        }
    }

    #[inline(always)]
    fn worth<I: Isa>(&self, isa: I, part: usize) -> Worth<I::Floats> {
        let scale = isa.half(&self.scale);
        let minus = isa.mul(isa.half(&self.offset), isa.splat(-1.0));
        let both = [0, 1].map(|half| self.both[2 * part + half]);
        Worth {
            scale: both.map(|both| isa.mul(scale, isa.unsigned(&both.map(|x| x & 15)))),
            offset: both.map(|both| isa.mul(minus, isa.unsigned(&both.map(|x| x >> 4)))),
        }
    }
}
