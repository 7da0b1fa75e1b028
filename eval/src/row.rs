//! One answer, and the key that names everything it depends on.

mod figures;

use crate::{Sample, Variant, job::Completion, kept::Runs, report::Cluster, sample::Prompt};
use headkv_files::sha256;
use serde::{Deserialize, Serialize};

/// An answer below this score is wrong, unless the metric has no right and wrong.
pub(crate) const WRONG: f64 = 0.5;

/// What a row's version begins with; raised whenever the same key would get another answer or score, so that old rows
/// are run again and never averaged with new ones.
const RESULTS_VERSION: u32 = 3;

/// The version that rows and their keys carry: that of the results, and of this crate.
pub fn version() -> String {
    format!("{RESULTS_VERSION} ({})", env!("CARGO_PKG_VERSION"))
}

/// The benchmarks' names, as rows have them.
pub const BENCHMARKS: [&str; 6] = [
    "needle",
    "longbench",
    "longbench-e",
    "babilong",
    "ruler",
    "turns",
];

/// The model that answers, as far as rows depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// SHA-256 over all its files that matter, in hexadecimal; for an endpoint, its address.
    pub digest: String,
    /// Where it runs: `cpu`, `cuda` or `endpoint`.
    pub backend: String,
}

/// One answer. Numbers that are unknown or have no meaning for a benchmark are null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Names everything that the answer depends on; see [`key`].
    pub key: String,
    /// `needle`, `longbench`, `babilong`, `ruler` or `turns`.
    pub benchmark: String,
    /// The data set or task.
    pub dataset: String,
    /// The sample's name inside the data set.
    pub sample: String,
    /// The model's name.
    pub model: String,
    /// As [`Model::digest`].
    pub model_digest: String,
    /// As [`Model::backend`].
    pub backend: String,
    /// As [`version`] says.
    pub version: String,
    /// The method and its parameters.
    #[serde(flatten)]
    pub variant: Variant,
    /// Tokens of context that were asked for.
    pub length: Option<usize>,
    /// Percent of the context.
    #[serde(default, deserialize_with = "figures::percent_if_any")]
    pub depth: Option<f64>,
    /// The benchmark's own length bucket.
    pub bucket: Option<String>,
    /// The protocol or template.
    pub protocol: String,
    /// SHA-256 of the prompt, as in `prompts.jsonl`.
    pub prompt: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Where the question stands among several over one text, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<usize>,
    /// Tokens of the prompt that did not run, because an earlier prompt had left them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_tokens: Option<usize>,
    /// Bytes of earlier prompts that were remembered then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_bytes: Option<usize>,
    /// Tokens generated.
    pub tokens: usize,
    /// The answer.
    pub answer: String,
    /// What a right answer says.
    pub expected: String,
    /// The score's name.
    pub metric: String,
    /// 0 to 1.
    #[serde(deserialize_with = "figures::part")]
    pub score: f64,
    /// QA-F1, 0 to 1 (needle).
    #[serde(default, deserialize_with = "figures::part_if_any")]
    pub f1: Option<f64>,
    /// Stemmed ROUGE-1 F, 0 to 1 (needle).
    #[serde(default, deserialize_with = "figures::part_if_any")]
    pub rouge1: Option<f64>,
    /// Stemmed ROUGE-L F, 0 to 1 (needle).
    #[serde(default, deserialize_with = "figures::part_if_any")]
    pub rouge_l: Option<f64>,
    /// Bytes of keys and values held at the end.
    pub kv_bytes: Option<usize>,
    /// The part of them that the prompt left.
    #[serde(default)]
    pub kept_bytes: Option<usize>,
    /// Seconds from the request to the first token; of a batch, its prompt's share of all prompts' time.
    #[serde(default, deserialize_with = "figures::seconds_if_any")]
    pub prompt_seconds: Option<f64>,
    /// Seconds from the first token to the last; of a batch, its tokens' share.
    #[serde(deserialize_with = "figures::seconds")]
    pub decode_seconds: f64,
    /// What was kept of the prompt's text, of a wrong answer where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Runs>,
    /// Why there is no answer; the score is 0 then, and a rerun tries again.
    pub error: Option<String>,
}

