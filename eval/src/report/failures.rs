//! Wrong and missing answers, one sample after the other, with what each variant said.

use super::{
    Options,
    names::names,
    numbers::{by_variant, column},
    setup::{Group, groups},
};
use crate::{Row, Variant, kept::Runs, row::WRONG, store::Results};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Metrics by which even good answers score low: their worst answers are shown, whatever they score.
const GRADED: [&str; 3] = ["rouge", "rouge_zh", "code_sim"];
/// Bytes up to which a prompt is shown whole.
const WHOLE: usize = 40_000;
/// Bytes of a longer prompt that are shown from its ends, and around the expected answer.
const SHOWN: usize = 2_000;

/// The failures of one data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failures {
    /// The table's title and the data set.
    pub title: String,
    /// Whether the metric has no right and wrong, so that these are just the worst answers.
    pub graded: bool,
    /// Samples with a wrong or missing answer.
    pub failed: usize,
    /// Samples in all.
    pub samples: usize,
    /// The first of them.
    pub examples: Vec<Example>,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// Column, sample and depth.
    pub name: String,
    /// Which variants were wrong.
    pub wrong: Vec<String>,
    /// What a right answer says.
    pub expected: String,
    /// What the variants said.
    pub answers: Vec<Answer>,
    /// The variant of which the prompt shows what it kept: of those that were wrong the worst, where that is known.
    pub tinted: Option<String>,
    /// The prompt in pieces; some are the expected answer.
    pub prompt: Vec<Piece>,
}

/// What one variant said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The variant.
    pub variant: String,
    /// Percent.
    pub score: f64,
    /// The answer's text.
    pub text: String,
    /// Why there is none.
    pub error: Option<String>,
}

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Whether it is the expected answer.
    pub answer: bool,
    /// Percent of the heads that kept it, where that is known; else 0.
    pub kept: u8,
}

/// The failures of every data set that has some. First come the samples where compression cost most, then those that
/// nobody answered well.
pub fn failures(results: &Results, options: &Options) -> Vec<Failures> {
    let mut all = Vec::new();
    for group in groups(&results.rows) {
        let mut datasets: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in &group.rows {
            datasets.entry(&row.dataset).or_default().push(row);
        }
        for (dataset, rows) in datasets {
            let found = of_dataset(&group, dataset, &rows, results, options);
            all.extend(Some(found).filter(|found| found.failed > 0));
        }
    }
    all
}

fn of_dataset(
    group: &Group,
    dataset: &str,
    rows: &[&Row],
    results: &Results,
    options: &Options,
) -> Failures {
    let variants: Vec<&Variant> = by_variant(rows).into_iter().map(|(v, _)| v).collect();
    let names = names(&variants);
    let mut samples: BTreeMap<(&str, &str), Vec<(usize, &Row)>> = BTreeMap::new();
    let places: HashMap<String, usize> = (0..)
        .zip(&variants)
        .map(|(at, variant)| (variant.identity(), at))
        .collect();
    for row in rows {
        let place = places.get(&row.variant.identity()).copied();
        let sample = samples.entry((&row.prompt, &row.sample)).or_default();
        sample.push((place.unwrap_or(0), row));
    }
    let count = samples.len();
    let mut failed: Vec<Vec<(usize, &Row)>> = samples
        .into_values()
        .filter(|answers| answers.iter().any(|(_, row)| shown(row)))
        .collect();
    for answers in &mut failed {
        answers.sort_by_key(|(place, _)| *place);
    }
    failed.sort_by(|a, b| {
        let name = |answers: &[(usize, &Row)]| answers.first().map(|(_, row)| row.key.clone());
        loss(b)
            .total_cmp(&loss(a))
            .then(mean(a).total_cmp(&mean(b)))
            .then_with(|| name(a).cmp(&name(b)))
    });
    Failures {
        title: format!("{} · {dataset}", group.title),
        graded: rows.iter().any(|row| graded(row)),
        failed: failed.len(),
        samples: count,
        examples: failed
            .iter()
            .take(options.failures)
            .filter_map(|answers| example(answers, &names, results, options))
            .collect(),
    }
}

fn graded(row: &Row) -> bool {
    GRADED.contains(&row.metric.as_str())
}

