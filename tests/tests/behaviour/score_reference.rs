//! Scores of the embedded model agree with a second implementation, written from the definitions in plain float32.

use candle_core::{DType, Device, safetensors};
use head_scoring::{
    Kind, ScoreFile, Scorer,
    compare::compare,
    example::{Example, Grid},
    show::Shown,
};
use headkv_engine::LoadOptions;
use headkv_haystack::{Haystack, Patterns, Template, pattern::Builtin};
use serde_json::Value;
use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    thread,
};

const LAYERS: usize = 8;
const HEADS: usize = 8;
const KV_HEADS: usize = 4;
const HEAD_DIM: usize = 32;
const HIDDEN: usize = 256;

/// The embedded model, token by token: every layer keeps all of its keys and values.
struct Model {
    weights: HashMap<String, Vec<f32>>,
    theta: f32,
    epsilon: f32,
}

/// Keys and values of each layer, `tokens x (KV_HEADS * HEAD_DIM)`.
#[derive(Default)]
struct Cache {
    keys: [Vec<Vec<f32>>; LAYERS],
    values: [Vec<Vec<f32>>; LAYERS],
}

/// One token's attention, layers x heads x positions.
type Attention = Vec<Vec<Vec<f32>>>;

impl Model {
    fn load() -> Self {
        let folder = headkv_tests::tiny();
        let config: Value =
            serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        let number = |key: &str| config[key].as_f64().unwrap();
        assert_eq!(number("num_hidden_layers") as usize, LAYERS);
        let tensors = safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
        let floats = |tensor: candle_core::Tensor| {
            tensor
                .to_dtype(DType::F32)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1()
                .unwrap()
        };
        Self {
            weights: tensors
                .into_iter()
                .map(|(name, tensor)| (name, floats(tensor)))
                .collect(),
            theta: number("rope_theta") as f32,
            epsilon: number("rms_norm_eps") as f32,
        }
    }

    fn linear(&self, name: &str, x: &[f32]) -> Vec<f32> {
        self.weights[name]
            .chunks(x.len())
            .map(|row| dot(row, x))
            .collect()
    }

    fn norm(&self, name: &str, x: &[f32]) -> Vec<f32> {
        let scale = (dot(x, x) / x.len() as f32 + self.epsilon).sqrt();
        x.iter()
            .zip(&self.weights[name])
            .map(|(x, w)| x / scale * w)
            .collect()
    }

    /// Rotates each head's pairs (i, i + d / 2) by the position.
    fn rotate(&self, x: &mut [f32], position: usize) {
        for head in x.chunks_mut(HEAD_DIM) {
            for i in 0..HEAD_DIM / 2 {
                let angle = position as f32 * self.theta.powf(-(2.0 * i as f32) / HEAD_DIM as f32);
                let (a, b) = (head[i], head[i + HEAD_DIM / 2]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + HEAD_DIM / 2] = b * angle.cos() + a * angle.sin();
            }
        }
    }

    /// The hidden state behind the last layer, and where each head looked.
    fn step(&self, token: u32, cache: &mut Cache) -> (Vec<f32>, Attention) {
        let position = cache.keys[0].len();
        let embedding = &self.weights["model.embed_tokens.weight"];
        let mut x = embedding[token as usize * HIDDEN..][..HIDDEN].to_vec();
        let mut seen = Vec::new();
        for layer in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let normed = self.norm(&name("input_layernorm"), &x);
            let mut q = self.linear(&name("self_attn.q_proj"), &normed);
            let mut k = self.linear(&name("self_attn.k_proj"), &normed);
            self.rotate(&mut q, position);
            self.rotate(&mut k, position);
            cache.keys[layer].push(k);
            cache.values[layer].push(self.linear(&name("self_attn.v_proj"), &normed));

            let mut out = vec![0.0; HEADS * HEAD_DIM];
            let mut heads = Vec::new();
            for head in 0..HEADS {
                let kv = head / (HEADS / KV_HEADS) * HEAD_DIM;
                let q = &q[head * HEAD_DIM..][..HEAD_DIM];
                let logit = |k: &Vec<f32>| dot(q, &k[kv..][..HEAD_DIM]) / (HEAD_DIM as f32).sqrt();
                let attention = softmax(cache.keys[layer].iter().map(logit).collect());
                for (weight, value) in attention.iter().zip(&cache.values[layer]) {
                    for i in 0..HEAD_DIM {
                        out[head * HEAD_DIM + i] += weight * value[kv + i];
                    }
                }
                heads.push(attention);
            }
            seen.push(heads);
            add(&mut x, &self.linear(&name("self_attn.o_proj"), &out));

            let normed = self.norm(&name("post_attention_layernorm"), &x);
            let gate = self.linear(&name("mlp.gate_proj"), &normed);
            let up = self.linear(&name("mlp.up_proj"), &normed);
            let inner: Vec<f32> = gate
                .iter()
                .zip(up)
                .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                .collect();
            add(&mut x, &self.linear(&name("mlp.down_proj"), &inner));
        }
        (x, seen)
    }

    /// Each generated token, with the attention from which it came.
    fn answer(&self, prompt: &[u32], tokens: usize) -> Vec<(u32, Attention)> {
        let mut cache = Cache::default();
        let (before, last) = prompt.split_at(prompt.len() - 1);
        for &token in before {
            self.step(token, &mut cache);
        }
        let mut answer = Vec::new();
        let mut token = last[0];
        for _ in 0..tokens {
            let (hidden, seen) = self.step(token, &mut cache);
            let logits = self.linear(
                "model.embed_tokens.weight",
                &self.norm("model.norm.weight", &hidden),
            );
            token = (0..logits.len())
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .unwrap() as u32;
            answer.push((token, seen));
        }
        answer
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum()
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let most = logits.iter().copied().max_by(f32::total_cmp).unwrap();
    logits.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|x| *x /= sum);
    logits
}

