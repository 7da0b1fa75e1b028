//! A report on thousands of lengths, depths and heads takes memory in proportion to its rows, and says what it leaves out.

use headkv_eval::{
    Row,
    report::{self, csv, figures, html, markdown, tables},
    store::{Heads, Results},
};
use headkv_tests::Counting;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Rows of that many lengths and depths, all distinct, under two variants.
fn rows(cells: usize) -> Vec<Row> {
    let seed = headkv_tests::root().join("fuzz/seeds/rows_file/whole.jsonl");
    let seed = std::fs::read_to_string(seed).unwrap();
    let first = seed.lines().next().unwrap();
    let row = |at: usize, method: &str, capacity: Option<usize>| {
        let mut row: serde_json::Value = serde_json::from_str(first).unwrap();
        row["key"] = json!(format!("{at} {method}"));
        row["sample"] = json!(format!("{}/1 at {at}", 1000 + at));
        row["prompt"] = json!(format!("{at}"));
        row["length"] = json!(1000 + at);
        row["depth"] = json!(at as f64 / cells as f64 * 100.0);
        row["method"] = json!(method);
        row["capacity"] = json!(capacity);
        row["score"] = json!((at % 3) as f64 / 2.0);
        serde_json::from_value(row).unwrap()
    };
    let both = |at| [row(at, "full", None), row(at, "snapkv", Some(16))];
    (0..cells).flat_map(both).collect()
}

#[test]
fn memory_grows_with_the_rows_and_not_with_their_square() {
    let mut results = Results::of_rows(rows(3000));
    let map = |at: usize| Heads {
        model: "m".into(),
        variant: headkv_eval::Variant::new("headkv").capacity(16 + at),
        capacities: (0..32).map(|layer| vec![layer + at; 32]).collect(),
    };
    results.heads = (0..500).map(map).collect();
    let before = ALLOCATOR.restart();
    let tables = tables(&results.rows);
    let pictures = figures(&results);
    let page = html(&results, &report::Options::default()).unwrap();
    let text = markdown(&tables) + &csv(&tables);
    let taken = ALLOCATOR.peak() - before;
    // Some kilobytes for each of the 6,000 rows and its cells in the page; 3,000 x 3,000 of anything are 70 MB and more.
    assert!(taken < 64 << 20, "{taken} bytes");
    assert!(text.contains("words 3999"));
    assert_eq!(tables[0].columns.len(), 3000);
    // 19 maps of 1,024 heads are as many cells as a page may have; no map of 9 million depths and lengths is.
    assert_eq!((pictures.heads.len(), pictures.left_out), (19, 481));
    assert_eq!(
        (
            pictures.tables[0].maps.len(),
            pictures.tables[0].maps_left_out
        ),
        (0, 2)
    );
    assert!(page.contains("481 more maps are in heads.jsonl"));
    assert!(page.contains("2 maps of depths and lengths are left out"));
    assert!(page.len() < 16 << 20, "{} bytes", page.len());
}
