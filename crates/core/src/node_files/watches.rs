//! Folders that are watched for the hub. Nothing of it is kept: the link that asked ends all of it. Of each
//! folder at most one news waits, whatever happens there.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, NodeFiles};
use crate::id::WatchId;
use crate::limits::WATCHES_MAX;
use crate::message::ToHub;
use crate::node_runs::Gate;
use crate::watch::{Blind, Sight, WatchAsk, WatchNews};

/// Watches, and what is not told yet.
#[derive(Debug, Default)]
pub(super) struct Watches {
    open: BTreeSet<WatchId>,
    news: BTreeMap<WatchId, Sight>,
}

impl NodeFiles {
    pub(super) fn handle_watch(&mut self, ask: WatchAsk, gate: &Gate<'_>) {
        let id = ask.id;
        // What was told of the one before says nothing of this one.
        self.watches.news.remove(&id);
        if !self.watches.open.contains(&id) && self.watches.open.len() >= WATCHES_MAX {
            return self.tell_watch(id, Sight::Blind(Blind::Many));
        }
        match gate.judge_watch(&ask.path, &self.reserved) {
            Ok(leave) => {
                self.watches.open.insert(id);
                self.actions.push_back(Action::Watch { ask: Box::new(ask), leave: Box::new(leave) });
            }
            Err(_refusal) => {
                self.unwatch(id);
                self.tell_watch(id, Sight::Blind(Blind::Denied));
            }
        }
    }

    pub(super) fn handle_unwatch(&mut self, id: WatchId) {
        self.watches.news.remove(&id);
        self.unwatch(id);
    }

    /// What is seen of a folder. Of one that is not watched nothing is told.
    pub fn watched(&mut self, id: WatchId, sight: Sight) {
        if !self.watches.open.contains(&id) {
            return;
        }
        if matches!(sight, Sight::Blind(_)) {
            self.watches.open.remove(&id);
        }
        self.tell_watch(id, sight);
    }

    /// All watches end, and that is told: another policy holds, or whoever watched is gone.
    pub fn end_watches(&mut self) {
        for id in std::mem::take(&mut self.watches.open) {
            self.actions.push_back(Action::Unwatch(id));
            self.tell_watch(id, Sight::Blind(Blind::Ended));
        }
    }

    /// The next news of a folder, when there is room on the link.
    pub fn poll_watch_news(&mut self) -> Option<ToHub> {
        let (id, sight) = self.watches.news.pop_first()?;
        Some(ToHub::WatchNews(WatchNews { id, sight }))
    }

    /// Folders that are watched.
    pub fn watches(&self) -> usize {
        self.watches.open.len()
    }

    /// The link is gone, and whoever would hear of it.
    pub(super) fn drop_watches(&mut self) {
        self.watches.news.clear();
        for id in std::mem::take(&mut self.watches.open) {
            self.actions.push_back(Action::Unwatch(id));
        }
    }

    fn unwatch(&mut self, id: WatchId) {
        if self.watches.open.remove(&id) {
            self.actions.push_back(Action::Unwatch(id));
        }
    }

