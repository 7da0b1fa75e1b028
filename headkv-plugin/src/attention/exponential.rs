//! Softmax weights in base 2, and the soft cap on logits.
//!
//! Queries are multiplied by `log2(e)` beforehand, so that `exp` becomes `2^x`, which needs no reduction of its argument.

use pulp::Simd;
use std::f32::consts::{LN_2, LOG2_E};

/// Stands for the logit of a hidden key: its weight is about 1e-38, and differences of it stay numbers.
pub const MASKED: f32 = -1e30;

/// How dot products become logits in base 2.
#[derive(Clone, Copy)]
pub struct LogitScale {
    /// Factor on the queries.
    pub query: f32,
    /// What the soft cap multiplies the hyperbolic tangent by.
    cap: Option<f32>,
}

impl LogitScale {
    pub fn new(scale: f32, softcap: Option<f32>) -> Self {
        let query = softcap.map_or(scale * LOG2_E, |cap| scale / cap);
        Self {
            query,
            cap: softcap.map(|cap| cap * LOG2_E),
        }
    }

    /// Soft cap on logits, `x -> cap tanh(x / cap)` (Gemma 2, arXiv 2408.00118, section 2).
    ///
    /// `products` are those of keys and scaled queries; their number is a multiple of the vector's lanes.
    #[inline(always)]
    pub fn cap<S: Simd>(self, simd: S, products: &mut [f32]) {
        let Some(cap) = self.cap else { return };
        for x in S::as_mut_simd_f32s(products).0 {
            *x = simd.mul_f32s(tanh(simd, *x), simd.splat_f32s(cap));
        }
    }
}

/// The largest logit, at least [`MASKED`]; the row's length is a multiple of the vector's lanes.
#[inline(always)]
pub fn largest<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let row = S::as_simd_f32s(row).0;
    simd.reduce_max_f32s(
        row.iter()
            .fold(simd.splat_f32s(MASKED), |most, x| simd.max_f32s(most, *x)),
    )
}

/// Replaces each logit `x` of a row by its weight `2^(x - most)` and returns their sum; the row's length is a multiple of
/// the vector's lanes.
#[inline(always)]
pub fn weights<S: Simd>(simd: S, row: &mut [f32], most: f32) -> f32 {
    let shift = simd.splat_f32s(most);
    let mut sum = simd.splat_f32s(0.0);
    for x in S::as_mut_simd_f32s(row).0 {
        *x = exp2(simd, simd.sub_f32s(*x, shift));
        sum = simd.add_f32s(sum, *x);
    }
    simd.reduce_sum_f32s(sum)
}

/// `2^x` for `x < 127`, relative error below 2.5e-7; below -126 it stays at `2^-126`, about 1e-38.
///
/// `2^x = 2^n 2^f` with `n` the integer next to `x` and `|f| <= 1/2`. The polynomial has the least maximal relative error
/// (9.2e-8) of those of degree 5 that are 1 at 0.
#[inline(always)]
fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Adding it leaves the nearest integer in the lowest mantissa bits.
    const TO_INTEGER: f32 = 12_582_912.0;
    const POLYNOMIAL: [f32; 5] = [
        1.326_472_7e-3,
        9.671_513e-3,
        5.550_733_7e-2,
        0.240_222_42,
        LN_2 - 1.8e-7,
    ];
    let constant = |c: f32| simd.splat_f32s(c);
    // In this order, x86's maximum passes NaN on.
    let x = simd.max_f32s(constant(-126.0), x);
    let shifted = simd.add_f32s(x, constant(TO_INTEGER));
    let f = simd.sub_f32s(x, simd.sub_f32s(shifted, constant(TO_INTEGER)));
    let mut p = constant(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = simd.mul_add_e_f32s(p, f, constant(*c));
    }
    let p = simd.mul_add_e_f32s(p, f, constant(1.0));
    let exponent = simd.add_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(127));
    let power = simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23));
    simd.mul_f32s(p, simd.transmute_f32s_u32s(power))
}

/// The hyperbolic tangent, absolute error below 3e-7.
#[inline(always)]
fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// From here on it is 1 in f32.
    const SATURATED: f32 = 10.0;
    let constant = |c: f32| simd.splat_f32s(c);
    let x = simd.min_f32s(constant(SATURATED), simd.max_f32s(constant(-SATURATED), x));
    let grown = exp2(simd, simd.mul_f32s(x, constant(2.0 * LOG2_E)));
    let rest = simd.div_f32s(constant(2.0), simd.add_f32s(grown, constant(1.0)));
    simd.sub_f32s(constant(1.0), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::levels;
    use pulp::{Arch, WithSimd};

    struct Weights<'a>(&'a mut [f32]);

    impl WithSimd for Weights<'_> {
        type Output = f32;
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            weights(simd, self.0, 0.0)
        }
    }

    struct Capped<'a>(&'a mut [f32], f32);

    impl WithSimd for Capped<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            LogitScale::new(1.0, Some(self.1)).cap(simd, self.0);
        }
    }

    #[test]
    fn exponential_is_within_its_bound() {
        let xs: Vec<f32> = (0..126_000).map(|i| -(i as f32) / 1000.0).collect();
        for level in levels() {
            let mut ys = xs.clone();
            level.dispatch(Weights(&mut ys));
            assert_eq!(ys[0], 1.0);
            for (x, y) in xs.iter().zip(&ys) {
                let exact = f64::from(*x).exp2();
                assert!(
                    (f64::from(*y) / exact - 1.0).abs() < 2.5e-7,
                    "2^{x} = {y}, not {exact}"
                );
            }
        }
    }

    #[test]
    fn soft_cap_is_within_its_bound() {
        let cap = 50.0;
        // Scaled queries have been divided by the cap.
        let xs: Vec<f32> = (-16_000..16_000).map(|i| i as f32 / 1000.0).collect();
        for level in levels() {
            let mut ys = xs.clone();
            level.dispatch(Capped(&mut ys, cap));
            for (x, y) in xs.iter().zip(&ys) {
                let exact = f64::from(cap) * std::f64::consts::LOG2_E * f64::from(*x).tanh();
                assert!(
                    (f64::from(*y) - exact).abs() < 3e-7 * f64::from(cap * LOG2_E),
                    "cap tanh({x}) = {y}, not {exact}"
                );
            }
        }
    }

    #[test]
    fn masked_logits_vanish_and_nan_stays() {
        for level in levels() {
            let mut row = vec![MASKED; 32];
            level.dispatch(Weights(&mut row));
            assert!(row.iter().all(|p| (0.0..1.2e-38).contains(p)));
        }
        let mut row = vec![0.0; 32];
        row[5] = f32::NAN;
        assert!(Arch::new().dispatch(Weights(&mut row)).is_nan());
    }
}
