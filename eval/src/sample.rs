//! One question of a benchmark: its prompt, and how its answer is scored.

use crate::metrics::{self, Metric, babilong, rouge_score};

/// A prompt as it goes to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The text; for a chat, the user's message.
    pub text: String,
    /// Whether the model's own chat template goes around it.
    pub chat: bool,
    /// Whether the tokenizer adds its special tokens (such as the begin of a text).
    pub special: bool,
    /// Where in `text`, in bytes, the question begins that follows once everything before it is compressed; `None`
    /// compresses the whole prompt.
    pub apart: Option<usize>,
}

/// Where a question stands among several over one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Counted from 1.
    pub number: usize,
    /// The prompt of the turn before.
    pub before: Option<Prompt>,
}

/// One question of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The benchmark: `needle`, `longbench`, `babilong`, `ruler` or `turns`.
    pub benchmark: &'static str,
    /// The data set or task inside the benchmark.
    pub dataset: String,
    /// What tells it from the other samples of the data set.
    pub id: String,
    /// Tokens of context that were asked for (needle, ruler).
    pub length: Option<usize>,
    /// Where the needle stands, in percent of the context.
    pub depth: Option<f64>,
    /// The length bucket that the benchmark itself uses (`0-4k` of LongBench-E, `1k` of babilong).
    pub bucket: Option<String>,
    /// The protocol or template that framed the prompt.
    pub protocol: String,
    /// The prompt.
    pub prompt: Prompt,
    /// Tokens before which the model may not end its answer.
    pub min_tokens: usize,
    /// The most tokens of an answer.
    pub max_tokens: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// How the answer is scored.
    pub scoring: Scoring,
    /// Where it stands among the questions over one text, if it is one of several.
    pub turn: Option<Turn>,
}

/// How an answer is scored.
#[derive(Clone, Debug, PartialEq)]
pub enum Scoring {
    /// The best score over several references (LongBench).
    References {
        /// The metric.
        metric: Metric,
        /// Whether only the first line of the answer counts.
        first_line: bool,
        /// The references.
        answers: Vec<String>,
        /// The classes, for a classification.
        classes: Vec<String>,
    },
    /// The right label and no other (babilong).
    Label {
        /// The task, `qa1` to `qa20`.
        task: String,
        /// The question.
        question: String,
        /// The right label.
        target: String,
    },
    /// The needle test: QA-F1 against the answer, stemmed ROUGE against the whole needle.
    Needle {
        /// The answer.
        answer: String,
        /// The needle.
        needle: String,
    },
    /// The share of values named (ruler).
    Values(Vec<String>),
}

/// Scores of one answer, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// The one that tables show.
    pub score: f64,
    /// QA-F1, where it is not the score itself.
    pub f1: Option<f64>,
    /// Stemmed ROUGE-1 F.
    pub rouge1: Option<f64>,
    /// Stemmed ROUGE-L F.
    pub rouge_l: Option<f64>,
}

impl Scoring {
    /// Scores an answer.
    pub fn score(&self, answer: &str) -> Scores {
        match self {
            Scoring::References {
                metric,
                first_line,
                answers,
                classes,
            } => {
                let answer = if *first_line {
                    self::first_line(answer)
                } else {
                    answer
                };
                let scores = answers
                    .iter()
                    .map(|reference| metric.score(answer, reference, classes));
                Scores {
                    score: scores.fold(0.0, f64::max),
                    ..Scores::default()
                }
            }
            Scoring::Label {
                task,
                question,
                target,
            } => {
                let correct = babilong::correct(task, question, answer, target);
                Scores {
                    score: f64::from(u8::from(correct)),
                    ..Scores::default()
                }
            }
            Scoring::Needle {
                answer: expected,
                needle,
            } => {
                let f1 = metrics::qa_f1(answer, expected);
                Scores {
                    score: f1,
                    f1: Some(f1),
                    rouge1: Some(rouge_score::rouge1(answer, needle).f),
                    rouge_l: Some(rouge_score::rouge_l(answer, needle).f),
                }
            }
            Scoring::Values(values) => Scores {
                score: metrics::recall(answer, values),
                ..Scores::default()
            },
        }
    }

    /// The metric's name.
    pub fn metric(&self) -> &'static str {
        match self {
            Scoring::References { metric, .. } => metric.name(),
            Scoring::Label { .. } => "accuracy",
            Scoring::Needle { .. } => "qa_f1",
            Scoring::Values(_) => "recall",
        }
    }

    /// What a right answer says.
    pub fn expected(&self) -> String {
        match self {
            Scoring::References { answers, .. } => answers.join(" | "),
            Scoring::Label { target, .. } => target.clone(),
            Scoring::Needle { answer, .. } => answer.clone(),
            Scoring::Values(values) => values.join(", "),
        }
    }
}

/// The first line, after empty ones: all that counts where a model goes on with examples of its own (LongBench).
fn first_line(answer: &str) -> &str {
    answer
        .trim_start_matches('\n')
        .split('\n')
        .next()
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_reference_and_the_first_line_count() {
        let scoring = |first_line| Scoring::References {
            metric: Metric::QaF1,
            first_line,
            answers: vec!["blue".into(), "red".into()],
            classes: vec![],
        };
        assert_eq!(scoring(true).score("\n\nred\nQuestion: next").score, 1.0);
        assert!(scoring(false).score("\n\nred\nQuestion: next").score < 1.0);
    }

    #[test]
    fn a_needle_has_three_scores() {
        let scoring = Scoring::Needle {
            answer: "eat a sandwich.".into(),
            needle: "Best is: eat a sandwich.".into(),
        };
        let scores = scoring.score("Eat sandwiches");
        assert_eq!(scores.f1, Some(0.5));
        assert_eq!(scores.rouge1, scores.rouge_l);
        assert!((scores.rouge1.unwrap() - 2.0 * (2.0 / 5.0) / (1.0 + 2.0 / 5.0)).abs() < 1e-12);
    }
}
