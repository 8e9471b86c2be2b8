//! What a change of a policy does, in words for people: for the audit log, for `policy diff`, and
//! before `policy set`.

use cortex_core::name::printable;
use cortex_core::policy::{Args, Document, Policy, Program, Sensitive};
use cortex_core::sandbox::{Level, Limits, Network, Root, RootPath};
use cortex_core::time::WallTime;
use cortex_core::words::count;

/// One thing that changes.
enum Word {
    /// `mode STRICT -> PERMISSIVE`, and what that means.
    Turns { what: &'static str, from: String, to: String, meaning: &'static str },
    /// What comes to a list and what goes from it.
    List { what: &'static str, added: Vec<String>, removed: Vec<String> },
}

/// What a change did, in one line:
/// `revision 1 -> 2; mode STRICT -> PERMISSIVE; allow +cargo (for 3600 s) -ls`.
pub(super) fn sentence(before: &Policy, after: &Policy) -> String {
    let mut words = vec![format!("revision {} -> {}", before.revision, after.revision)];
    if before.profile != after.profile {
        words.push(format!("profile {} -> {}", before.profile, after.profile));
    }
    for word in changes(&before.document, &after.document, after.changed_at) {
        words.push(match word {
            Word::Turns { what, from, to, .. } => format!("{what} {from} -> {to}"),
            Word::List { what, added, removed } => {
                let added = added.iter().map(|item| format!(" +{item}"));
                let removed = removed.iter().map(|item| format!(" -{item}"));
                format!("{what}{}", added.chain(removed).collect::<String>())
            }
        });
    }
    words.join("; ")
}

/// What a change would do, as lines that begin with `+`, `-`, `!` or `=`.
pub(super) fn lines(before: &Document, after: &Document, now: WallTime) -> Vec<String> {
    let mut lines = Vec::new();
    for word in changes(before, after, now) {
        match word {
            Word::Turns { what, from, to, meaning } => {
                lines.push(format!("! {what} {from} → {to}{meaning}"));
            }
            Word::List { what, added, removed } => {
                for (sign, items) in [("+", added), ("-", removed)] {
                    if !items.is_empty() {
                        lines.push(format!("{sign} {what} {}", items.join(" ")));
                    }
                }
            }
        }
    }
    if lines.is_empty() {
        lines.push("= no difference".to_owned());
    }
    lines
}

fn changes(before: &Document, after: &Document, now: WallTime) -> Vec<Word> {
    let mode = |document: &Document| document.mode.as_str().to_uppercase();
    let permissive = ": everything runs that is not denied, without walls";
    let meaning = if mode(after) == "PERMISSIVE" { permissive } else { "" };
    let lower = if after.sandbox < before.sandbox { ": lower walls" } else { "" };
    let plain = |item: &String| printable(item, 80);
    let level = |level: Level| level.as_str().to_owned();
    let seconds = |document: &Document| format!("{} s", document.timeout_ms_max / 1000);
    let words = [
        turns("mode", mode(before), mode(after), meaning),
        turns("sandbox", level(before.sandbox), level(after.sandbox), lower),
        turns("network", network(&before.network), network(&after.network), ""),
        list("allow", &before.programs, &after.programs, |one| program(one, now)),
        list("deny", &before.deny, &after.deny, plain),
        list("always denied", &before.always_denied, &after.always_denied, plain),
        list("env", &before.env, &after.env, plain),
        list("roots", &before.roots, &after.roots, root),
        turns("longest run", seconds(before), seconds(after), ""),
        turns("limits", limits(&before.limits), limits(&after.limits), ""),
        list("sensitive", &before.sensitive, &after.sensitive, sensitive),
    ];
    words.into_iter().flatten().collect()
}

fn turns(what: &'static str, from: String, to: String, meaning: &'static str) -> Option<Word> {
    (from != to).then_some(Word::Turns { what, from, to, meaning })
}

/// Compares the items, not their words: these are cut short, and do not tell one rule from another.
fn list<T: PartialEq>(
    what: &'static str,
    before: &[T],
    after: &[T],
    word: impl Fn(&T) -> String,
) -> Option<Word> {
    let only = |these: &[T], those: &[T]| {
        let mut words: Vec<String> = these.iter().filter(|one| !those.contains(one)).map(&word).collect();
        words.sort();
        words
    };
    let (added, removed) = (only(after, before), only(before, after));
    (!added.is_empty() || !removed.is_empty()).then_some(Word::List { what, added, removed })
}

fn program(program: &Program, now: WallTime) -> String {
    let name = printable(&program.name, 80);
    let args = match &program.args {
        Args::Known => String::new(),
        Args::Any => ", any arguments".to_owned(),
        Args::Rules(rules) => format!(", {}", count(rules.len(), "rule", "rules")),
    };
    let time = match program.until {
        Some(end) if end > now => format!(", for {} s", end.0.saturating_sub(now.0) / 1000),
        Some(_) => ", ended".to_owned(),
        None => String::new(),
    };
    let more = args + &time;
    match more.strip_prefix(", ") {
        Some(more) => format!("{name} ({more})"),
        None => name,
    }
}

fn root(root: &Root) -> String {
    let path = match &root.path {
        RootPath::Absolute(path) => printable(path, 200),
        RootPath::Home(below) => format!("~/{}", printable(below, 200)),
        RootPath::Work => "work".to_owned(),
    };
    format!("{path}:{}{}", root.access.as_str(), if root.exec { "+exec" } else { "" })
}

fn network(network: &Network) -> String {
    match network {
        Network::None => "none".to_owned(),
        Network::All => "all".to_owned(),
        Network::Ports(ports) => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!("ports {}", ports.join(","))
        }
    }
}

