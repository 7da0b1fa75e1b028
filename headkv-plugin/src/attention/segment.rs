//! Runs of consecutive keys and values, of which a head's past consists.

/// A run of consecutive tokens of one head, `(tokens, head_dim)` each.
#[derive(Debug)]
pub struct Segment<'a, T> {
    /// Keys.
    pub keys: &'a [T],
    /// Values.
    pub values: &'a [T],
}

impl<T> Clone for Segment<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Segment<'_, T> {}

impl<'a, T> Segment<'a, T> {
    /// The same tokens in runs of `elements`, a multiple of `head_dim`.
    pub fn split(self, elements: usize) -> impl Iterator<Item = Segment<'a, T>> {
        let runs = self.keys.chunks(elements).zip(self.values.chunks(elements));
        runs.map(|(keys, values)| Segment { keys, values })
    }
}