/// One head's score, from its attention at every step.
fn estimate(kind: Kind, steps: &[(u32, &[f32])], example: &Example) -> f64 {
    let needle = &example.needle;
    let mut sum = 0.0;
    for (token, attention) in steps {
        let mut order: Vec<usize> = (0..attention.len()).collect();
        order.sort_by(|&a, &b| attention[b].total_cmp(&attention[a]));
        if kind == Kind::Retrieval {
            let copied = needle.contains(&order[0]) && example.prompt[order[0]] == *token;
            sum += if copied { 1.0 } else { 0.0 };
        } else {
            let best = order.iter().take(needle.len());
            sum += best
                .filter(|at| needle.contains(at))
                .map(|&at| f64::from(attention[at]))
                .sum::<f64>();
        }
    }
    sum / needle.len() as f64
}

#[test]
fn scores_agree_with_the_definitions() {
    let scorer = Scorer::load(LoadOptions::new(headkv_tests::tiny())).unwrap();
    let model = Model::load();
    for (patterns, kinds) in [
        (Builtin::Retrieval, &[Kind::Retrieval, Kind::Enhanced][..]),
        (Builtin::Reasoning, &[Kind::Reasoning][..]),
    ] {
        let grid = Grid {
            needles: Patterns::builtin(patterns).draw(3, 2).unwrap(),
            haystack: Haystack::generated(5),
            lengths: vec![400],
            depths: vec![0.0, 60.0],
            template: Template::plain(),
        };
        let examples = grid.examples(scorer.engine()).unwrap();
        let all: Vec<&Example> = examples.iter().collect();
        let ours: Vec<_> = kinds
            .iter()
            .map(|&kind| (kind, scorer.measure(kind, &all, 50).unwrap()))
            .collect();
        thread::scope(|scope| {
            for (at, example) in examples.iter().enumerate() {
                let (ours, scorer, model) = (&ours, &scorer, &model);
                scope.spawn(move || {
                    let text = &ours[0].1[at].answer;
                    let mut steps = model.answer(&example.prompt, 40);
                    // An answer ends with its line, or with the model's end token.
                    let newline = scorer.engine().encode("\n").unwrap()[0];
                    let end = steps
                        .iter()
                        .position(|(token, _)| *token == newline || *token == 2);
                    steps.truncate(end.expect("the answer ends") + 1);
                    let tokens: Vec<u32> = steps.iter().map(|(token, _)| *token).collect();
                    let theirs = scorer.engine().tokenizer().decode(&tokens, true).unwrap();
                    assert_eq!(theirs.trim(), text);
                    for (kind, outcomes) in ours {
                        assert!(
                            outcomes[at].scores.iter().any(|score| *score > 0.1),
                            "{kind}: nothing was seen"
                        );
                        for (head, score) in outcomes[at].scores.iter().enumerate() {
                            let row = |(token, seen): &'_ (u32, Attention)| {
                                (*token, seen[head / HEADS][head % HEADS].clone())
                            };
                            let rows: Vec<_> = steps.iter().map(row).collect();
                            let rows: Vec<_> = rows
                                .iter()
                                .map(|(token, row)| (*token, row.as_slice()))
                                .collect();
                            let exact = estimate(*kind, &rows, example);
                            assert!(
                                (score - exact).abs() < 1e-3,
                                "{kind} {head}: {score} instead of {exact}"
                            );
                        }
                    }
                });
            }
        });
    }
}

