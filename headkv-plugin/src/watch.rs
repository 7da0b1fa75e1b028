//! Which tokens of a prompt are kept, for who wants to see it: how many heads keep each position.

use std::sync::{Mutex, PoisonError};

/// Gathers what is kept of one prompt, over all layers that are compressed; a [`crate::Policy`] tells it.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    heads: usize,
    /// Heads by position.
    keep: Vec<u32>,
}

impl Watch {
    /// Takes in one layer: the positions that each of its heads keeps of `tokens`.
    pub(crate) fn layer(&self, positions: &[Vec<u32>], tokens: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.heads += positions.len();
        kept.keep.resize(tokens, 0);
        for &position in positions.iter().flatten() {
            if let Some(heads) = kept.keep.get_mut(position as usize) {
                *heads += 1;
            }
        }
    }

    /// By position, the part of the heads that keep it, 0 to 1; nothing before the prompt is compressed.
    pub fn shares(&self) -> Vec<f32> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = |heads: &u32| *heads as f32 / kept.heads.max(1) as f32;
        kept.keep.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_add_up() {
        let watch = Watch::default();
        assert!(watch.shares().is_empty());
        watch.layer(&[vec![0, 2], vec![2]], 3);
        watch.layer(&[vec![1, 2], vec![0, 2]], 3);
        assert_eq!(watch.shares(), [0.5, 0.25, 1.0]);
    }
}
