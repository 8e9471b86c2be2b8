//! `If-Match` and `If-None-Match` (RFC 9110, 13.1): what a file must be, or what the caller has of it.

use axum::body::Body;
use axum::response::Response;
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{Expect, WriteHow};
use http::{HeaderMap, HeaderName, StatusCode, header};

use super::with_etag;
use crate::http::problem::{Failure, invalid};

/// What a condition names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// Whatever is there.
    Any,
    /// This content.
    Etag(ContentId),
}

/// What a write expects, and how it is meant with that.
pub(super) fn of_write(headers: &HeaderMap, how: WriteHow) -> Result<(WriteHow, Expect), Failure> {
    match (one(headers, &header::IF_MATCH)?, one(headers, &header::IF_NONE_MATCH)?) {
        (None, None) => Ok((how, Expect::Any)),
        (Some(Named::Etag(etag)), None) => Ok((how, Expect::Etag(etag))),
        (Some(Named::Any), None) if matches!(how, WriteHow::Put | WriteHow::Replace) => {
            Ok((WriteHow::Replace, Expect::Any))
        }
        (Some(Named::Any), None) => Err(invalid("`If-Match: *` is for a file that is replaced.")),
        (None, Some(Named::Any)) => Ok((how, Expect::Absent)),
        (None, Some(Named::Etag(_))) => Err(invalid("Of a change `If-None-Match` must be `*`.")),
        (Some(_), Some(_)) => Err(invalid("`If-Match` and `If-None-Match` exclude each other.")),
    }
}

/// What another change expects.
pub(super) fn of_change(headers: &HeaderMap) -> Result<Expect, Failure> {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return Err(invalid("`If-None-Match` is for what is read or written."));
    }
    match one(headers, &header::IF_MATCH)? {
        // It must be there anyway.
        None | Some(Named::Any) => Ok(Expect::Any),
        Some(Named::Etag(etag)) => Ok(Expect::Etag(etag)),
    }
}

/// Refuses conditions on what has no etag.
pub(super) fn none(headers: &HeaderMap, what: &str) -> Result<(), Failure> {
    if headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH) {
        return Err(invalid(format!(
            "`If-Match` and `If-None-Match` are not for {what}, which has no etag."
        )));
    }
    Ok(())
}

/// Whether the caller has this content. Weak comparison, as the standard has it for this header.
pub(super) fn is_known(headers: &HeaderMap, etag: Option<ContentId>) -> bool {
    let Some(etag) = etag else { return false };
    let known = format!("\"{etag}\"");
    let named = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut named = named.flat_map(|value| value.split(',')).map(str::trim);
    named.any(|text| text == "*" || text.strip_prefix("W/").unwrap_or(text) == known)
}

/// The answer to one who has it.
pub(super) fn not_modified(etag: Option<ContentId>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    with_etag(response, etag)
}

/// The one etag that a header names.
fn one(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Named>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" && values.next().is_none() {
        return Ok(Some(Named::Any));
    }
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let etag = bare.and_then(|text| text.parse().ok()).filter(|_| values.next().is_none());
    let bad = || invalid(format!("`{name}` is not `*` or one etag: 64 hex digits within quotes."));
    etag.map(|etag| Some(Named::Etag(etag))).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value")));
        pairs.collect()
    }

    #[test]
    fn a_write_expects_what_its_headers_say() {
        let etag = ContentId::of(b"x");
        let (quoted, weak) = (format!("\"{etag}\""), format!("W/\"{etag}\""));
        let two = format!("{quoted}, {quoted}");
        let (yes, no) = (header::IF_MATCH, header::IF_NONE_MATCH);
        for (pairs, how, expected) in [
            (vec![], WriteHow::Put, Some((WriteHow::Put, Expect::Any))),
            (vec![(yes.clone(), &*quoted)], WriteHow::Put, Some((WriteHow::Put, Expect::Etag(etag)))),
            (vec![(yes.clone(), "*")], WriteHow::Put, Some((WriteHow::Replace, Expect::Any))),
            (vec![(yes.clone(), "*")], WriteHow::Append, None),
            (vec![(no.clone(), "*")], WriteHow::Put, Some((WriteHow::Put, Expect::Absent))),
            (vec![(no.clone(), &*quoted)], WriteHow::Put, None),
            (vec![(yes.clone(), &*quoted), (no.clone(), "*")], WriteHow::Put, None),
            (vec![(yes.clone(), &*weak)], WriteHow::Put, None),
            (vec![(yes.clone(), &*two)], WriteHow::Put, None),
            (vec![(yes.clone(), "")], WriteHow::Put, None),
            (vec![(yes, "\"af13\"")], WriteHow::Put, None),
        ] {
            assert_eq!(of_write(&headers(&pairs), how).ok(), expected, "{pairs:?}");
        }
    }

    #[test]
    fn what_the_caller_has_is_found_among_several_and_weakly() {
        let etag = ContentId::of(b"x");
        let no = header::IF_NONE_MATCH;
        let known = |value: &str| is_known(&headers(&[(no.clone(), value)]), Some(etag));
        let of = |text: &str| format!("\"{}\", {text}", ContentId::of(b"other"));
        assert!(known("*") && known(&of(&format!("\"{etag}\""))) && known(&of(&format!("W/\"{etag}\""))));
        assert!(!known(&of("\"x\"")) && !known("") && !known(&etag.to_string()));
        assert!(!is_known(&headers(&[(no.clone(), "*")]), None) && !is_known(&headers(&[]), Some(etag)));
    }
}
