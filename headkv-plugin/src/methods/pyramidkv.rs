//! `pyramidkv`: a capacity that falls linearly from the first layer to the last (PyramidKV, Cai et al., arXiv 2406.02069).

use super::{Budget, Build, LayerContext, Method};
use crate::{Error, apportion::apportion};

struct PyramidKv {
    mean: usize,
    beta: usize,
    layers: usize,
    heads: usize,
    exact: bool,
}

impl PyramidKv {
    /// Tokens that each head of a layer keeps: `mean / beta` in the last layer, as much above the mean in the first as
    /// that is below it.
    fn kept(&self, at: &LayerContext) -> usize {
        let (mut least, mut most) = (self.mean / self.beta, 2 * self.mean - self.mean / self.beta);
        if most >= at.candidates {
            most = at.candidates;
            least = (2 * self.mean).saturating_sub(most).min(most);
        }
        let steps = (self.layers - 1).max(1);
        if !self.exact {
            // The original's whole steps: where they do not divide the fall, the layers keep more than the mean.
            return most - at.layer * ((most - least) / steps);
        }
        let fall = (most - least) as f64 / steps as f64;
        let line: Vec<f64> = (0..self.layers)
            .map(|layer| most as f64 - layer as f64 * fall)
            .collect();
        apportion(&line, self.mean * self.layers, at.candidates)[at.layer]
    }
}

impl Method for PyramidKv {
    fn budget(&self, at: &LayerContext) -> Budget {
        Budget::PerHead(vec![self.kept(at); self.heads])
    }
}

pub fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    Ok(Box::new(PyramidKv {
        mean: b.config.chosen(),
        beta: b.config.pyramid_beta,
        layers: b.model.layers,
        heads: b.model.stored_heads(b.config.granularity),
        exact: b.config.redistribute,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(exact: bool, candidates: usize) -> Vec<usize> {
        let pyramid = PyramidKv {
            mean: 56,
            beta: 20,
            layers: 8,
            heads: 1,
            exact,
        };
        let at = |layer| LayerContext { layer, candidates };
        (0..8).map(|layer| pyramid.kept(&at(layer))).collect()
    }

    #[test]
    fn falls_by_layer_in_the_originals_steps() {
        assert_eq!(kept(false, 1000), [110, 95, 80, 65, 50, 35, 20, 5]);
        // A prompt shorter than the first layer's capacity raises the last ones instead.
        let short = kept(false, 100);
        assert_eq!((short[0], short[7]), (100, 100 - 7 * (88 / 7)));
    }

    #[test]
    fn spends_the_mean_exactly_on_a_line() {
        assert_eq!(kept(true, 1000), [110, 95, 79, 64, 48, 33, 17, 2]);
        for candidates in [57, 80, 100, 1000] {
            let kept = kept(true, candidates);
            assert_eq!(kept.iter().sum::<usize>(), 8 * 56, "{kept:?}");
            assert!(kept.is_sorted_by(|a, b| a >= b) && kept[0] <= candidates);
        }
    }
}
