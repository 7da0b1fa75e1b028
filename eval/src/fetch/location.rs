//! Addresses: those that are configured, and those that a redirect names.

use crate::Error;
use headkv_files::terminal::one_line;
use ureq::http::Uri;

/// An address without the slash at its end.
///
/// # Errors
/// [`Error::Option`] for one that is not HTTP, or that holds more than a place: messages show it.
pub(super) fn base(variable: &str, url: &str) -> Result<String, Error> {
    let wrong = |why: &str| Err(Error::Option(format!("{variable}: {why}")));
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return wrong(&format!(
            "`{}` is no http:// or https:// address",
            one_line(url)
        ));
    }
    if url.contains(['@', '?', '#']) {
        return wrong("the address holds a password or parameters (`@`, `?`, `#`); leave them out");
    }
    match url.parse::<Uri>() {
        Ok(parsed) if parsed.host().is_some_and(|host| !host.is_empty()) => {
            Ok(url.trim_end_matches('/').into())
        }
        _ => wrong(&format!("`{}` is no address; check it", one_line(url))),
    }
}

/// Scheme, host and port: what a secret is meant for.
pub(super) fn origin(url: &str) -> &str {
    let behind = url.find("://").map_or(0, |at| at + 3);
    let end = url[behind..].find(['/', '?', '#']);
    end.map_or(url, |end| &url[..behind + end])
}

/// The address that a `Location` header means (RFC 9110, section 10.2.2); `None` for one that leaves HTTP, or that would
/// send what was asked for encrypted over an open line.
pub(super) fn redirect(from: &str, to: &str) -> Option<String> {
    let secure = from.starts_with("https://");
    let scheme = if secure { "https:" } else { "http:" };
    let to = if to.contains("://") {
        to.to_string()
    } else if to.starts_with("//") {
        format!("{scheme}{to}")
    } else if to.starts_with('/') {
        format!("{}{to}", origin(from))
    } else {
        let path = from.split(['?', '#']).next().unwrap_or(from);
        let folder = path.rfind('/').filter(|at| *at > origin(from).len());
        let folder = folder.map_or(origin(from), |at| &path[..at]);
        format!("{folder}/{to}")
    };
    let allowed = to.starts_with("https://") || (!secure && to.starts_with("http://"));
    allowed.then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_addresses_are_checked() {
        let named = |url: &str| base("HF_ENDPOINT", url).map_err(|e| e.to_string());
        assert_eq!(named("http://h:1/a/").unwrap(), "http://h:1/a");
        for wrong in [
            "",
            "ftp://x",
            "http://",
            "http://a b",
            "https://me:pw@h",
            "http://h?x=1",
        ] {
            let message = named(wrong).unwrap_err();
            assert!(message.starts_with("HF_ENDPOINT: "), "{message}");
            assert!(!message.contains("pw"), "{message}");
        }
    }

    #[test]
    fn redirects_are_resolved() {
        let from = "https://h:1/a/b?c=d/e";
        for (to, expected) in [
            ("https://x/y", Some("https://x/y")),
            ("//x/y", Some("https://x/y")),
            ("/y?z", Some("https://h:1/y?z")),
            ("y", Some("https://h:1/a/y")),
            ("http://x/y", None),
            ("ftp://x/y", None),
        ] {
            assert_eq!(redirect(from, to).as_deref(), expected, "{to}");
        }
        assert_eq!(redirect("http://h", "y").as_deref(), Some("http://h/y"));
        assert_eq!(origin("https://h:1?x"), "https://h:1");
    }
}
