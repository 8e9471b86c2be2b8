//! Parts of the pool that stand still: nothing new is handed out there. A part that is drained gives back
//! what is worked on there, too, once its time is over.

use std::fmt;

use super::Kind;
use super::lane::LaneKey;
use crate::error::{Code, Refusal};
use crate::id::NodeId;
use crate::name::{Labels, Name, check_label, printable};
use crate::time::WallTime;

/// What stands still.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// One node.
    Node(NodeId),
    /// All nodes with this label.
    Label(String, String),
    /// All tasks of this kind.
    Kind(Kind),
}

impl Part {
    /// Whether it stops this node from getting anything.
    pub fn holds_node(&self, node: NodeId, labels: &Labels) -> bool {
        match self {
            Self::Node(held) => *held == node,
            Self::Label(key, value) => labels.get(key) == Some(value),
            Self::Kind(_) => false,
        }
    }

    /// Whether it stops tasks of this lane.
    pub fn holds_lane(&self, lane: &LaneKey) -> bool {
        match self {
            Self::Kind(kind) => *kind == lane.kind,
            Self::Node(_) | Self::Label(..) => false,
        }
    }

    /// Reads the stable text form, `node:<id>`, `label:role=ci` or `kind:resize`.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let unknown = || {
            let message = format!("`{}` is no part of the pool.", printable(text, 120));
            Refusal::new(Code::InvalidArgument, message)
                .hint("Name a node, `label:role=ci` or `kind:resize`.")
        };
        let (what, rest) = text.split_once(':').ok_or_else(unknown)?;
        match what {
            "node" => rest.parse().map(Self::Node).map_err(|_| unknown()),
            "label" => {
                let (key, value) = rest.split_once('=').ok_or_else(unknown)?;
                check_label(key, value)?;
                Ok(Self::Label(key.to_owned(), value.to_owned()))
            }
            "kind" if rest == Kind::COMMAND => Ok(Self::Kind(Kind::command())),
            "kind" => Name::parse(rest).and_then(Kind::payload).map(Self::Kind),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node:{node}"),
            Self::Label(key, value) => write!(f, "label:{key}={value}"),
            Self::Kind(kind) => write!(f, "kind:{}", kind.as_str()),
        }
    }
}

/// One pause as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// What stands still.
    pub part: Part,
    /// Who said so.
    pub by: String,
    /// When.
    pub since: WallTime,
    /// Why, for people.
    pub message: Option<String>,
    /// What is worked on there then is given back; `None`: it may end in its own time.
    pub drained_at: Option<WallTime>,
}

#[cfg(test)]
mod tests {
    use super::super::{Owner, Priority};
    use super::*;
    use crate::name::Selector;

    #[test]
    fn parts_are_read_back_and_others_are_refused_with_a_hint() {
        let node = NodeId::mint(1, &[1; 10]);
        for part in [
            Part::Node(node),
            Part::Label("role".into(), "ci".into()),
            Part::Kind(Kind::command()),
            Part::Kind(Kind::payload(Name::parse("resize").expect("a name")).expect("a kind")),
        ] {
            assert_eq!(Part::parse(&part.to_string()).expect("its own text"), part);
        }
        for text in ["", "node", "node:x", "label:role", "label:=x", "kind:", "owner:x", "kind:\u{202e}"] {
            assert_eq!(Part::parse(text).expect_err(text).code, Code::InvalidArgument);
        }
    }

    #[test]
    fn a_pause_holds_on_what_it_names_alone() {
        let (node, other) = (NodeId::mint(1, &[1; 10]), NodeId::mint(1, &[2; 10]));
        let labels = Labels::from([("role".to_owned(), "ci".to_owned())]);
        let lane = LaneKey {
            owner: Owner { token: None, user: None },
            kind: Kind::command(),
            priority: Priority::DEFAULT,
            selector: Selector::default(),
            prefer: Selector::default(),
            excluded: std::collections::BTreeSet::new(),
        };
        let part = |text: &str| Part::parse(text).expect("a part");
        let one = Part::Node(node);
        assert!(one.holds_node(node, &labels) && !one.holds_node(other, &labels) && !one.holds_lane(&lane));
        let labelled = part("label:role=ci");
        assert!(labelled.holds_node(other, &labels) && !labelled.holds_node(other, &Labels::new()));
        assert!(part("kind:command").holds_lane(&lane) && !part("kind:resize").holds_lane(&lane));
    }
}
