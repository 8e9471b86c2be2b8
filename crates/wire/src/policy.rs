//! Policies, profiles and ceilings as JSON text: the only parser and the only writer.
//!
//! A policy is signed as bytes and travels, is stored and is kept as these bytes; nobody makes them
//! anew. What cannot be read here is refused with `policy_invalid`, and whoever asked must take it
//! as STRICT with nothing allowed. Never here: signatures, files, judgements.

mod text;

use bytes::Bytes;
use cortex_core::id::{Generation, Revision};
use cortex_core::limits::POLICY_BYTES_MAX;
use cortex_core::name::printable;
use cortex_core::policy::{Bounds, Document, Policy};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use serde::{Deserialize, Serialize};

use text::BoundsText;
pub use text::{
    ArgRuleText, ArgsText, DocumentText, LimitsText, NetworkText, ProgramText, RootText, SensitiveText,
    ShapeText, root_path,
};

/// The version of the text that this build reads and writes.
pub const VERSION: u32 = 2;

/// What is signed before the bytes of a policy, so that a signature of the authority means this.
pub const SIGNED: &[u8] = b"cortex policy 2\0";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    version: u32,
    node: String,
    revision: u64,
    generation: u64,
    profile: String,
    changed_at_ms: i64,
    document: DocumentText,
}

/// The bytes of a policy in a store of that generation.
///
/// # Errors
/// `policy_invalid` when it may not be set, or is longer than [`POLICY_BYTES_MAX`].
pub fn write(policy: &Policy, generation: Generation) -> Result<Bytes, Refusal> {
    policy.document.check()?;
    let text = PolicyText {
        version: VERSION,
        node: policy.node.to_string(),
        revision: policy.revision.0,
        generation: generation.0,
        profile: policy.profile.clone(),
        changed_at_ms: policy.changed_at.0,
        document: DocumentText::from(&policy.document),
    };
    let bytes = serde_json::to_vec(&text).map_err(|error| unreadable("The policy", &error))?;
    bounded(&bytes)?;
    Ok(bytes.into())
}

/// What the bytes of a policy say, and of which generation it is.
///
/// # Errors
/// `policy_invalid`.
pub fn read(bytes: &[u8]) -> Result<(Policy, Generation), Refusal> {
    bounded(bytes)?;
    let text: PolicyText = serde_json::from_slice(bytes).map_err(|error| unreadable("The policy", &error))?;
    check_version("The policy", text.version)?;
    let document = Document::try_from(text.document)?;
    let policy = Policy {
        node: text.node.parse().map_err(|_| invalid("`node` is not an id."))?,
        revision: Revision(text.revision),
        profile: printable(&text.profile, cortex_core::limits::NAME_BYTES_MAX),
        document,
        changed_at: WallTime(text.changed_at_ms),
    };
    Ok((policy, Generation(text.generation)))
}

/// The text of a document alone, as people read and write it.
///
/// # Errors
/// `policy_invalid` when it may not be set, or is longer than [`POLICY_BYTES_MAX`].
pub fn write_document(document: &Document) -> Result<Bytes, Refusal> {
    document.check()?;
    let text = DocumentText::from(document);
    let bytes = serde_json::to_vec_pretty(&text).map_err(|error| unreadable("The document", &error))?;
    bounded(&bytes)?;
    Ok(bytes.into())
}

/// A document from its text. What it leaves out is as in a STRICT policy with nothing allowed.
///
/// # Errors
/// `policy_invalid`.
pub fn read_document(bytes: &[u8]) -> Result<Document, Refusal> {
    bounded(bytes)?;
    // A list would be read by the order of the fields, which nobody means.
    if first_byte(bytes) != Some(b'{') {
        return Err(invalid("The document is not a JSON object."));
    }
    let text: DocumentText =
        serde_json::from_slice(bytes).map_err(|error| unreadable("The document", &error))?;
    Document::try_from(text)
}

