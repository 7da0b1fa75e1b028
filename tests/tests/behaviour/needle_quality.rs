//! What the methods are for: at the same capacity HeadKV finds the needle where SnapKV loses it, and HeadKV-Plus with a third of it.

use headkv_eval::{cli, store::Results};

#[test]
fn headkv_finds_the_needle_where_snapkv_loses_it() {
    let out = tempfile::tempdir().unwrap();
    let model = headkv_tests::tiny();
    let args = [
        "headkv-eval",
        "needle",
        "--needles",
        "san-francisco",
        "--model",
        model.to_str().unwrap(),
        "--method",
        "snapkv,headkv,headkv-plus",
        "--capacity",
        "16,48",
        "--lengths",
        "1000,2000",
        "--out",
        out.path().to_str().unwrap(),
    ];
    assert!(cli::run_with(args).unwrap(), "prompts failed");
    let rows = Results::read(out.path()).unwrap().rows;
    let f1 = |method: &str, capacity: usize, length: usize| {
        let cell = rows.iter().filter(|row| {
            row.variant.method == method
                && row.variant.capacity == Some(capacity)
                && row.length == Some(length)
        });
        let scores: Vec<f64> = cell.filter_map(|row| row.f1).collect();
        assert_eq!(scores.len(), 6, "a needle at each of six depths");
        let score = 100.0 * scores.iter().sum::<f64>() / 6.0;
        println!("{length} tokens: {method}@{capacity} {score:.1}");
        score
    };
    for length in [1000, 2000] {
        let (snapkv, headkv) = (f1("snapkv", 48, length), f1("headkv", 48, length));
        assert!(headkv >= snapkv + 20.0, "{headkv} is near {snapkv}");
        let (snapkv, plus) = (f1("snapkv", 16, length), f1("headkv-plus", 16, length));
        assert!(plus >= 95.0 && snapkv <= 60.0, "{plus}, {snapkv}");
    }
}
