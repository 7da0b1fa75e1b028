//! What the method is for: at the same capacity HeadKV finds the needle where SnapKV loses it.

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
        "snapkv,headkv",
        "--capacity",
        "16",
        "--lengths",
        "1000,2000",
        "--out",
        out.path().to_str().unwrap(),
    ];
    assert!(cli::run_with(args).unwrap(), "prompts failed");
    let rows = Results::read(out.path()).unwrap().rows;
    let f1 = |method: &str, length: usize| {
        let cell = rows
            .iter()
            .filter(|row| row.variant.method == method && row.length == Some(length));
        let scores: Vec<f64> = cell.filter_map(|row| row.f1).collect();
        assert_eq!(scores.len(), 6, "a needle at each of six depths");
        100.0 * scores.iter().sum::<f64>() / 6.0
    };
    for length in [1000, 2000] {
        let (snapkv, headkv) = (f1("snapkv", length), f1("headkv", length));
        println!("{length} tokens: snapkv@16 {snapkv:.1}, headkv@16 {headkv:.1}");
        assert!(headkv >= 95.0, "headkv@16 at {length} tokens: {headkv}");
        assert!(snapkv <= 60.0, "snapkv@16 at {length} tokens: {snapkv}");
    }
}