/// One ceiling file, or a list of them as a node tells them.
///
/// # Errors
/// `policy_invalid`.
pub fn read_ceilings(bytes: &[u8]) -> Result<Vec<Bounds>, Refusal> {
    bounded(bytes)?;
    let what = "The ceiling";
    let is_list = first_byte(bytes) == Some(b'[');
    let texts: Vec<BoundsText> = if is_list {
        serde_json::from_slice(bytes).map_err(|error| unreadable(what, &error))?
    } else {
        vec![serde_json::from_slice(bytes).map_err(|error| unreadable(what, &error))?]
    };
    texts.into_iter().map(Bounds::try_from).collect()
}

/// A list of ceiling files as one text; `None` for none.
pub fn join_ceilings(texts: &[String]) -> Option<String> {
    match texts {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(","))),
    }
}

fn first_byte(bytes: &[u8]) -> Option<u8> {
    bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

fn check_version(what: &str, version: u32) -> Result<(), Refusal> {
    if version == VERSION {
        return Ok(());
    }
    Err(invalid(format!("{what} has version {version}; this build reads {VERSION}.")))
}

fn bounded(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() <= POLICY_BYTES_MAX {
        return Ok(());
    }
    Err(invalid(format!("The text has {} bytes; the bound is {POLICY_BYTES_MAX}.", bytes.len())))
}

fn unreadable(what: &str, error: &serde_json::Error) -> Refusal {
    invalid(format!("{what} cannot be read: {}.", printable(&error.to_string(), 300)))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::PolicyInvalid, message)
}

#[cfg(test)]
mod tests {
    use cortex_core::id::NodeId;
    use cortex_core::policy::{ArgRule, Args, Effect, PROFILES, Program, Sensitive, Shape};
    use cortex_core::sandbox::{Access, Level, Network, Root, RootPath};

    use super::*;

    fn full() -> Document {
        let rule =
            |effect, shape, with: Option<&'static str>| ArgRule { effect, shape, with: with.map(Into::into) };
        let rules = vec![
            rule(Effect::Deny, Shape::Long("force".into()), Some("push")),
            rule(Effect::Ask, Shape::Short('f'), None),
            rule(Effect::Ask, Shape::Old('ü'), None),
            rule(Effect::Deny, Shape::Exact("\"x\n".into()), None),
            rule(Effect::Deny, Shape::Prefix("ext::".into()), None),
            rule(Effect::Deny, Shape::Lead("daemon".into()), None),
            rule(Effect::Ask, Shape::First(vec!["status".into()].into()), None),
        ];
        let mut document = Document::profile("dev").expect("built in");
        document.programs.push(Program {
            name: "zz".to_owned(),
            args: Args::Rules(rules),
            until: Some(WallTime(7)),
        });
        document.programs.push(Program { name: "zzz".to_owned(), args: Args::Any, until: None });
        document.deny.push("/bin/x y".to_owned());
        let absolute = RootPath::Absolute("/srv/a b".to_owned());
        document.roots.push(Root { path: absolute, access: Access::Write, exec: false });
        document.sensitive.push(Sensitive { program: "*".to_owned(), words: vec!["prod*".to_owned()] });
        document.sandbox = Level::Full;
        document.limits.files = Some(u64::MAX);
        document
    }

    fn policy(document: Document) -> Policy {
        let node = NodeId::mint(1, &[1; 10]);
        Policy {
            node,
            revision: Revision(u64::MAX),
            profile: "own-1".to_owned(),
            document,
            changed_at: WallTime(-5),
        }
    }

    #[test]
    fn every_document_is_read_back_as_it_was_written() {
        let documents = PROFILES.iter().map(|name| Document::profile(name).expect("built in"));
        for document in documents.chain([full()]) {
            let policy = policy(document.clone());
            let bytes = write(&policy, Generation(3)).expect("it may be set");
            assert_eq!(read(&bytes), Ok((policy, Generation(3))));
            let text = write_document(&document).expect("it may be set");
            assert_eq!(read_document(&text), Ok(document));
        }
    }

