//! The data sets by name: how each is scored and, where LongBench's config does not say so, asked.

use crate::{Error, metrics::Metric, suggest};

/// Every data set and its metric: the 21 of LongBench, then the four of LooGLE.
pub const DATASETS: [(&str, Metric); 25] = [
    ("narrativeqa", Metric::QaF1),
    ("qasper", Metric::QaF1),
    ("multifieldqa_en", Metric::QaF1),
    ("multifieldqa_zh", Metric::QaF1Zh),
    ("hotpotqa", Metric::QaF1),
    ("2wikimqa", Metric::QaF1),
    ("musique", Metric::QaF1),
    ("dureader", Metric::RougeZh),
    ("gov_report", Metric::Rouge),
    ("qmsum", Metric::Rouge),
    ("multi_news", Metric::Rouge),
    ("vcsum", Metric::RougeZh),
    ("trec", Metric::Classification),
    ("triviaqa", Metric::QaF1),
    ("samsum", Metric::Rouge),
    ("lsht", Metric::Classification),
    ("passage_retrieval_en", Metric::Retrieval),
    ("passage_retrieval_zh", Metric::RetrievalZh),
    ("passage_count", Metric::Count),
    ("lcc", Metric::CodeSim),
    ("repobench-p", Metric::CodeSim),
    ("comprehension_and_reasoning", Metric::QaF1),
    ("computation", Metric::QaF1),
    ("multiple_information_retrieval", Metric::QaF1),
    ("timeline_reorder", Metric::QaF1),
];

/// LooGLE's tasks and the most tokens of their answers, as HeadKV's script has them.
const LOOGLE: [(&str, usize); 4] = [
    ("comprehension_and_reasoning", 64),
    ("computation", 32),
    ("multiple_information_retrieval", 64),
    ("timeline_reorder", 32),
];

/// LooGLE's prompt for questions on long texts, without the space at its end: HeadKV's script has none there.
const LOOGLE_PROMPT: &str = "Please answer the question based on the long texts below. \n{context}\nQuestion: {input}\nAnswer:";

/// Only the first line of an answer to these counts: the model tends to go on with examples of its own.
const FIRST_LINE: [&str; 4] = ["trec", "triviaqa", "samsum", "lsht"];

/// The metric of a data set.
///
/// # Errors
/// An unknown name; the nearest ones are offered.
pub fn metric(name: &str) -> Result<Metric, Error> {
    let found = DATASETS.iter().find(|(known, _)| *known == name);
    let names = DATASETS.iter().map(|(known, _)| *known);
    found
        .map(|(_, metric)| *metric)
        .ok_or_else(|| Error::Option(suggest::unknown("data set", name, names)))
}

/// Prompt and answer tokens of the data sets that are not in LongBench's config.
pub fn built_in(name: &str) -> Option<(&'static str, usize)> {
    let found = LOOGLE.iter().find(|(known, _)| *known == name);
    found.map(|(_, tokens)| (LOOGLE_PROMPT, *tokens))
}

/// Whether only the first line of an answer counts.
pub fn first_line(name: &str) -> bool {
    FIRST_LINE.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered() {
        let message = metric("hotpot_qa").unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown data set `hotpot_qa`; did you mean hotpotqa?"
        );
    }
}
