//! Capacities and kept positions, case by case, against two others: a second implementation of the papers' formulas,
//! whose outputs lie in `tests/goldens`, and the original's own, from the folder in `HEADKV_GOLDENS`.

use headkv_plugin::{
    AttentionShape, Compression, HeadScores, ModelShape, Policy,
    attention::window_scores,
    config::{Granularity, Pooling},
    methods::head_capacities,
    selection::{self, Scores},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
};

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn number(case: &Value, key: &str) -> f64 {
    case[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} in {case:.100}"))
}

/// The folders of goldens that are there; the project's own is.
fn folders() -> Vec<PathBuf> {
    let own = headkv_tests::root().join("tests/goldens");
    std::iter::once(own)
        .chain(headkv_tests::goldens())
        .collect()
}

/// Head scores of the first embedded model, which the goldens are of, or of one of the original's, or a visible note that a
/// case is skipped.
fn scores(model: &str, choice: &str) -> Option<HeadScores> {
    if model == "tiny" {
        let kind = choice.parse().unwrap();
        let folder = headkv_tests::root().join("tests/goldens");
        return Some(HeadScores::read(&HeadScores::path(&folder, model, kind)).unwrap());
    }
    let kind = if choice == "reason" {
        "retrieval_reasoning"
    } else {
        "retrieval"
    };
    let file = headkv_tests::upstream_data(&format!("head_score/{model}_{kind}_heads.json"))?;
    Some(HeadScores::read(&file).unwrap())
}

#[test]
fn capacities_equal_those_of_others() {
    for goldens in folders() {
        compare_capacities(&goldens);
    }
}

fn compare_capacities(goldens: &Path) {
    let cases = json(&goldens.join("capacities.json"));
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let (model, choice) = (case["model"].as_str(), case["choice"].as_str());
        let Some(scores) = scores(model.unwrap(), choice.unwrap()) else {
            continue;
        };
        let config = Compression {
            capacity: number(case, "capacity") as usize,
            window: number(case, "window") as usize,
            beta: Some(number(case, "beta")),
            temp: number(case, "temp"),
            redistribute: false,
            ..Compression::default()
        };
        let expected: Vec<usize> = case["head_capacity"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c.as_u64().unwrap() as usize)
            .collect();
        assert_eq!(head_capacities(&config, &scores), expected, "{config:?}");
        compared += 1;
    }
    assert!(
        compared > 0,
        "no case of {} was compared",
        goldens.display()
    );
    println!("{}: {compared} capacity tables are ours", goldens.display());
}

/// Kept positions and, to judge ties, the ranking they came from.
fn kept(
    model: &str,
    run: &Value,
    case: &Value,
    q: &[f32],
    k: &[f32],
) -> Option<(Vec<Vec<u32>>, Scores)> {
    let (heads, tokens) = (
        number(case, "heads") as usize,
        number(case, "tokens") as usize,
    );
    let head_dim = number(case, "head_dim") as usize;
    let field = |key: &str, default: f64| run[key].as_f64().unwrap_or(default);
    let method = run["method"].as_str().unwrap();
    let config = Compression {
        method: method.into(),
        capacity: number(run, "capacity") as usize,
        window: number(run, "window") as usize,
        kernel: number(run, "kernel") as usize,
        pooling: if run["pooling"] == "avgpool" {
            Pooling::Average
        } else {
            Pooling::Max
        },
        beta: Some(field("beta", 1.2)),
        temp: field("temp", 1.0),
        floor: field("floor", 0.2),
        pyramid_beta: field("pyram_beta", 20.0) as usize,
        granularity: Granularity::QueryHead,
        redistribute: false,
        ..Compression::default()
    };
    let scores = match method {
        "headkv" => Some(scores(model, run["choice"].as_str().unwrap())?),
        _ => None,
    };
    let layers = field("layers", 1.0) as usize;
    let shape = ModelShape {
        layers,
        heads,
        kv_heads: heads,
        head_dim,
    };
    let policy = Policy::new(&config, shape, scores.as_ref()).unwrap();
    let shape = AttentionShape {
        heads,
        kv_heads: heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        softcap: None,
        window: None,
        sinks: None,
    };
    let candidates = tokens - config.window;
    let last = q
        .chunks(tokens * head_dim)
        .flat_map(|head| &head[candidates * head_dim..]);
    let last: Vec<f32> = last.copied().collect();
    let ranking = selection::rank(
        Scores::new(candidates, window_scores(&last, k, &shape)),
        1,
        &config,
    );
    let budget = policy.budget(field("layer", 0.0) as usize, tokens).unwrap();
    let Ok(kept) = policy.select(&budget, tokens, || Ok::<_, Infallible>(ranking.clone()));
    Some((kept, ranking))
}

#[test]
fn selections_equal_those_of_others() {
    for goldens in folders() {
        compare_selections(&goldens);
    }
}

fn compare_selections(goldens: &Path) {
    // The original's cases are of one model and do not name it.
    let own = goldens.ends_with("tests/goldens");
    let model = if own {
        "tiny"
    } else {
        "Meta-Llama-3-8B-Instruct"
    };
    let bytes = fs::read(goldens.join("selection.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: String| -> Vec<f32> {
        let data = tensors.tensor(&name).unwrap();
        data.data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let (mut runs, mut heads, mut tied) = (0, 0, 0);
    for case in json(&goldens.join("selection.json")).as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (q, k) = (floats(format!("{name}.q")), floats(format!("{name}.k")));
        for run in case["runs"].as_array().unwrap() {
            let Some((ours, ranking)) = kept(model, run, case, &q, &k) else {
                continue;
            };
            let theirs = run["kept"].as_array().unwrap();
            assert_eq!(ours.len(), theirs.len());
            let about = format!(
                "{name} {} capacity {} layer {}",
                run["method"], run["capacity"], run["layer"]
            );
            for (head, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                let ours: BTreeSet<u32> = ours.iter().copied().collect();
                let theirs: BTreeSet<u32> = theirs
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|p| p.as_u64().unwrap() as u32)
                    .collect();
                assert_eq!(
                    ours.len(),
                    theirs.len(),
                    "{about} head {head}: number of tokens"
                );
                // Positions that differ must stand at the cut: the lowest score that is kept.
                let score = |at: &u32| ranking.row(head)[*at as usize];
                let cut = ours
                    .iter()
                    .filter(|&&at| (at as usize) < ranking.candidates())
                    .map(score)
                    .fold(f32::MAX, f32::min);
                for at in ours.symmetric_difference(&theirs) {
                    let difference = (score(at) - cut).abs();
                    assert!(
                        difference <= 1e-5,
                        "{about} head {head}: position {at} is {difference} from the cut"
                    );
                    tied += 1;
                }
                heads += 1;
            }
            runs += 1;
        }
    }
    assert!(runs > 0, "no run of {} was compared", goldens.display());
    println!(
        "{}: {runs} runs, {heads} heads compared; {tied} positions differ at a tie",
        goldens.display()
    );
}