/// Whether somebody else's score file agrees with one of ours, and how much; an error if there is none to compare.
///
/// Ours are the files of as many layers and heads, and of the kind that the name tells if it tells one: "reasoning" for
/// "..._retrieval_reasoning_heads.json".
fn agreement(theirs: &Path) -> Result<(bool, String), String> {
    let name = theirs.file_name().unwrap_or_default().to_string_lossy();
    let kinds = [Kind::Reasoning, Kind::Enhanced, Kind::Retrieval].map(Kind::name);
    let kind = kinds
        .into_iter()
        .find(|kind| name.to_lowercase().contains(kind));
    let theirs = Shown::read(theirs).map_err(|e| e.to_string())?;
    let shape = (theirs.scores.layers(), theirs.scores.heads());
    let mut compared = Vec::new();
    for file in score_files(&headkv_tests::root().join("head_scores")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let ours = Shown::read(&file).unwrap();
        let same_kind = kind.is_none_or(|kind| name.ends_with(&format!("_{kind}.json")));
        if !same_kind || (ours.scores.layers(), ours.scores.heads()) != shape {
            continue;
        }
        let found = compare(&ours.scores, &theirs.scores, 10);
        let told = format!(
            "{name}: Pearson {:.4}, {} of the top {} heads in both",
            found.pearson, found.shared, found.top
        );
        if found.pearson >= 0.99 && found.shared >= 8 {
            return Ok((true, told));
        }
        compared.push(told);
    }
    if compared.is_empty() {
        let kind = kind.map_or(String::new(), |kind| format!("{kind} "));
        let (layers, heads) = shape;
        return Err(format!(
            "head_scores holds no {kind}file of {layers} layers x {heads} heads"
        ));
    }
    Ok((false, compared.join("; ")))
}

/// The score files of a folder, or the one file that a path names.
fn score_files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.into()];
    }
    let entries = fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    let scores = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.ends_with(".json") && !name.ends_with(".meta.json")
    };
    let mut files: Vec<_> = entries.filter(scores).collect();
    files.sort();
    files
}

#[test]
fn the_committed_files_agree_with_reference_files() {
    let Some(path) = env::var_os("HEADKV_REFERENCE_SCORES").map(PathBuf::from) else {
        return eprintln!(
            "SKIPPED: set HEADKV_REFERENCE_SCORES to a score file or a folder of them to run this test"
        );
    };
    let mut compared = 0;
    for file in score_files(&path) {
        match agreement(&file) {
            Ok((agrees, told)) => {
                assert!(agrees, "{} disagrees with {told}", file.display());
                println!("{} agrees with {told}", file.display());
                compared += 1;
            }
            Err(why) => eprintln!("SKIPPED: {}: {why}", file.display()),
        }
    }
    assert!(
        compared > 0,
        "HEADKV_REFERENCE_SCORES={} names no file that can be compared; each line above says why",
        path.display()
    );
}

#[test]
fn reference_files_are_matched_by_shape_and_kind() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str, kind: &str| {
        let ours = headkv_tests::root().join(format!("head_scores/tiny_{kind}.json"));
        let path = dir.path().join(name);
        fs::copy(ours, &path).unwrap();
        path
    };
    for (name, kind, with) in [
        ("Tiny_retrieval_heads.json", "retrieval", "tiny_retrieval"),
        ("t_retrieval_reasoning.json", "reasoning", "tiny_reasoning"),
        ("ENHANCED.json", "enhanced", "tiny_enhanced"),
        ("scores.json", "reasoning", "tiny_"),
    ] {
        let (agrees, told) = agreement(&place(name, kind)).unwrap();
        assert!(agrees && told.starts_with(with), "{name}: {told}");
    }
    let other = place("retrieval.json", "retrieval");
    let shuffled = ScoreFile::read(&other).unwrap().shuffled(1);
    shuffled.write(&other).unwrap();
    let (agrees, told) = agreement(&other).unwrap();
    assert!(!agrees && told.starts_with("tiny_retrieval"), "{told}");
    fs::write(&other, r#"{"0-0": [1], "0-1": [0]}"#).unwrap();
    assert_eq!(
        agreement(&other).unwrap_err(),
        "head_scores holds no retrieval file of 1 layers x 2 heads"
    );
    fs::write(&other, "[]").unwrap();
    assert!(agreement(&other).unwrap_err().contains("not a score file"));
    assert_eq!(score_files(dir.path()).len(), 5);
}
