//! The commit that this program was built from, for who wants to build it again.

/// The one that the builder named in `HEADKV_COMMIT`, or cargo's own checkout's, which nobody edits. Of a working tree it is not
/// known what was changed since its last commit.
pub fn commit() -> Option<&'static str> {
    option_env!("HEADKV_COMMIT").or_else(|| of_checkout(env!("CARGO_MANIFEST_DIR")))
}

/// `cargo install --git` builds in `{CARGO_HOME}/git/checkouts/{repository}/{commit}/...`.
fn of_checkout(folder: &str) -> Option<&str> {
    let (_, rest) = folder.rsplit_once("/git/checkouts/")?;
    let commit = rest.split('/').nth(1)?;
    let hash = commit.len() >= 7 && commit.chars().all(|digit| digit.is_ascii_hexdigit());
    hash.then_some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_checkouts_name_their_commit_and_working_trees_do_not() {
        let installed = "/home/a/.cargo/git/checkouts/headkv-0f3a/7c96e70/eval";
        assert_eq!(of_checkout(installed), Some("7c96e70"));
        for other in [
            "/home/a/headkv/eval",
            "/home/a/git/checkouts/headkv/eval",
            "/home/a/git/checkouts/headkv",
        ] {
            assert_eq!(of_checkout(other), None, "{other}");
        }
    }
}