fn limits(limits: &Limits) -> String {
    let Limits { memory_bytes, processes, output_bytes, files, file_bytes } = *limits;
    let all = [
        ("memory", memory_bytes),
        ("processes", processes.map(u64::from)),
        ("output", output_bytes),
        ("files", files),
        ("file size", file_bytes),
    ];
    let set: Vec<String> =
        all.iter().filter_map(|(name, bound)| bound.map(|bound| format!("{name} {bound}"))).collect();
    if set.is_empty() { "none".to_owned() } else { set.join(", ") }
}

fn sensitive(one: &Sensitive) -> String {
    let words = one.words.iter().map(|word| format!(" {}", printable(word, 40)));
    format!("`{}{}`", printable(&one.program, 80), words.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> Document {
        Document::profile(name).expect("built in")
    }

    #[test]
    fn the_difference_names_what_is_gained_and_what_is_lost() {
        let between = |a: &str, b: &str| lines(&profile(a), &profile(b), WallTime(0)).join("\n");
        let wider = between("strict", "ci");
        assert!(
            wider.contains("+ allow") && wider.contains("cargo") && !wider.contains("- allow"),
            "{wider}"
        );
        assert!(wider.contains("+ roots work:write+exec ~/.cargo/bin:read+exec"), "{wider}");
        let narrower = between("dev", "strict");
        assert!(narrower.contains("- allow") && !narrower.contains("+ allow"), "{narrower}");
        assert!(narrower.contains("! network ports 53,443 → none"), "{narrower}");
        assert_eq!(between("ci", "ci"), "= no difference");
    }

    #[test]
    fn another_rule_and_the_end_of_a_long_name_are_a_difference_too() {
        let ruled = |letter: &str| {
            let text = format!(
                r#"{{"programs": [{{"name": "git", "args": {{"rules": [{{"effect": "deny", "match": {{"short": "{letter}"}}}}]}}}}]}}"#
            );
            cortex_wire::policy::read_document(text.as_bytes()).expect("a document")
        };
        let [before, after] = ["c", "x"].map(ruled);
        assert_ne!(lines(&before, &after, WallTime(0)), ["= no difference"]);
        let denied =
            |end: &str| Document { deny: vec![format!("/{}{end}", "x".repeat(90))], ..profile("strict") };
        assert_ne!(lines(&denied("a"), &denied("b"), WallTime(0)), ["= no difference"]);
        assert_eq!(lines(&denied("a"), &denied("a"), WallTime(0)), ["= no difference"]);
    }

    #[test]
    fn permissive_and_lower_walls_are_called_by_name_and_meaning() {
        let lines = lines(&profile("strict"), &profile("permissive"), WallTime(0)).join("\n");
        assert!(lines.contains("! mode STRICT → PERMISSIVE: everything runs"), "{lines}");
        assert!(lines.contains("! sandbox kernel → none: lower walls"), "{lines}");
    }
}
