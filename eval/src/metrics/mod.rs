//! What an answer is worth, from 0 to 1; one metric per file.
//!
//! The metrics are those of LongBench (Bai et al. 2024, arXiv 2308.14508), of babilong (Kuratov et al. 2024,
//! arXiv 2406.10149) and of the needle test that HeadKV runs. They follow the reference implementations to the digit,
//! quirks included, so that scores can be compared with published ones; every quirk is named where it is followed.

pub mod babilong;
mod classification;
mod code_sim;
mod lcs;
pub mod porter;
mod qa_f1;
mod recall;
mod retrieval;
mod rouge;
pub mod rouge_score;

pub use classification::classification;
pub use code_sim::code_sim;
pub use qa_f1::{qa_f1, qa_f1_zh};
pub use recall::recall;
pub use retrieval::{count, retrieval, retrieval_zh};
pub use rouge::{rouge, rouge_zh};

/// A metric of LongBench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Words in common, English.
    QaF1,
    /// Words in common, Chinese.
    QaF1Zh,
    /// ROUGE-L, English.
    Rouge,
    /// ROUGE-L, Chinese.
    RougeZh,
    /// The class named.
    Classification,
    /// The paragraph named, English.
    Retrieval,
    /// The paragraph named, Chinese.
    RetrievalZh,
    /// The number named.
    Count,
    /// Similarity of a line of code.
    CodeSim,
}

impl Metric {
    /// All metrics, with the names that LongBench's score functions have.
    pub const ALL: [(Metric, &str); 9] = [
        (Metric::QaF1, "qa_f1"),
        (Metric::QaF1Zh, "qa_f1_zh"),
        (Metric::Rouge, "rouge"),
        (Metric::RougeZh, "rouge_zh"),
        (Metric::Classification, "classification"),
        (Metric::Retrieval, "retrieval"),
        (Metric::RetrievalZh, "retrieval_zh"),
        (Metric::Count, "count"),
        (Metric::CodeSim, "code_sim"),
    ];

    /// The metric of that name.
    pub fn find(name: &str) -> Option<Metric> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(metric, _)| *metric)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(metric, _)| *metric == self)
            .map_or("", |(_, name)| name)
    }

    /// The score of a prediction against one reference, 0 to 1; `classes` are those of a classification.
    pub fn score(self, prediction: &str, reference: &str, classes: &[String]) -> f64 {
        match self {
            Metric::QaF1 => qa_f1(prediction, reference),
            Metric::QaF1Zh => qa_f1_zh(prediction, reference),
            Metric::Rouge => rouge(prediction, reference),
            Metric::RougeZh => rouge_zh(prediction, reference),
            Metric::Classification => classification(prediction, reference, classes),
            Metric::Retrieval => retrieval(prediction, reference),
            Metric::RetrievalZh => retrieval_zh(prediction, reference),
            Metric::Count => count(prediction, reference),
            Metric::CodeSim => code_sim(prediction, reference),
        }
    }
}
