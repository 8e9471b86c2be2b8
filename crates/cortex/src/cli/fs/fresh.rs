//! Whose answer it is: what the hub's copy of a folder says is said to come from there, with its age.

use cortex_core::name::printable;
use cortex_wire::http::FreshView;

use super::Query;
use crate::cli::args::age;
use crate::output::Output;

/// Who is to answer.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct From {
    /// Ask the hub's copy of the workspace that the path lies in, and not the node. While the node is away, the
    /// copy answers anyway.
    #[arg(long)]
    mirror: bool,
}

impl From {
    /// The address with who is to answer.
    pub(super) fn on(self, url: Query) -> Query {
        url.maybe("from", self.mirror.then_some("mirror"))
    }
}

/// Says that an answer is not the node's, and how old it is.
pub(super) fn say(output: Output, fresh: &FreshView) {
    if let Some(words) = words(fresh) {
        output.say(&words);
    }
}

fn words(fresh: &FreshView) -> Option<String> {
    if fresh.from != "mirror" {
        return None;
    }
    let revision = fresh.revision.unwrap_or_default();
    let age = age(Some(&fresh.verified_at));
    let told = if fresh.differs {
        format!("the folder was seen to be another one since, {age}")
    } else {
        format!("compared with the node's folder {age}")
    };
    Some(format!("This is the hub's copy at revision {revision}, {told}."))
}

/// What the header of an answer says; `None` of one by the node, or by a hub that says it in another way.
pub(super) fn of_header(text: &str) -> Option<FreshView> {
    let mut parts = text.split(';').map(str::trim);
    let from = parts.next().filter(|from| *from == "mirror")?.to_owned();
    let (mut revision, mut verified_at, mut differs) = (None, None, false);
    for part in parts {
        match part.split_once('=') {
            Some(("revision", number)) => revision = number.parse().ok(),
            Some(("verified_at", moment)) => verified_at = Some(printable(moment.trim_matches('"'), 40)),
            None if part == "differs" => differs = true,
            Some(_) | None => {}
        }
    }
    Some(FreshView { from, verified_at: verified_at?, revision, differs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_as_one_with_its_age_and_a_node_is_not_told_of() {
        let header = "mirror; revision=7; verified_at=\"1970-01-01T00:00:00.000Z\"; differs";
        let fresh = of_header(header).expect("a copy");
        assert_eq!((fresh.revision, fresh.differs), (Some(7), true));
        let told = words(&fresh).expect("it is told");
        assert!(told.starts_with("This is the hub's copy at revision 7, the folder was seen"), "{told}");
        let fresh = of_header(&header.replace("; differs", "")).expect("a copy");
        let told = words(&fresh).expect("it is told");
        assert!(told.contains("compared with the node's folder") && told.ends_with("ago."), "{told}");
        for text in ["node", "", "mirror", "mirror; revision=7"] {
            assert_eq!(of_header(text), None, "{text}");
        }
        let node = FreshView { from: "node".to_owned(), ..fresh };
        assert_eq!(words(&node), None);
    }
}
