//! What a processor does with eight outputs at once, and the same in plain Rust.

use super::PANEL;
use pulp::NullaryFnOnce;

/// The instructions of a product, for the eight outputs of a panel.
pub trait Isa: Copy + Send + Sync {
    /// Four codes of each output.
    type Codes: Copy;
    /// A whole number for each output.
    type Sums: Copy;
    /// A number for each output.
    type Floats: Copy;

    /// Runs a task, which is to be inlined, with these instructions.
    fn run<T: NullaryFnOnce>(self, task: T) -> T::Output;

    /// Codes of 8 bits, four of each output side by side.
    fn load(self, codes: &[u8; 4 * PANEL]) -> Self::Codes;
    /// Every byte's bits `FROM` and up, as many as `mask` has, as if they began at bit `TO`.
    fn bits<const FROM: i32, const TO: i32>(self, bytes: Self::Codes, mask: u8) -> Self::Codes;
    /// Both codes' bits.
    fn join(self, a: Self::Codes, b: Self::Codes) -> Self::Codes;
    /// The sums of codes times activations. Codes have `bits` bits without a sign, or 8 with one; activations lie in
    /// -127..=127.
    fn dot(self, bits: u32, codes: &[Self::Codes], x: &[i8]) -> Self::Sums;

    /// Numbers of 16 bits.
    fn half(self, bits: &[u16; PANEL]) -> Self::Floats;
    /// Whole numbers without a sign.
    fn unsigned(self, numbers: &[u8; PANEL]) -> Self::Floats;
    /// Whole numbers with a sign.
    fn signed(self, numbers: &[i8; PANEL]) -> Self::Floats;
    /// Sums as they are.
    fn float(self, sums: Self::Sums) -> Self::Floats;
    /// The same number for each output.
    fn splat(self, number: f32) -> Self::Floats;
    /// `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The numbers, output by output.
    fn store(self, numbers: Self::Floats) -> [f32; PANEL];
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Portable;

impl Isa for Portable {
    type Codes = [u8; 4 * PANEL];
    type Sums = [i32; PANEL];
    type Floats = [f32; PANEL];

    #[inline(always)]
    fn run<T: NullaryFnOnce>(self, task: T) -> T::Output {
        task.call()
    }

    #[inline(always)]
    fn load(self, codes: &[u8; 4 * PANEL]) -> Self::Codes {
        *codes
    }

    #[inline(always)]
    fn bits<const FROM: i32, const TO: i32>(self, bytes: Self::Codes, mask: u8) -> Self::Codes {
        bytes.map(|byte| ((byte >> FROM) & mask) << TO)
    }

    #[inline(always)]
    fn join(self, a: Self::Codes, b: Self::Codes) -> Self::Codes {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn dot(self, bits: u32, codes: &[Self::Codes], x: &[i8]) -> Self::Sums {
        let mut sums = [0; PANEL];
        for (codes, x) in codes.iter().zip(x.chunks_exact(4)) {
            for (sum, codes) in sums.iter_mut().zip(codes.chunks_exact(4)) {
                for (code, x) in codes.iter().zip(x) {
                    let code = match bits {
                        8 => i32::from(*code as i8),
                        _ => i32::from(*code),
                    };
                    *sum += code * i32::from(*x);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn half(self, bits: &[u16; PANEL]) -> Self::Floats {
        bits.map(|bits| half::f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    fn unsigned(self, numbers: &[u8; PANEL]) -> Self::Floats {
        numbers.map(f32::from)
    }

    #[inline(always)]
    fn signed(self, numbers: &[i8; PANEL]) -> Self::Floats {
        numbers.map(f32::from)
    }

    #[inline(always)]
    fn float(self, sums: Self::Sums) -> Self::Floats {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn splat(self, number: f32) -> Self::Floats {
        [number; PANEL]
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn store(self, numbers: Self::Floats) -> [f32; PANEL] {
        numbers
    }
}
