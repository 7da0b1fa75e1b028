//! Every metric equals the original's, row by row of `metrics.json`.

use headkv_eval::metrics::{Metric, babilong, rouge_score};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Versions of jieba's dictionary differ a little.
const CHINESE_TOLERANCE: f64 = 0.02;

#[derive(Deserialize)]
struct Golden {
    metric: String,
    prediction: String,
    reference: String,
    score: f64,
    #[serde(default)]
    all_classes: Vec<String>,
    #[serde(default)]
    task: String,
    #[serde(default)]
    question: String,
}

impl Golden {
    fn computed(&self) -> f64 {
        let (prediction, reference) = (self.prediction.as_str(), self.reference.as_str());
        match self.metric.as_str() {
            "babilong" => f64::from(u8::from(babilong::correct(
                &self.task,
                &self.question,
                prediction,
                reference,
            ))),
            "rouge1_stem_f" => rouge_score::rouge1(prediction, reference).f,
            "rouge1_stem_recall" => rouge_score::rouge1(prediction, reference).recall,
            "rougeL_stem_f" => rouge_score::rouge_l(prediction, reference).f,
            name => {
                let metric = Metric::find(name).unwrap_or_else(|| panic!("unknown metric {name}"));
                metric.score(prediction, reference, &self.all_classes)
            }
        }
    }
}

#[test]
fn every_metric_equals_the_originals() {
    let Some(dir) = headkv_tests::goldens() else {
        return;
    };
    let text = std::fs::read_to_string(dir.join("metrics.json")).unwrap();
    let goldens: Vec<Golden> = serde_json::from_str(&text).unwrap();
    let mut rows = BTreeMap::new();
    let mut wrong = Vec::new();
    for golden in &goldens {
        *rows.entry(golden.metric.as_str()).or_insert(0) += 1;
        let tolerance = if matches!(golden.metric.as_str(), "qa_f1_zh" | "rouge_zh") {
            CHINESE_TOLERANCE
        } else {
            1e-6
        };
        let computed = golden.computed();
        if (computed - golden.score).abs() > tolerance {
            wrong.push(format!(
                "{} {:?}: {computed}, expected {}",
                golden.metric, golden.prediction, golden.score
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        goldens.len(),
        wrong.join("\n")
    );
    assert!(goldens.len() >= 20 && rows.len() >= 10, "{rows:?}");
}
