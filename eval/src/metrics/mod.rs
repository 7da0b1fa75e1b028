//! How answers are judged; every score is from 0 to 1.

mod porter;
mod qa_f1;
mod rouge_stem;

pub use qa_f1::qa_f1;
pub use rouge_stem::{rouge_l_stem, rouge1_stem};

/// Precision, recall and their harmonic mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overlap {
    /// The part of the prediction that the reference has.
    pub precision: f64,
    /// The part of the reference that the prediction has.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f: f64,
}

impl Overlap {
    fn new(common: usize, prediction: usize, reference: usize) -> Self {
        if common == 0 {
            return Self::default();
        }
        let (precision, recall) = (
            common as f64 / prediction as f64,
            common as f64 / reference as f64,
        );
        Self {
            precision,
            recall,
            f: 2.0 * precision * recall / (precision + recall),
        }
    }
}