fn wrong(row: &Row) -> bool {
    row.error.is_some() || (row.score < WRONG && !graded(row))
}

fn shown(row: &Row) -> bool {
    wrong(row) || graded(row)
}

/// The most that a variant lost against `full`, 0 to 1; 0 where `full` was not run.
fn loss(answers: &[(usize, &Row)]) -> f64 {
    let full = answers.iter().find(|(_, row)| row.variant.method == "full");
    full.map_or(0.0, |(_, full)| {
        answers
            .iter()
            .map(|(_, row)| full.score - row.score)
            .fold(0.0, f64::max)
    })
}

fn mean(answers: &[(usize, &Row)]) -> f64 {
    answers.iter().map(|(_, row)| row.score).sum::<f64>() / answers.len().max(1) as f64
}

fn example(
    answers: &[(usize, &Row)],
    names: &[String],
    results: &Results,
    options: &Options,
) -> Option<Example> {
    let (_, first) = answers.first()?;
    let depth = first
        .depth
        .map(|depth| format!(", depth {depth} %"))
        .unwrap_or_default();
    let prompt = results.prompts.get(&first.prompt);
    let limit = if options.whole_prompts {
        usize::MAX
    } else {
        WHOLE
    };
    let worst = (answers
        .iter()
        .filter(|(_, row)| row.kept.is_some() && prompt.is_some()))
    .min_by(|(_, a), (_, b)| a.score.total_cmp(&b.score));
    let none = Runs::new();
    let runs = worst
        .and_then(|(_, row)| row.kept.as_ref())
        .unwrap_or(&none);
    Some(Example {
        name: format!("{}, sample {}{depth}", column(first), first.sample),
        wrong: answers
            .iter()
            .filter(|(_, row)| wrong(row))
            .map(|(place, _)| names[*place].clone())
            .collect(),
        expected: first.expected.clone(),
        answers: answers
            .iter()
            .map(|(place, row)| Answer {
                variant: names[*place].clone(),
                score: 100.0 * row.score,
                text: row.answer.clone(),
                error: row.error.clone(),
            })
            .collect(),
        tinted: worst.map(|(place, _)| names[*place].clone()),
        prompt: pieces(
            prompt.map_or("(not kept)", String::as_str),
            &first.expected,
            limit,
            runs,
        ),
    })
}

