//! `pyramidkv`: a capacity that falls linearly from the first layer to the last (PyramidKV, Cai et al., arXiv 2406.02069).

use super::{Budget, Build, LayerContext, Method};
use crate::Error;

struct PyramidKv {
    mean: usize,
    beta: usize,
    layers: usize,
    heads: usize,
}

impl PyramidKv {
    /// Tokens kept in a layer: `mean / beta` in the last, as much above the mean in the first as that is below it.
    fn kept(&self, at: &LayerContext) -> usize {
        let (mut least, mut most) = (self.mean / self.beta, 2 * self.mean - self.mean / self.beta);
        if most >= at.candidates {
            most = at.candidates;
            least = (2 * self.mean).saturating_sub(most);
        }
        let step = (most - least.min(most)) / (self.layers - 1).max(1);
        most - at.layer * step
    }
}

impl Method for PyramidKv {
    fn budget(&self, at: &LayerContext) -> Budget {
        Budget::PerHead(vec![self.kept(at); self.heads])
    }
}

pub fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    Ok(Box::new(PyramidKv {
        mean: b.config.capacity - b.config.window,
        beta: b.config.pyramid_beta,
        layers: b.model.layers,
        heads: b.model.stored_heads(b.config.granularity),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_by_layer_and_keeps_the_mean() {
        let p = PyramidKv {
            mean: 56,
            beta: 20,
            layers: 8,
            heads: 1,
        };
        let kept: Vec<_> = (0..8)
            .map(|layer| {
                p.kept(&LayerContext {
                    layer,
                    candidates: 1000,
                })
            })
            .collect();
        assert_eq!(kept, [110, 95, 80, 65, 50, 35, 20, 5]);
        // A prompt shorter than the first layer's capacity raises the last ones instead.
        assert_eq!(
            p.kept(&LayerContext {
                layer: 0,
                candidates: 100
            }),
            100
        );
        assert_eq!(
            p.kept(&LayerContext {
                layer: 7,
                candidates: 100
            }),
            100 - 7 * (88 / 7)
        );
    }
}
