//! Keys and values in the order in which the matrix product reads them.
//!
//! A matrix is cut into panels of [`PANEL`] columns, each contiguous with its rows one after another: so a panel stays in
//! the first-level cache while all query rows pass over it.

use super::{Element, matrix::multiply};
use pulp::Simd;

/// Columns of a panel: two vectors of AVX-512, four of AVX2.
pub const PANEL: usize = 32;
/// Widths of outputs are multiples of this, the most lanes of a vector.
const LANES: usize = 16;

/// Elements that the keys of `tokens` tokens fill.
pub fn key_size(tokens: usize, head_dim: usize) -> usize {
    tokens.next_multiple_of(PANEL) * head_dim
}

/// Packs keys `(tokens, head_dim)`, transposed: panels of [`PANEL`] tokens, each `(head_dim, PANEL)`.
#[inline(always)]
pub fn pack_keys<T: Element>(keys: &[T], head_dim: usize, to: &mut [f32], buffer: &mut Vec<f32>) {
    /// Tokens that are transposed together.
    const TOGETHER: usize = 8;
    let panel_size = PANEL * head_dim;
    for (keys, panel) in keys.chunks(panel_size).zip(to.chunks_mut(panel_size)) {
        for (i, keys) in T::widen(keys, buffer)
            .chunks(TOGETHER * head_dim)
            .enumerate()
        {
            let first = i * TOGETHER;
            if keys.len() == TOGETHER * head_dim {
                let keys: [&[f32]; TOGETHER] =
                    std::array::from_fn(|t| &keys[t * head_dim..][..head_dim]);
                for (i, row) in panel.chunks_mut(PANEL).enumerate() {
                    row[first..first + TOGETHER].copy_from_slice(&keys.map(|key| key[i]));
                }
            } else {
                for (t, key) in keys.chunks(head_dim).enumerate() {
                    for (x, row) in key.iter().zip(panel.chunks_mut(PANEL)) {
                        row[first + t] = *x;
                    }
                }
            }
        }
    }
}

/// Width of an output row: `head_dim`, padded for the matrix product.
pub fn value_width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Elements that the values of `tokens` tokens fill.
pub fn value_size(tokens: usize, head_dim: usize) -> usize {
    head_dim.next_multiple_of(PANEL) * tokens
}

/// Packs values `(tokens, head_dim)`, as many as fill `to` or fewer: panels of [`PANEL`] dimensions, each `(tokens,
/// PANEL)`.
#[inline(always)]
pub fn pack_values<T: Element>(
    values: &[T],
    head_dim: usize,
    to: &mut [f32],
    buffer: &mut Vec<f32>,
) {
    let tokens = to.len() / head_dim.next_multiple_of(PANEL);
    let values = T::widen(values, buffer);
    for (panel, to) in to.chunks_mut(tokens * PANEL).enumerate() {
        let from = panel * PANEL..head_dim.min((panel + 1) * PANEL);
        for (value, to) in values.chunks(head_dim).zip(to.chunks_mut(PANEL)) {
            to[..from.len()].copy_from_slice(&value[from.clone()]);
        }
    }
}

/// Dot products of queries `(rows, head_dim)` and the first `tokens` packed keys, up to a multiple of [`PANEL`]; rows of
/// `products` are `stride` apart.
#[inline(always)]
pub fn multiply_keys<S: Simd>(
    simd: S,
    queries: &[f32],
    keys: &[f32],
    (products, stride): (&mut [f32], usize),
    [rows, head_dim, tokens]: [usize; 3],
) {
    for (i, keys) in keys
        .chunks(PANEL * head_dim)
        .take(tokens.div_ceil(PANEL))
        .enumerate()
    {
        let to = (&mut products[i * PANEL..], stride);
        multiply::<S, false>(
            simd,
            (queries, head_dim),
            (keys, PANEL),
            to,
            [rows, head_dim, PANEL],
        );
    }
}

/// Adds to `output`, `(rows, value_width)`, the first `tokens` packed values multiplied by `weights`, `(rows, tokens)` with
/// rows `stride` apart.
#[inline(always)]
pub fn multiply_values<S: Simd>(
    simd: S,
    (weights, stride): (&[f32], usize),
    values: &[f32],
    output: &mut [f32],
    [rows, head_dim, tokens]: [usize; 3],
) {
    let width = value_width(head_dim);
    let panels = head_dim.div_ceil(PANEL);
    for (i, values) in values.chunks(values.len() / panels).enumerate() {
        let columns = PANEL.min(width - i * PANEL);
        let to = (&mut output[i * PANEL..], width);
        multiply::<S, true>(
            simd,
            (weights, stride),
            (values, PANEL),
            to,
            [rows, tokens, columns],
        );
    }
}
