//! The vector building blocks: a register-blocked matrix product and the exponential.

use pulp::Simd;

/// Vectors per register block: `ROWS x COLUMNS` accumulators fill AVX2's registers.
const COLUMNS: usize = 2;
/// Columns of matrices in [`multiply`] are a multiple of this, whatever the vector length.
pub const ALIGN: usize = 32;

/// `c += a b`, all row-major: `a` is `(rows, depth)` with rows `lda` apart, `b` `(depth, columns)` and `c` `(rows,
/// columns)` with rows `ldb` and `ldc` apart; `columns` is a multiple of [`ALIGN`].
#[inline(always)]
pub fn multiply<S: Simd>(
    simd: S,
    (a, lda): (&[f32], usize),
    (b, ldb): (&[f32], usize),
    (c, ldc): (&mut [f32], usize),
    [rows, depth, columns]: [usize; 3],
) {
    let step = COLUMNS * S::F32_LANES;
    for column in (0..columns).step_by(step) {
        let b = &b[column..];
        let mut row = 0;
        while row + 6 <= rows {
            block::<S, 6>(
                simd,
                (&a[row * lda..], lda),
                (b, ldb),
                (&mut c[row * ldc + column..], ldc),
                depth,
            );
            row += 6;
        }
        if row + 4 <= rows {
            block::<S, 4>(
                simd,
                (&a[row * lda..], lda),
                (b, ldb),
                (&mut c[row * ldc + column..], ldc),
                depth,
            );
            row += 4;
        }
        while row < rows {
            block::<S, 1>(
                simd,
                (&a[row * lda..], lda),
                (b, ldb),
                (&mut c[row * ldc + column..], ldc),
                depth,
            );
            row += 1;
        }
    }
}

#[inline(always)]
fn block<S: Simd, const ROWS: usize>(
    simd: S,
    (a, lda): (&[f32], usize),
    (b, ldb): (&[f32], usize),
    (c, ldc): (&mut [f32], usize),
    depth: usize,
) {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
    for (row, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(S::as_simd_f32s(&c[row * ldc..][..COLUMNS * lanes]).0);
    }
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &a[row * lda..][..depth]);
    for k in 0..depth {
        let b = S::as_simd_f32s(&b[k * ldb..][..COLUMNS * lanes]).0;
        let b: [S::f32s; COLUMNS] = std::array::from_fn(|column| b[column]);
        for (sums, a) in sums.iter_mut().zip(&rows) {
            let a = simd.splat_f32s(a[k]);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_e_f32s(a, b, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        S::as_mut_simd_f32s(&mut c[row * ldc..][..COLUMNS * lanes])
            .0
            .copy_from_slice(sums);
    }
}

/// The dot product; lengths are equal.
#[inline(always)]
pub fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let mut sums = [simd.splat_f32s(0.0); 2];
    for (a, b) in a.chunks(2).zip(b.chunks(2)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = simd.mul_add_e_f32s(*a, *b, *sum);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1])) + rest
}

/// `to = to x factor + from x weight`; lengths are equal.
#[inline(always)]
pub fn scale_add<S: Simd>(simd: S, to: &mut [f32], factor: f32, from: &[f32], weight: f32) {
    let ((to, to_rest), (from, from_rest)) = (S::as_mut_simd_f32s(to), S::as_simd_f32s(from));
    let (f, w) = (simd.splat_f32s(factor), simd.splat_f32s(weight));
    for (to, from) in to.iter_mut().zip(from) {
        *to = simd.mul_add_e_f32s(*from, w, simd.mul_f32s(*to, f));
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to = *to * factor + from * weight;
    }
}

/// The largest element; `f32::MIN` for an empty row.
#[inline(always)]
pub fn largest<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(row);
    let most = vectors
        .iter()
        .fold(simd.splat_f32s(f32::MIN), |most, x| simd.max_f32s(most, *x));
    rest.iter()
        .copied()
        .fold(simd.reduce_max_f32s(most), f32::max)
}

/// Replaces each `x` of a row by `exp(x - most)` and returns their sum.
#[inline(always)]
pub fn exponentials<S: Simd>(simd: S, row: &mut [f32], most: f32) -> f32 {
    let (vectors, rest) = S::as_mut_simd_f32s(row);
    let shift = simd.splat_f32s(most);
    let mut sum = simd.splat_f32s(0.0);
    for x in vectors {
        *x = exp(simd, simd.sub_f32s(*x, shift));
        sum = simd.add_f32s(sum, *x);
    }
    let mut total = simd.reduce_sum_f32s(sum);
    for x in rest {
        *x = (*x - most).exp();
        total += *x;
    }
    total
}

/// `exp(x)` for `x <= 0`, relative error below 2e-7; below -87 it stays at `exp(-87)`, about 1e-38.
///
/// `exp(x) = 2^n exp(f)` with `n` the integer next to `x / ln 2` and `|f| <= ln 2 / 2`; the polynomial is that of the
/// Cephes library's expf.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Adding it leaves the nearest integer in the lowest mantissa bits.
    const TO_INTEGER: f32 = 12_582_912.0;
    let constant = |c: f32| simd.splat_f32s(c);
    let x = simd.max_f32s(x, constant(-87.0));
    let shifted = simd.mul_add_e_f32s(x, constant(std::f32::consts::LOG2_E), constant(TO_INTEGER));
    let n = simd.sub_f32s(shifted, constant(TO_INTEGER));
    let f = simd.mul_add_e_f32s(n, constant(-0.693_359_4), x);
    let f = simd.mul_add_e_f32s(n, constant(2.121_944_4e-4), f);
    let mut p = constant(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        5e-1,
    ] {
        p = simd.mul_add_e_f32s(p, f, constant(c));
    }
    let p = simd.add_f32s(
        simd.mul_add_e_f32s(p, simd.mul_f32s(f, f), f),
        constant(1.0),
    );
    let exponent = simd.add_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(127));
    let power = simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23));
    simd.mul_f32s(p, simd.transmute_f32s_u32s(power))
}

/// Soft cap on logits, `x -> cap tanh(x / cap)` (Gemma 2, arXiv 2408.00118, section 2).
pub fn soft_cap(row: &mut [f32], cap: Option<f32>) {
    if let Some(cap) = cap {
        row.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{Arch, WithSimd};

    struct Exponentials<'a>(&'a mut [f32]);

    impl WithSimd for Exponentials<'_> {
        type Output = f32;
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            exponentials(simd, self.0, 0.0)
        }
    }

    #[test]
    fn exponential_is_within_its_bound() {
        let xs: Vec<f32> = (0..87_000).map(|i| -(i as f32) / 1000.0).collect();
        for scalar in [false, true] {
            let mut ys = xs.clone();
            let job = Exponentials(&mut ys);
            if scalar {
                job.with_simd(pulp::Scalar::new())
            } else {
                Arch::new().dispatch(job)
            };
            for (x, y) in xs.iter().zip(&ys) {
                let exact = f64::from(*x).exp();
                assert!(
                    (f64::from(*y) / exact - 1.0).abs() < 2e-7,
                    "exp({x}) = {y}, not {exact}"
                );
            }
        }
    }

    #[test]
    fn masked_logits_vanish() {
        let mut row = vec![-1e30; 16];
        Arch::new().dispatch(Exponentials(&mut row));
        assert!(row.iter().all(|&p| (0.0..1e-37).contains(&p)));
    }
}
