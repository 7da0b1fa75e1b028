//! Wrong and missing answers, worst first, with their prompts.

use super::numbers::{by_variant, column};
use crate::{Row, store::Results};
use serde::Serialize;

/// Examples per variant.
const EXAMPLES: usize = 5;
/// An answer below this score is shown.
const WRONG: f64 = 0.5;
/// Characters of a prompt that are shown from its ends and around the expected answer.
const SHOWN: usize = 600;

/// One answer that is wrong or missing.
#[derive(Serialize)]
pub struct Failure {
    name: String,
    score: String,
    answer: String,
    expected: String,
    error: Option<String>,
    prompt: String,
}

/// Examples of one variant.
#[derive(Serialize)]
pub struct Failures {
    variant: String,
    model: String,
    count: usize,
    examples: Vec<Failure>,
}

/// The failures of every variant and model that has some.
pub fn failures(results: &Results) -> Vec<Failures> {
    let mut models: Vec<&str> = results.rows.iter().map(|row| row.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let mut all = Vec::new();
    for model in models {
        let rows: Vec<&Row> = results
            .rows
            .iter()
            .filter(|row| row.model == model)
            .collect();
        for (variant, rows) in by_variant(&rows) {
            let mut wrong: Vec<&Row> = rows.into_iter().filter(|row| row.score < WRONG).collect();
            wrong.sort_by(|a, b| a.score.total_cmp(&b.score).then_with(|| a.key.cmp(&b.key)));
            if !wrong.is_empty() {
                let examples = wrong
                    .iter()
                    .take(EXAMPLES)
                    .map(|row| failure(row, results))
                    .collect();
                all.push(Failures {
                    variant: variant.to_string(),
                    model: model.into(),
                    count: wrong.len(),
                    examples,
                });
            }
        }
    }
    all
}

fn failure(row: &Row, results: &Results) -> Failure {
    let depth = row
        .depth
        .map(|depth| format!(", depth {depth} %"))
        .unwrap_or_default();
    let prompt = results
        .prompts
        .get(&row.prompt)
        .map_or("(not kept)", String::as_str);
    Failure {
        name: format!(
            "{} {}, sample {}{depth}",
            row.benchmark,
            column(row),
            row.sample
        ),
        score: format!("{:.0}", 100.0 * row.score),
        answer: row.answer.clone(),
        expected: row.expected.clone(),
        error: row.error.clone(),
        prompt: excerpt(prompt, &row.expected),
    }
}

/// The prompt's ends, and the place where the expected answer stands.
fn excerpt(prompt: &str, expected: &str) -> String {
    let near = |at: usize| prompt.floor_char_boundary(at.min(prompt.len()));
    let answer = prompt
        .find(expected)
        .filter(|_| !expected.is_empty())
        .map(|at| near(at.saturating_sub(SHOWN / 2))..near(at + expected.len() + SHOWN / 2));
    let first = 0..near(SHOWN);
    let last = near(prompt.len().saturating_sub(SHOWN))..prompt.len();
    let mut text = String::new();
    let mut end = 0;
    for part in [Some(first), answer, Some(last)].into_iter().flatten() {
        if part.end <= end {
            continue;
        }
        if part.start > end {
            text.push_str(&format!(
                "\n[... {} characters ...]\n",
                prompt[end..part.start].chars().count()
            ));
        }
        text.push_str(&prompt[part.start.max(end)..part.end]);
        end = part.end;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_shows_ends_and_answer() {
        let prompt = format!("begin{}the needle{}end", "x".repeat(5000), "y".repeat(5000));
        let shown = excerpt(&prompt, "the needle");
        assert!(
            shown.starts_with("begin") && shown.ends_with("end") && shown.contains("the needle")
        );
        assert_eq!(shown.matches("characters ...]").count(), 2);
        assert_eq!(excerpt("short", "none"), "short");
        assert_eq!(excerpt("short", "short"), "short");
    }
}