impl Row {
    /// The row of an answer, or of why there is none.
    pub fn new(
        sample: &Sample,
        model: &Model,
        variant: &Variant,
        outcome: Result<Completion, String>,
    ) -> Self {
        let (completion, error) = match outcome {
            Ok(completion) => (completion, None),
            Err(why) => (Completion::default(), Some(why)),
        };
        let scores = if error.is_none() {
            sample.scoring.score(&completion.text)
        } else {
            Default::default()
        };
        Self {
            key: key(sample, model, variant),
            benchmark: sample.benchmark.into(),
            dataset: sample.dataset.clone(),
            sample: sample.id.clone(),
            model: model.name.clone(),
            model_digest: model.digest.clone(),
            backend: model.backend.clone(),
            version: version(),
            variant: variant.clone(),
            length: sample.length,
            depth: sample.depth,
            bucket: sample.bucket.clone(),
            protocol: sample.protocol.clone(),
            prompt: prompt_digest(sample),
            prompt_tokens: completion.prompt_tokens,
            turn: sample.turn.as_ref().map(|turn| turn.number),
            reused_tokens: completion.reused_tokens.filter(|_| sample.turn.is_some()),
            held_bytes: completion.held_bytes,
            tokens: completion.tokens,
            answer: completion.text,
            expected: sample.scoring.expected(),
            metric: sample.scoring.metric().into(),
            score: scores.score,
            f1: scores.f1,
            rouge1: scores.rouge1,
            rouge_l: scores.rouge_l,
            kv_bytes: completion.kv_bytes,
            kept_bytes: completion.kept_bytes,
            prompt_seconds: completion.prompt_seconds,
            decode_seconds: completion.decode_seconds,
            kept: completion.kept.filter(|_| scores.score < WRONG),
            error,
        }
    }
}

impl Row {
    /// What the answer is about, whatever the length and the depth: answers about one needle, riddle or document fail and
    /// succeed together.
    pub(crate) fn cluster(&self) -> Cluster {
        let mut item = self.sample.as_str();
        if let Some((length, rest)) = item.split_once('/')
            && self.length.is_some_and(|asked| asked.to_string() == length)
        {
            item = rest;
        }
        if self.depth.is_some() {
            // A needle that is drawn is `3 at 20`, one that stands at every depth is its data set, and the sample its depth.
            let drawn = item.split_once(" at ").map(|(number, _)| number);
            let seed = drawn
                .and(item.split_once(" of seed "))
                .map(|(_, seed)| seed);
            let item = [drawn.unwrap_or(""), seed.unwrap_or("")].join("/");
            return Cluster {
                dataset: self.dataset.clone(),
                item,
            };
        }
        Cluster {
            dataset: self.dataset.clone(),
            item: item.into(),
        }
    }

    /// What stays the same when a needle file, a text or a data set is edited: rows of one place and different prompts
    /// are of different data.
    pub(crate) fn place(&self) -> impl Eq + std::hash::Hash + use<> {
        let texts = [
            &self.benchmark,
            &self.dataset,
            &self.sample,
            &self.model,
            &self.model_digest,
            &self.backend,
            &self.version,
            &self.protocol,
            &self.variant.identity(),
        ];
        (texts.map(String::clone), self.length, self.bucket.clone())
    }
}

/// Everything that an answer and its score depend on: benchmark, data set and sample; model, its files and device;
/// method, parameters and head scores; prompt and limits of the answer; version of the results.
pub fn key(sample: &Sample, model: &Model, variant: &Variant) -> String {
    let scores = variant
        .scores_digest
        .as_deref()
        .map(|digest| format!(" scores {}", short(digest)))
        .unwrap_or_default();
    let files = if model.backend == "endpoint" {
        model.digest.clone()
    } else {
        short(&model.digest)
    };
    format!(
        "{}/{}/{} | {}@{files} {} | {variant}{scores} | prompt {}, answer of {} to {} tokens, stop {:?}, {} against {} | {}",
        sample.benchmark,
        sample.dataset,
        sample.id,
        model.name,
        model.backend,
        short(&prompt_digest(sample)),
        sample.min_tokens,
        sample.max_tokens,
        sample.stop,
        sample.scoring.metric(),
        short(&sha256(&[sample.scoring.expected().as_bytes()])),
        version(),
    )
}