/// The prompt with the expected answer marked, and tinted by what was kept; of one longer than `limit` bytes its ends and the
/// answer's surroundings.
fn pieces(prompt: &str, expected: &str, limit: usize, runs: &Runs) -> Vec<Piece> {
    let near = |at: usize| prompt.floor_char_boundary(at.min(prompt.len()));
    let found = prompt.find(expected).filter(|_| !expected.is_empty());
    let answer = found.map_or(0..0, |at| at..at + expected.len());
    let parts = if prompt.len() <= limit {
        [0..prompt.len(), 0..0, 0..0]
    } else {
        let around = near(answer.start.saturating_sub(SHOWN / 2))..near(answer.end + SHOWN / 2);
        let last = near(prompt.len() - SHOWN)..prompt.len();
        [0..near(SHOWN), around, last]
    };
    // Where the answer begins and ends, and where another share of the heads kept the text.
    let mut cuts = vec![answer.start, answer.end];
    let mut shares = vec![(0, 0)];
    let mut at = 0;
    for (bytes, percent) in runs {
        shares.push((near(at), *percent));
        at = at.saturating_add(*bytes);
    }
    shares.push((near(at), 0));
    cuts.extend(shares.iter().map(|(at, _)| *at));
    cuts.sort_unstable();
    let (mut pieces, mut end) = (Vec::new(), 0);
    for part in parts {
        let start = part.start.max(end);
        if part.end <= start {
            continue;
        }
        if start > end {
            let left_out = prompt[end..start].chars().count();
            pieces.push(Piece {
                text: format!("\n[... {left_out} characters ...]\n"),
                answer: false,
                kept: 0,
            });
        }
        let inside = cuts.iter().filter(|cut| (start..part.end).contains(cut));
        let mut from = start;
        for to in inside.copied().chain([part.end]) {
            if to > from {
                let before = shares.partition_point(|(at, _)| *at <= from);
                pieces.push(Piece {
                    text: prompt[from..to].into(),
                    answer: answer.contains(&from),
                    kept: shares[before - 1].1,
                });
                from = to;
            }
        }
        end = part.end;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::row;

    fn text(pieces: &[Piece]) -> String {
        pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    #[test]
    fn a_long_prompt_shows_ends_and_answer() {
        let prompt = format!("begin{}the needle{}end", "x".repeat(9000), "y".repeat(9000));
        let short = pieces(&prompt, "the needle", 10_000, &Runs::new());
        let shown = text(&short);
        assert!(shown.starts_with("begin") && shown.ends_with("end"));
        assert_eq!(shown.matches("characters ...]").count(), 2);
        let marked: Vec<_> = short.iter().filter(|piece| piece.answer).collect();
        assert_eq!((marked.len(), marked[0].text.as_str()), (1, "the needle"));
        let none = Runs::new();
        assert_eq!(
            text(&pieces(&prompt, "the needle", usize::MAX, &none)),
            prompt
        );
        assert_eq!(text(&pieces("short", "none", 10, &none)), "short");
        let answer = |text: &str| Piece {
            text: text.into(),
            answer: true,
            kept: 0,
        };
        assert_eq!(pieces("short", "short", 10, &none), [answer("short")]);
    }

    #[test]
    fn what_was_kept_is_tinted_and_lies_never_break_the_text() {
        let said = |runs: &Runs| -> Vec<_> {
            let pieces = pieces("aaé bb cc", "bb", 99, runs);
            let parts = pieces.into_iter().map(|p| (p.text, p.answer, p.kept));
            parts.collect()
        };
        let part = |text: &str, answer, kept| (text.to_string(), answer, kept);
        assert_eq!(
            said(&vec![(2, 0), (4, 40), (1, 100)]),
            [
                part("aa", false, 0),
                part("é ", false, 40),
                part("b", true, 40),
                part("b", true, 100),
                part(" cc", false, 0)
            ]
        );
        // Lengths that no text has, as a row of another program may bring them.
        for runs in [
            vec![(3, 10), (usize::MAX, 20), (usize::MAX, 30)],
            vec![(0, 5)],
        ] {
            let text: String = said(&runs).into_iter().map(|(text, ..)| text).collect();
            assert_eq!(text, "aaé bb cc");
        }
    }

    /// Rows of two variants: what `full` and `snapkv` scored on each sample.
    fn found(metric: &str, scores: &[(f64, f64)], limit: usize) -> Failures {
        let mut results = Results::default();
        for (at, (full, snapkv)) in scores.iter().enumerate() {
            for (method, score) in [("full", full), ("snapkv", snapkv)] {
                results.rows.push(Row {
                    score: *score,
                    metric: metric.into(),
                    variant: Variant::new(method),
                    ..row(&at.to_string(), Ok("said"))
                });
            }
        }
        let options = Options {
            failures: limit,
            ..Options::default()
        };
        failures(&results, &options).pop().unwrap()
    }

    #[test]
    fn the_costliest_come_first() {
        let found = found(
            "qa_f1",
            &[(1.0, 1.0), (0.0, 0.0), (1.0, 0.2), (0.9, 0.4)],
            2,
        );
        assert_eq!((found.failed, found.samples, found.graded), (3, 4, false));
        let names: Vec<_> = found
            .examples
            .iter()
            .map(|e| (e.name.as_str(), e.wrong.join(", ")))
            .collect();
        assert_eq!(
            names,
            [
                ("test 100, sample 2, depth 40 %", "snapkv".to_string()),
                ("test 100, sample 3, depth 40 %", "snapkv".to_string())
            ]
        );
    }

    #[test]
    fn where_nothing_is_right_or_wrong_the_worst_are_shown() {
        let found = found("rouge", &[(0.3, 0.3), (0.2, 0.2), (0.9, 0.1)], 9);
        assert_eq!((found.failed, found.graded), (3, true));
        assert!(
            found
                .examples
                .iter()
                .all(|example| example.wrong.is_empty())
        );
        let worst: Vec<_> = found.examples.iter().map(|e| e.answers[1].score).collect();
        assert_eq!(worst, [10.0, 20.0, 30.0]);
    }
}
