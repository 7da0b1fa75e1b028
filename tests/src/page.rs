//! What a report page must be; included by the tests of `eval/` too, which cannot depend on this crate.

/// Fails unless a page needs nothing from elsewhere: no script, no style sheet, no picture, and no address but the name
/// of SVG's namespace.
pub fn assert_self_contained(page: &str) {
    let elsewhere = page
        .split("http")
        .skip(1)
        .find(|rest| !rest.starts_with("://www.w3.org/2000/svg"));
    let shown = elsewhere.map(|rest| rest.chars().take(80).collect::<String>());
    assert_eq!(shown, None);
    for loaded in ["<script", "<link", "<img", "<iframe", "@import", "url("] {
        assert!(!page.contains(loaded), "the page has {loaded}");
    }
}