/// The beginning of a digest, long enough to tell any two apart.
pub(crate) fn short(digest: &str) -> String {
    digest.chars().take(16).collect()
}

fn prompt_digest(sample: &Sample) -> String {
    let Prompt {
        text,
        chat,
        special,
        apart,
    } = &sample.prompt;
    let framing = [u8::from(*chat), u8::from(*special)];
    match apart {
        None => sha256(&[text.as_bytes(), &framing]),
        Some(at) => sha256(&[
            text.as_bytes(),
            &framing,
            format!("apart from {at}").as_bytes(),
        ]),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sample::Scoring;

    pub fn sample(id: &str) -> Sample {
        Sample {
            benchmark: "needle",
            dataset: "test".into(),
            id: id.into(),
            length: Some(100),
            depth: Some(40.0),
            bucket: None,
            protocol: "plain".into(),
            prompt: Prompt {
                text: format!("prompt {id}"),
                chat: false,
                special: true,
                apart: None,
            },
            min_tokens: 0,
            max_tokens: 10,
            stop: vec![],
            turn: None,
            scoring: Scoring::Needle {
                answer: "yes".into(),
                needle: "It is yes.".into(),
            },
        }
    }

    pub fn model() -> Model {
        Model {
            name: "m".into(),
            digest: "0123456789abcdef0123".into(),
            backend: "cpu".into(),
        }
    }

    pub fn row(id: &str, outcome: Result<&str, &str>) -> Row {
        let answer = |text: &str| Completion {
            text: text.into(),
            ..Completion::default()
        };
        Row::new(
            &sample(id),
            &model(),
            &Variant::new("full"),
            outcome.map(answer).map_err(String::from),
        )
    }

    #[test]
    fn depths_and_lengths_of_a_needle_are_one_cluster() {
        let cluster = |sample: &str, length: Option<usize>, depth: Option<f64>| {
            let mut row = row(sample, Ok("yes"));
            (row.length, row.depth) = (length, depth);
            row.cluster().item
        };
        let drawn = cluster("2000/3 at 20", Some(2000), Some(20.0));
        assert_eq!(drawn, cluster("4000/3 at 80", Some(4000), Some(80.0)));
        assert_ne!(drawn, cluster("2000/4 at 20", Some(2000), Some(20.0)));
        assert_ne!(
            drawn,
            cluster("2000/3 at 20 of seed 1", Some(2000), Some(20.0))
        );
        let fixed = cluster("2000/40", Some(2000), Some(40.0));
        assert_eq!(fixed, cluster("4000/0", Some(4000), Some(0.0)));
        assert_eq!(cluster("1000/7", Some(1000), None), "7");
        assert_eq!(cluster("a/b", None, None), "a/b");
    }

    #[test]
    fn a_question_apart_makes_another_row() {
        let together = sample("1");
        let mut apart = together.clone();
        apart.prompt.apart = Some(3);
        let variant = Variant::new("full");
        assert_ne!(
            key(&together, &model(), &variant),
            key(&apart, &model(), &variant)
        );
    }

    #[test]
    fn a_key_names_everything_that_matters() {
        let variant = Variant {
            scores_digest: Some("ff".repeat(32)),
            beta: Some(1.2),
            ..Variant::new("headkv").capacity(16)
        };
        insta::assert_snapshot!(key(&sample("1"), &model(), &variant), @r#"needle/test/1 | m@0123456789abcdef cpu | headkv@16 beta 1.2 scores ffffffffffffffff | prompt cfb358d4efcc0324, answer of 0 to 10 tokens, stop [], qa_f1 against 8a798890fe938171 | 3 (0.1.0)"#);
    }
}
