//! Register-blocked products of small matrices, and buffers aligned for them. All matrices are row-major.

use pulp::Simd;

/// `c = a b`, or `c += a b` where `ADD`: `a` is `(rows, depth)` with rows `lda` elements apart, `b` `(depth, columns)` and
/// `c` `(rows, columns)` with rows `ldb` and `ldc` apart.
#[inline(always)]
pub fn multiply<S: Simd, const ADD: bool>(
    simd: S,
    (a, lda): (&[f32], usize),
    (b, ldb): (&[f32], usize),
    (c, ldc): (&mut [f32], usize),
    [rows, depth, columns]: [usize; 3],
) {
    // 6 x 2 accumulators, 2 vectors of b and one of a fill AVX2's 16 registers. Fewer rows need more columns, so that
    // enough independent sums are under way to hide the latency of the additions.
    let mut row = 0;
    while row < rows {
        let (a, c) = (&a[row * lda..], &mut c[row * ldc..]);
        row += match rows - row {
            6.. => strip::<S, ADD, 6, 2>(simd, (a, lda), (b, ldb), (c, ldc), [depth, columns]),
            4.. => strip::<S, ADD, 4, 2>(simd, (a, lda), (b, ldb), (c, ldc), [depth, columns]),
            2.. => strip::<S, ADD, 2, 4>(simd, (a, lda), (b, ldb), (c, ldc), [depth, columns]),
            _ => strip::<S, ADD, 1, 4>(simd, (a, lda), (b, ldb), (c, ldc), [depth, columns]),
        };
    }
}

/// [`multiply`] for `ROWS` rows, which it returns; `WIDTH` vectors of columns at a time.
#[inline(always)]
fn strip<S: Simd, const ADD: bool, const ROWS: usize, const WIDTH: usize>(
    simd: S,
    a: (&[f32], usize),
    (b, ldb): (&[f32], usize),
    (c, ldc): (&mut [f32], usize),
    [depth, columns]: [usize; 2],
) -> usize {
    let mut column = 0;
    while column + WIDTH * S::F32_LANES <= columns {
        tile::<S, ADD, ROWS, WIDTH>(simd, a, (&b[column..], ldb), (&mut c[column..], ldc), depth);
        column += WIDTH * S::F32_LANES;
    }
    while column + S::F32_LANES <= columns {
        tile::<S, ADD, ROWS, 1>(simd, a, (&b[column..], ldb), (&mut c[column..], ldc), depth);
        column += S::F32_LANES;
    }
    for column in column..columns {
        for row in 0..ROWS {
            let a = &a.0[row * a.1..][..depth];
            let sum: f32 = a
                .iter()
                .zip(b[column..].iter().step_by(ldb))
                .map(|(a, b)| a * b)
                .sum();
            let c = &mut c[row * ldc + column];
            *c = if ADD { *c + sum } else { sum };
        }
    }
    ROWS
}

