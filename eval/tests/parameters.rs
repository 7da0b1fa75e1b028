//! Every parameter of the compression is a flag with the plugin's default, and what it says is what runs and is labelled.

mod program;

use headkv_plugin::Compression;
use program::run;
use std::fs;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_lists_every_parameter_with_the_plugins_default() {
    let help = text(&run(&["needle", "--help"]).stdout);
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    let defaults = toml::Table::try_from(Compression::default()).unwrap();
    for (key, default) in &defaults {
        let flag = format!(" --{} <", key.replace('_', "-"));
        let at = help.find(&flag).unwrap_or_else(|| panic!("no{flag}"));
        let about = &help[at + flag.len()..];
        let about = &about[..about.find(" --").unwrap_or(about.len())];
        // What a run gives several values has defaults of its own: the grid's.
        if !["method", "capacity"].contains(&key.as_str()) {
            let default = default.to_string();
            let default = default.trim_matches('"').trim_end_matches(".0");
            let shown = format!("[default: {default}]");
            assert!(about.contains(&shown), "{flag} {about}: not {shown}");
        }
    }
    assert!(help.contains(" --scores <"));
}

#[test]
fn a_parameter_is_judged_with_the_capacity_that_it_runs_with() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let needle = |flags: &[&str]| {
        let mut args = vec!["needle", "--lengths", "400", "--depths", "50"];
        args.extend(["--needles", "san-francisco"]);
        args.extend(["--method", "snapkv", "--out", out.to_str().unwrap()]);
        args.extend(flags);
        run(&args)
    };
    let refused = |flags: &[&str], expected: &str| {
        let output = needle(flags);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {message}");
        assert!(message.contains(expected), "{flags:?}: {message}");
    };
    let too_wide = ["--window", "128", "--capacity", "64"];
    refused(
        &too_wide,
        "capacity 64 is not larger than the window of 128",
    );
    refused(&["--kernel", "4"], "kernel 4 is even");
    refused(&["--temp", "nan"], "temp NaN is not a positive number");
    refused(&["--floor", "2"], "floor 2 is not between 0 and 1");
    refused(&["--sinks", "100"], "sinks 100 do not fit");
    refused(&["--pooling", "avg"], "max, average");
    assert!(!out.exists());

    // A window of 128 does not fit the plugin's default capacity, which is not asked for.
    let fits = [
        "--window",
        "128",
        "--capacity",
        "256",
        "--pooling",
        "average",
    ];
    let output = needle(&fits);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = fs::read_to_string(out.join("rows.jsonl")).unwrap();
    let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!(row["capacity"], 256);
    assert_eq!(
        row["settings"],
        serde_json::json!({"window": 128, "pooling": "average"})
    );
    // 8 layers x 4 KV heads x (256 kept and a block of 32 generated) x keys and values of 32 elements.
    assert_eq!(row["kv_bytes"], 8 * 4 * (256 + 32) * 2 * 32 * 4);
}

#[test]
fn a_grid_file_has_the_same_parameters() {
    let dir = tempfile::tempdir().unwrap();
    let grid = dir.path().join("grid.toml");
    let refused = |parameters: &str, expected: &str| {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");
        let text_ = format!("models = ['{model}']\n[methods.parameters]\n{parameters}\n[needle]\n");
        fs::write(&grid, text_).unwrap();
        let output = run(&["run", grid.to_str().unwrap()]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{parameters}: {message}");
        assert!(message.contains(expected), "{parameters}: {message}");
    };
    refused("windw = 8", "unknown field `windw`");
    refused("window = 64", "is not larger than the window of 64");
    refused("pooling = 'avg'", "unknown variant `avg`");
}
