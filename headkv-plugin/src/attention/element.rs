//! The element types that caches hold.

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// A number type that keys and values are stored in.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The elements in f32: the slice itself, or its conversion in `buffer`.
    fn widen<'a>(from: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32];

    /// Rounds to the nearest element.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    fn widen<'a>(from: &'a [f32], _: &'a mut Vec<f32>) -> &'a [f32] {
        from
    }

    fn narrow(value: f32) -> f32 {
        value
    }
}

macro_rules! half_element {
    ($($half:ty),*) => {$(
        impl Element for $half {
            fn widen<'a>(from: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32] {
                buffer.resize(from.len(), 0.0);
                from.convert_to_f32_slice(buffer);
                buffer
            }

            fn narrow(value: f32) -> Self {
                Self::from_f32(value)
            }
        }
    )*};
}
half_element!(bf16, f16);
