//! Where a push goes: `NODE[,NODE]:DEST`, or `SEL:DEST` behind `-l`.

use cortex_core::files::path::FilePath;
use cortex_core::name::printable;

use crate::cli::args;
use crate::error::{Failure, Result};

/// Nodes, and a path on each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Names or ids.
    pub(super) nodes: Vec<String>,
    /// Labels instead.
    pub(super) labels: Option<String>,
    /// The path, without a `/` at its end.
    pub(super) path: String,
    /// It ended with a `/`: what is pushed goes into that folder, under its own name.
    pub(super) is_into: bool,
}

/// Where a single file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileTarget {
    /// The folder.
    pub(super) folder: String,
    /// Its name there.
    pub(super) name: String,
}

impl Target {
    /// From the arguments: the one that has both nodes and path, and the one of `-l`.
    pub(super) fn parse(nodes: Option<&str>, selector: Option<&str>) -> Result<Self> {
        let (nodes, labels, path) = match (nodes, selector) {
            (Some(text), None) => {
                let (nodes, path) = split(text, "NODE:DEST", "build-2:/srv/app")?;
                (args::nodes(nodes)?, None, path)
            }
            (None, Some(text)) => {
                let (labels, path) = split(text, "SEL:DEST", "role=ci:/srv/app")?;
                let labels = args::selector(labels).map_err(|why| {
                    Failure::usage(
                        format!("`{}`: {why}.", printable(text, 200)),
                        "Write it as `-l role=ci:/srv/app`.",
                    )
                })?;
                (Vec::new(), Some(labels), path)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(Failure::usage(
                    "The push goes either to named nodes or to those with some labels.",
                    "Write `cortex push SRC NODE:DEST`, or `cortex push SRC -l role=ci:DEST`.",
                ));
            }
        };
        let bare = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
        FilePath::parse(bare)?;
        Ok(Self { nodes, labels, path: bare.to_owned(), is_into: path.ends_with('/') })
    }

    /// For a file that is called so here.
    pub(super) fn of_file(&self, name: &str) -> Result<FileTarget> {
        if self.is_into {
            return Ok(FileTarget { folder: self.path.clone(), name: name.to_owned() });
        }
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let folder = if folder.is_empty() { "/" } else { folder };
        Ok(FileTarget { folder: folder.to_owned(), name: name.to_owned() })
    }

    /// The same at one node, as an argument.
    pub(super) fn at(&self, node: &str) -> String {
        let slash = if self.is_into && self.path != "/" { "/" } else { "" };
        format!("{node}:{}{slash}", self.path)
    }
}

/// At the colon in front of the path: neither names of nodes nor labels have a `:/`.
fn split<'a>(text: &'a str, form: &str, example: &str) -> Result<(&'a str, &'a str)> {
    let shown = printable(text, 200);
    if let Some(at) = text.find(":/").filter(|at| *at > 0 && !text[..*at].contains('/')) {
        return Ok((&text[..at], &text[at + 1..]));
    }
    Err(match text.split_once(':') {
        Some((who, _)) if !who.is_empty() && !who.contains('/') => Failure::usage(
            format!("The path of `{shown}` does not begin at the top of the node's disk."),
            format!("Write the whole path, such as `{example}`; a node has no current folder and no `~`."),
        ),
        Some(_) | None => Failure::usage(
            format!("`{shown}` does not say both where to and which path there."),
            format!("Write it as {form}, such as `{example}`; `cortex node ls` shows names and labels."),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Result<(Vec<String>, String, bool)> {
        Target::parse(Some(text), None).map(|target| (target.nodes, target.path, target.is_into))
    }

    #[test]
    fn nodes_and_a_whole_path_are_taken_apart_at_the_first_colon() {
        for (text, nodes, path, is_into) in [
            ("a:/x", &["a"][..], "/x", false),
            ("a,b, a:/srv/مجلد", &["a", "b"], "/srv/مجلد", false),
            ("a:/x/", &["a"], "/x", true),
            ("a:/", &["a"], "/", true),
            ("a:/x y:/z", &["a"], "/x y:/z", false),
        ] {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            assert_eq!(named(text), Ok((nodes, path.to_owned(), is_into)), "{text}");
        }
        for (text, hint) in [
            ("", "NODE:DEST"),
            ("a", "NODE:DEST"),
            ("/srv/x", "NODE:DEST"),
            (":/x", "NODE:DEST"),
            ("/x:/y", "NODE:DEST"),
            ("a:x", "`build-2:/srv/app`"),
            ("a:~/x", "no `~`"),
            (" , :/x", "Name one"),
            ("a:/x/../y", "path"),
        ] {
            let failure = named(text).expect_err(text);
            assert_eq!(failure.exit(), 2, "{text}");
            assert!(format!("{failure:?}").contains(hint), "{text}: {failure:?}");
        }
    }

    #[test]
    fn labels_are_no_names_and_one_of_both_is_needed() {
        let target = Target::parse(None, Some("role=ci,os=linux:/srv/app")).expect("labels");
        assert_eq!((target.labels.as_deref(), target.nodes.len()), (Some("role=ci,os=linux"), 0));
        for (nodes, labels) in
            [(None, None), (Some("a:/x"), Some("role=ci:/x")), (None, Some("role=ci")), (None, Some(":/x"))]
        {
            assert_eq!(Target::parse(nodes, labels).expect_err("neither").exit(), 2, "{nodes:?} {labels:?}");
        }
    }

    #[test]
    fn a_file_gets_the_name_of_the_target_and_behind_a_slash_its_own() {
        for (text, folder, name) in [
            ("a:/etc/app.conf", "/etc", "app.conf"),
            ("a:/etc/", "/etc", "ملف"),
            ("a:/x", "/", "x"),
            ("a:/", "/", "ملف"),
        ] {
            let target = Target::parse(Some(text), None).expect("a target");
            let expected = FileTarget { folder: folder.into(), name: name.into() };
            assert_eq!(target.of_file("ملف"), Ok(expected), "{text}");
            assert_eq!(target.at("a"), text);
        }
    }
}
