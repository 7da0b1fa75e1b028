//! The element types that caches hold.

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// A number type that queries, keys and values are stored in.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The elements in f32, exactly: the slice itself, or its conversion in `buffer`.
    fn widen<'a>(from: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32];

    /// Rounds to the nearest element.
    fn narrow(value: f32) -> Self;

    /// Rounds each value to the nearest element; lengths are equal.
    fn narrow_all(from: &[f32], to: &mut [Self]);
}

impl Element for f32 {
    #[inline(always)]
    fn widen<'a>(from: &'a [f32], _: &'a mut Vec<f32>) -> &'a [f32] {
        from
    }

    fn narrow(value: f32) -> f32 {
        value
    }

    fn narrow_all(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

// `half` looks up the processor's features on every call; these conversions are plain integer arithmetic, which becomes
// vector instructions of whatever kernel they are inlined into.
macro_rules! half_element {
    ($half:ty, $to_f32:path) => {
        impl Element for $half {
            #[inline(always)]
            fn widen<'a>(from: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32] {
                buffer.resize(from.len(), 0.0);
                for (to, from) in buffer.iter_mut().zip(from) {
                    *to = $to_f32(from.to_bits());
                }
                buffer
            }

            fn narrow(value: f32) -> Self {
                Self::from_f32(value)
            }

            fn narrow_all(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }
        }
    };
}
half_element!(bf16, from_bf16);
half_element!(f16, from_f16);

/// bfloat16 is the upper half of an f32.
#[inline(always)]
fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// IEEE 754 half precision: the exponent and fraction are moved to where f32 has them, and a product with a power of
/// two corrects the exponent, subnormals included.
#[inline(always)]
fn from_f16(bits: u16) -> f32 {
    /// 2 to the difference of the exponents' biases, 127 - 15.
    const REBIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
    let bits = u32::from(bits);
    let magnitude = (f32::from_bits((bits & 0x7fff) << 13) * REBIAS).to_bits();
    let infinite_or_nan = if bits & 0x7c00 == 0x7c00 {
        0x7f80_0000
    } else {
        0
    };
    f32::from_bits(magnitude | infinite_or_nan | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_exactly() {
        for bits in 0..=u16::MAX {
            let same = |ours: f32, exact: f32| {
                ours.to_bits() == exact.to_bits() || (ours.is_nan() && exact.is_nan())
            };
            assert!(
                same(from_bf16(bits), bf16::from_bits(bits).to_f32()),
                "bf16 {bits:#x}"
            );
            assert!(
                same(from_f16(bits), f16::from_bits(bits).to_f32()),
                "f16 {bits:#x}"
            );
        }
    }
}