    fn tell_watch(&mut self, id: WatchId, sight: Sight) {
        let news = &mut self.watches.news;
        // A hub that asks for more and more and does not read is told no more than that.
        if !self.linked || (news.len() >= 2 * WATCHES_MAX && !news.contains_key(&id)) {
            return;
        }
        let told = news.get(&id).map_or(sight, |earlier| sight.after(*earlier));
        news.insert(id, told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::path::FilePath;
    use crate::id::{Epoch, Generation, NodeId};
    use crate::message::{Envelope, ToNode, Welcome};
    use crate::node_runs::NodeRuns;
    use crate::policy::{Document, Policy};
    use crate::sandbox::{Access, Ground, Level, Place, Root, RootPath};
    use crate::time::{Timestamp, WallTime};
    use crate::transfer::Filters;

    const T0: Timestamp = Timestamp(0);

    /// A node whose policy gives `/w`.
    fn node() -> (NodeRuns, NodeFiles) {
        let mut runs = NodeRuns::restore(Generation(0), Epoch(0), []);
        let place = Place { home: "/home/u".into(), work: vec!["/w".into()] };
        runs.stand_on(Ground { place, level: Some(Level::Full) });
        let roots = vec![Root { path: RootPath::Absolute("/w".into()), access: Access::Read, exec: false }];
        let strict = Policy::strict(NodeId::mint(1, &[1; 10]), WallTime(0));
        let policy = Policy { document: Document { roots, ..strict.document.clone() }, ..strict };
        let welcome =
            Welcome { generation: Generation(1), name: "n1".into(), policy: policy.into(), audit_head: None };
        runs.handle(Envelope { epoch: Epoch(1), message: ToNode::Welcome(welcome) }, T0);
        let mut files = NodeFiles::new();
        files.welcomed();
        (runs, files)
    }

    fn id(n: u8) -> WatchId {
        WatchId::mint(1, &[n; 10])
    }

    fn hear(node: &mut (NodeRuns, NodeFiles), message: ToNode) -> Vec<String> {
        let gate = node.0.gate(Epoch(1)).expect("its own epoch");
        node.1.handle(message, &gate, T0);
        says(&mut node.1)
    }

    fn says(files: &mut NodeFiles) -> Vec<String> {
        let said = |action| {
            if let Action::Watch { ask, leave } = action {
                return format!("watch {} in {}", ask.path, leave.reach[0].root);
            }
            assert!(matches!(action, Action::Unwatch(_)), "{action:?}");
            "unwatch".to_owned()
        };
        std::iter::from_fn(|| files.poll_action()).map(said).collect()
    }

    fn watch(n: u8, path: &str) -> ToNode {
        let path = FilePath::parse(path).expect("a path");
        ToNode::Watch(Box::new(WatchAsk { id: id(n), path, filters: Filters::default() }))
    }

    fn news(files: &mut NodeFiles) -> Vec<(WatchId, Sight)> {
        std::iter::from_fn(|| {
            let told = files.poll_watch_news()?;
            let ToHub::WatchNews(news) = told else { panic!("{told:?}") };
            Some((news.id, news.sight))
        })
        .collect()
    }

    #[test]
    fn a_folder_is_watched_as_far_as_the_policy_gives_it_and_told_of_once_however_much_happens() {
        let mut node = node();
        assert_eq!(hear(&mut node, watch(1, "/etc/x")), [""; 0]);
        assert_eq!(news(&mut node.1), [(id(1), Sight::Blind(Blind::Denied))]);
        assert_eq!(hear(&mut node, watch(2, "/w/مشروع")), ["watch /w/مشروع in /w"]);
        for sight in [Sight::Watching, Sight::Changed, Sight::Changed] {
            node.1.watched(id(2), sight);
        }
        assert_eq!(news(&mut node.1), [(id(2), Sight::Watching)]);
        (0..100).for_each(|_| node.1.watched(id(2), Sight::Changed));
        assert_eq!(news(&mut node.1), [(id(2), Sight::Changed)]);
        node.1.watched(id(2), Sight::Blind(Blind::Overflow));
        node.1.watched(id(2), Sight::Changed);
        assert_eq!(news(&mut node.1), [(id(2), Sight::Blind(Blind::Overflow))], "it is not watched any more");
        assert_eq!((node.1.watches(), says(&mut node.1)), (0, vec![]));
    }

    #[test]
    fn a_second_one_of_an_id_replaces_the_first_and_what_is_not_wanted_is_told_no_more() {
        let mut node = node();
        hear(&mut node, watch(1, "/w/a"));
        node.1.watched(id(1), Sight::Watching);
        assert_eq!(hear(&mut node, watch(1, "/w/b")), ["watch /w/b in /w"]);
        assert_eq!(news(&mut node.1), [], "of /w/a nothing is told");
        // One that the policy does not give replaces it as well.
        assert_eq!(hear(&mut node, watch(1, "/etc")), ["unwatch"]);
        assert_eq!(news(&mut node.1), [(id(1), Sight::Blind(Blind::Denied))]);
        hear(&mut node, watch(2, "/w/c"));
        node.1.watched(id(2), Sight::Changed);
        assert_eq!(hear(&mut node, ToNode::Unwatch { id: id(2) }), ["unwatch"]);
        assert_eq!(hear(&mut node, ToNode::Unwatch { id: id(2) }), [""; 0], "twice is once");
        node.1.watched(id(2), Sight::Changed);
        assert_eq!((news(&mut node.1), node.1.watches()), (vec![], 0));
    }

    #[test]
    fn the_end_of_a_link_ends_them_in_silence_and_that_of_the_policy_is_told() {
        let mut node = node();
        hear(&mut node, watch(1, "/w/a"));
        hear(&mut node, watch(2, "/w/b"));
        node.1.watched(id(1), Sight::Watching);
        node.1.end_watches();
        assert_eq!(says(&mut node.1), ["unwatch", "unwatch"]);
        let ended = Sight::Blind(Blind::Ended);
        assert_eq!(news(&mut node.1), [(id(1), ended), (id(2), ended)]);
        hear(&mut node, watch(1, "/w/a"));
        node.1.watched(id(1), Sight::Watching);
        node.1.disconnected();
        assert_eq!(says(&mut node.1), ["unwatch"]);
        node.1.welcomed();
        assert_eq!((news(&mut node.1), node.1.watches()), (vec![], 0));
    }

    #[test]
    fn more_than_a_node_watches_are_told_so_and_a_hub_that_asks_on_fills_nothing() {
        let mut node = node();
        let ask = |node: &mut (NodeRuns, NodeFiles), n: usize| {
            let ToNode::Watch(ask) = watch(0, "/w/a") else { unreachable!() };
            let id = WatchId::mint(u64::try_from(n).expect("small"), &[0; 10]);
            hear(node, ToNode::Watch(Box::new(WatchAsk { id, ..*ask }))).len()
        };
        let begun: usize = (0..WATCHES_MAX * 5).map(|n| ask(&mut node, n)).sum();
        assert_eq!((begun, node.1.watches()), (WATCHES_MAX, WATCHES_MAX));
        let told = news(&mut node.1);
        assert!(told.iter().all(|(_, sight)| *sight == Sight::Blind(Blind::Many)));
        assert_eq!(told.len(), 2 * WATCHES_MAX);
        assert_eq!(ask(&mut node, 0), 1, "one that is watched may be asked for again");
    }
}
