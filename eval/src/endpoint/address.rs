//! Where a server is.

use super::VARIABLE;
use crate::Error;
use headkv_files::terminal::one_line;
use ureq::http::Uri;

/// The address without `/v1`.
///
/// # Errors
/// [`Error::Option`] for one that is not HTTP, or that holds more than a place: rows and reports show it.
pub(super) fn base(url: &str) -> Result<String, Error> {
    let wrong = |why: String| Err(Error::Option(why));
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return wrong(format!(
            "endpoint `{}` is no http:// or https:// address",
            one_line(url)
        ));
    }
    let host = url.split(['/', '?', '#']).nth(2).unwrap_or_default();
    if host.contains('@') {
        return wrong(format!(
            "the endpoint's address holds a password, which reports would show; put the key into {VARIABLE}"
        ));
    }
    if url.contains('?') {
        return wrong(format!(
            "the endpoint's address holds parameters (`?`), which reports would show; put a key into {VARIABLE}"
        ));
    }
    if url.contains('#') {
        return wrong(
            "the endpoint's address holds a fragment (`#`), which no server sees; leave it out"
                .into(),
        );
    }
    let parsed = url.parse::<Uri>();
    let bracketed = !host.starts_with('[') || host.contains(']');
    match parsed.as_ref().map(Uri::authority) {
        Ok(Some(place)) if !place.host().is_empty() && bracketed && port_is_one(place.as_str()) => {
        }
        _ => {
            return wrong(format!(
                "endpoint `{}` is no address; check it",
                one_line(url)
            ));
        }
    }
    Ok(url
        .trim_end_matches('/')
        .trim_end_matches("/v1")
        .to_string())
}

/// Whether what stands behind a host's last colon, if there is one, is a port.
fn port_is_one(place: &str) -> bool {
    match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        let named = |url: &str| base(url).map_err(|e| e.to_string());
        for good in [
            "http://localhost:8000/v1/",
            "https://example.org",
            "http://[::1]:80/a/v1",
            "http://[::1]",
        ] {
            named(good).unwrap();
        }
        assert_eq!(named("http://h:1/v1/").unwrap(), "http://h:1");
        for (wrong, why) in [
            ("ftp://x", "no http://"),
            ("http://", "is no address"),
            ("http:///v1", "is no address"),
            ("http://a b", "is no address"),
            ("http://host:port", "is no address"),
            ("http://host:99999", "is no address"),
            ("http://host:0", "is no address"),
            ("http://:80", "is no address"),
            ("http://[::1", "is no address"),
            ("http://host#x", "fragment"),
            ("http://host/v1?api_key=sk-1", "parameters"),
            ("https://me:sk-1@host", "password"),
        ] {
            let message = named(wrong).unwrap_err();
            assert!(message.contains(why), "{wrong}: {message}");
            assert!(!message.contains("sk-1"), "{message}");
        }
    }
}
