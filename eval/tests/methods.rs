//! `headkv-eval methods`: what there is to choose from, for people and for programs.

mod program;

use program::run;

#[test]
fn the_table_has_names_needs_and_a_line_each() {
    let output = run(&["methods"]);
    assert!(output.status.success());
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

#[test]
fn json_says_the_same() {
    let output = run(&["methods", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let methods = listed["methods"].as_array().unwrap();
    let known = headkv_plugin::methods::all();
    assert_eq!(methods.len(), known.len());
    for (method, entry) in methods.iter().zip(&known) {
        assert_eq!(method["name"], entry.name.as_str());
        let needs = method["needs"].as_array().unwrap();
        assert_eq!(
            needs.iter().any(|need| need == "head scores"),
            entry.needs_scores
        );
        assert!(!method["about"].as_str().unwrap().is_empty(), "{method}");
    }
    assert_eq!(
        listed["rankings"].as_array().unwrap().len(),
        headkv_plugin::ranking::all().len()
    );
}