/// One block of accumulators, held in registers over the whole depth.
#[inline(always)]
fn tile<S: Simd, const ADD: bool, const ROWS: usize, const WIDTH: usize>(
    simd: S,
    (a, lda): (&[f32], usize),
    (b, ldb): (&[f32], usize),
    (c, ldc): (&mut [f32], usize),
    depth: usize,
) {
    let width = WIDTH * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); WIDTH]; ROWS];
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &a[row * lda..][..depth]);
    for (k, b) in (0..depth).zip(b.chunks(ldb)) {
        let b = S::as_simd_f32s(&b[..width]).0;
        let b: [S::f32s; WIDTH] = std::array::from_fn(|column| b[column]);
        for (sums, a) in sums.iter_mut().zip(&rows) {
            let a = simd.splat_f32s(a[k]);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_e_f32s(a, b, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (c, sum) in S::as_mut_simd_f32s(&mut c[row * ldc..][..width])
            .0
            .iter_mut()
            .zip(sums)
        {
            *c = if ADD { simd.add_f32s(*c, *sum) } else { *sum };
        }
    }
}

/// `c = a b^T`: `a` is `(rows, depth)`, `b` `(columns, depth)`, `c` `(rows, columns)` with rows `ldc` elements apart.
///
/// For few rows: it reads `b` as it is, whereas [`multiply`] would need it transposed.
#[inline(always)]
pub fn multiply_transposed<S: Simd>(
    simd: S,
    a: &[f32],
    b: &[f32],
    (c, ldc): (&mut [f32], usize),
    depth: usize,
) {
    for (a, c) in a.chunks(2 * depth).zip(c.chunks_mut(2 * ldc)) {
        for (i, b) in b.chunks(4 * depth).enumerate() {
            let c = &mut c[4 * i..];
            match (a.len() / depth, b.len() / depth) {
                (2, 4) => dot_products::<S, 2, 4>(simd, a, b, (c, ldc), depth),
                (1, 4) => dot_products::<S, 1, 4>(simd, a, b, (c, ldc), depth),
                (rows, columns) => {
                    for row in 0..rows {
                        for column in 0..columns {
                            let (a, b) = (&a[row * depth..], &b[column * depth..]);
                            dot_products::<S, 1, 1>(
                                simd,
                                a,
                                b,
                                (&mut c[row * ldc + column..], ldc),
                                depth,
                            );
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn dot_products<S: Simd, const ROWS: usize, const COLUMNS: usize>(
    simd: S,
    a: &[f32],
    b: &[f32],
    (c, ldc): (&mut [f32], usize),
    depth: usize,
) {
    let vectors = depth / S::F32_LANES;
    let rows: [_; ROWS] = std::array::from_fn(|i| S::as_simd_f32s(&a[i * depth..][..depth]));
    let columns: [_; COLUMNS] = std::array::from_fn(|i| S::as_simd_f32s(&b[i * depth..][..depth]));
    let mut sums = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
    let mut add = |a: [S::f32s; ROWS], b: [S::f32s; COLUMNS]| {
        for (sums, a) in sums.iter_mut().zip(a) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_e_f32s(a, b, *sum);
            }
        }
    };
    let whole = (
        rows.map(|row| &row.0[..vectors]),
        columns.map(|column| &column.0[..vectors]),
    );
    for k in 0..vectors {
        add(whole.0.map(|row| row[k]), whole.1.map(|column| column[k]));
    }
    if depth > vectors * S::F32_LANES {
        add(
            rows.map(|row| simd.partial_load_f32s(row.1)),
            columns.map(|column| simd.partial_load_f32s(column.1)),
        );
    }
    for (row, sums) in sums.iter().enumerate() {
        for (column, sum) in sums.iter().enumerate() {
            c[row * ldc + column] = simd.reduce_sum_f32s(*sum);
        }
    }
}

/// A buffer of f32 that begins on a cache line, so that no vector lies across two.
#[derive(Default)]
pub struct Aligned(Vec<f32>);

impl Aligned {
    /// Elements of a cache line, and of the longest vector.
    const LINE: usize = 16;

    /// The first `len` elements, whatever they hold; zeros if the buffer is new.
    pub fn get(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len + Self::LINE {
            self.0 = vec![0.0; len + Self::LINE];
        }
        let start = self.start();
        &mut self.0[start..start + len]
    }

    /// All elements from the aligned one on.
    pub fn as_slice(&self) -> &[f32] {
        &self.0[self.start()..]
    }

    fn start(&self) -> usize {
        self.0
            .as_ptr()
            .align_offset(Self::LINE * size_of::<f32>())
            .min(Self::LINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::{close, levels, random};
    use pulp::WithSimd;

    struct Product<'a> {
        a: &'a [f32],
        b: &'a [f32],
        c: &'a mut [f32],
        sizes: [usize; 3],
        transposed: bool,
    }

    impl WithSimd for Product<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self {
                a,
                b,
                c,
                sizes: [rows, depth, columns],
                transposed,
            } = self;
            if transposed {
                multiply_transposed(simd, a, b, (c, columns), depth);
            } else {
                multiply::<S, false>(
                    simd,
                    (a, depth),
                    (b, columns),
                    (c, columns),
                    [rows, depth, columns],
                );
                multiply::<S, true>(
                    simd,
                    (a, depth),
                    (b, columns),
                    (c, columns),
                    [rows, depth, columns],
                );
            }
        }
    }

    #[test]
    fn products_equal_the_definition() {
        for rows in 1..=13 {
            for (depth, columns) in [(1, 1), (3, 64), (32, 33), (80, 80), (20, 7), (64, 20)] {
                let (a, b) = (
                    random::<f32>(rows * depth, 1),
                    random::<f32>(depth * columns, 2),
                );
                let at = |i: usize, j: usize, step: [usize; 2]| -> f32 {
                    let product = |k: usize| {
                        f64::from(a[i * depth + k]) * f64::from(b[k * step[0] + j * step[1]])
                    };
                    (0..depth).map(product).sum::<f64>() as f32
                };
                for transposed in [false, true] {
                    let step = if transposed { [1, depth] } else { [columns, 1] };
                    let times = if transposed { 1.0 } else { 2.0 };
                    let exact: Vec<f32> = (0..rows * columns)
                        .map(|i| times * at(i / columns, i % columns, step))
                        .collect();
                    for level in levels() {
                        let mut c = vec![9.0; rows * columns];
                        level.dispatch(Product {
                            a: &a,
                            b: &b,
                            c: &mut c,
                            sizes: [rows, depth, columns],
                            transposed,
                        });
                        close(&c, &exact, 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn buffers_begin_on_a_cache_line() {
        let mut buffer = Aligned::default();
        for len in [1, 100, 7] {
            assert_eq!(buffer.get(len).len(), len);
            assert_eq!(buffer.get(len).as_ptr().align_offset(64), 0);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(64), 0);
        }
    }
}