    #[test]
    fn what_is_left_out_of_a_document_is_strict_and_allows_nothing() {
        let document = read_document(b"{}").expect("a document");
        let strict = Document::strict();
        assert_eq!(document.programs, vec![]);
        assert_eq!((document.mode, document.network), (strict.mode, Network::None));
        assert_eq!((document.always_denied, document.sandbox), (strict.always_denied, Level::Kernel));
    }

    #[test]
    fn a_text_with_anything_unknown_is_refused() {
        for text in [
            "",
            "[]",
            "null",
            r#"{"mode":"open"}"#,
            r#"{"mode":"PERMISSIVE"}"#,
            r#"{"modes":"strict"}"#,
            r#"{"mode":"strict","mode":"permissive"}"#,
            r#"{"sandbox":"none"}"#,
            r#"{"sandbox":"most"}"#,
            r#"{"network":"some"}"#,
            r#"{"network":{"hosts":["a"]}}"#,
            r#"{"network":{"ports":[70000]}}"#,
            r#"{"programs":[{"name":"a","args":"some"}]}"#,
            r#"{"programs":[{"name":"a","args":{"rules":[{"effect":"allow","match":{"short":"c"}}]}}]}"#,
            r#"{"programs":[{"name":"a","args":{"rules":[{"effect":"deny","match":{"regex":".*"}}]}}]}"#,
            r#"{"programs":[{"name":"a"},{"name":"a"}]}"#,
            r#"{"roots":[{"path":"/","access":"read"}]}"#,
            r#"{"roots":[{"path":"srv","access":"read"}]}"#,
            r#"{"roots":[{"path":"~/../x","access":"read"}]}"#,
            r#"{"roots":[{"path":"/srv","access":"all"}]}"#,
            r#"{"limits":{"memory":1}}"#,
            r#"{"timeout_ms_max":0}"#,
        ] {
            let refusal = read_document(text.as_bytes()).expect_err(text);
            assert_eq!(refusal.code, Code::PolicyInvalid, "{text}");
        }
        let long = format!("{{\"deny\":[\"{}\"]}}", "x".repeat(POLICY_BYTES_MAX));
        assert!(read_document(long.as_bytes()).expect_err("long").message.contains("the bound is"));
    }

    #[test]
    fn a_policy_of_another_version_is_refused() {
        let bytes = write(&policy(Document::strict()), Generation(1)).expect("it may be set");
        let text = String::from_utf8(bytes.to_vec()).expect("JSON");
        for version in ["1", "3", "\"2\""] {
            let other = text.replacen("\"version\":2", &format!("\"version\":{version}"), 1);
            assert_eq!(read(other.as_bytes()).expect_err(version).code, Code::PolicyInvalid);
        }
    }

    #[test]
    fn a_ceiling_bounds_what_it_names_and_nothing_else() {
        let [bounds] =
            &read_ceilings(br#" {"version":2,"deny":["rm"],"network":"none"}"#).expect("a ceiling")[..]
        else {
            panic!("one ceiling")
        };
        assert_eq!((bounds.deny.as_slice(), &bounds.network), (&["rm".to_owned()][..], &Some(Network::None)));
        assert_eq!((&bounds.programs, &bounds.roots, bounds.mode), (&None, &None, None));
        let two = join_ceilings(&["{}".to_owned(), r#"{"mode":"strict"}"#.to_owned()]).expect("two");
        assert_eq!(read_ceilings(two.as_bytes()).expect("two").len(), 2);
        for text in [
            "",
            "{\"denny\":[]}",
            "{\"version\":1}",
            "[{},{\"x\":1}]",
            "{\"roots\":[{\"path\":\"x\",\"access\":\"read\"}]}",
        ] {
            assert_eq!(read_ceilings(text.as_bytes()).expect_err(text).code, Code::PolicyInvalid);
        }
    }
}
