//! Activations as codes of eight bits.

use super::PART;

/// 32 activations of a row.
#[derive(Clone, Copy)]
pub struct Part {
    /// In -127..=127.
    pub codes: [i8; PART],
    /// What a code is worth.
    pub scale: f32,
    /// What the first and the last 16 are worth together.
    pub sums: [f32; 2],
}

impl Part {
    /// Rounds them.
    #[inline(always)]
    pub fn new(x: &[f32; PART]) -> Self {
        let largest = x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        // Zero, or not a number if one of them is none, which a largest value would not show.
        let nothing: f32 = x.iter().map(|x| x * 0.0).sum();
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        // The nearest whole number stands in the last bits of such a sum.
        const ROUND: f32 = (3 << 22) as f32;
        let code = |x: &f32| {
            (x * inverse + ROUND)
                .to_bits()
                .wrapping_sub(ROUND.to_bits()) as i8
        };
        let codes = std::array::from_fn(|i| code(&x[i]));
        let scale = largest / 127.0 + nothing;
        let sum = |codes: &[i8]| codes.iter().map(|x| i32::from(*x)).sum::<i32>() as f32 * scale;
        let (first, last) = codes.split_at(PART / 2);
        Self {
            sums: [sum(first), sum(last)],
            codes,
            scale,
        }
    }
}
