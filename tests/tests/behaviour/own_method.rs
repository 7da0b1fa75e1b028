//! The example's method, registered, is one that every command of `headkv-eval` knows.

use headkv_eval::{cli, store::Results};
use headkv_plugin::methods;

#[allow(dead_code, reason = "the example's own main")]
#[path = "../../examples/own_method.rs"]
mod example;

#[test]
fn a_registered_method_runs_by_name() {
    assert!(methods::find("zigzag").is_err());
    example::register();

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
        "snapkv,zigzag",
        "--capacity",
        "32",
        "--lengths",
        "300",
        "--depths",
        "0,50",
        "--out",
        out.path().to_str().unwrap(),
    ];
    assert!(cli::run_with(args).unwrap(), "prompts failed");
    let rows = Results::read(out.path()).unwrap().rows;
    let of = |method: &str| rows.iter().filter(|r| r.variant.method == method).count();
    assert_eq!((of("snapkv"), of("zigzag")), (2, 2));
    assert!(
        rows.iter()
            .all(|row| row.error.is_none() && row.kv_bytes > Some(0))
    );
    let page = std::fs::read_to_string(out.path().join("report.md")).unwrap();
    assert!(page.contains("zigzag@32"), "{page}");
}
