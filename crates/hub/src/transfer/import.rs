//! The content of a push on its way: what nodes ask for, what the caller was asked for, what came.
//!
//! Nothing of a tree is asked of its caller before a node lacks it, and nothing twice. A node is given only
//! what came in this very push: to know a hash is no way to content. Never here: content itself, sockets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use cortex_core::files::content::ContentId;

use super::spool::PackNo;

/// Number of a node within its push.
pub(crate) type Seat = usize;

/// What an asked-for id is, at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It came, and can be sent out of this pack.
    Here(Held),
    /// The caller is asked for it, and the node told when it comes.
    Awaited,
    /// The caller said that it cannot give it.
    Missing,
}

/// Where a chunk is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The pack that brought it.
    pub(crate) pack: PackNo,
    /// Its plain bytes.
    pub(crate) len: u32,
}

/// The content of one push. Its memory is that of the ids that came, and of what its nodes have open.
#[derive(Debug, Default)]
pub(crate) struct Import {
    came: HashMap<ContentId, Held>,
    missing: HashSet<ContentId>,
    /// What nodes wait for.
    awaited: HashMap<ContentId, Awaited>,
    /// Of that what the caller was not asked for, oldest first. An entry that is not awaited, or
    /// was asked for, is passed over.
    unasked: VecDeque<ContentId>,
    /// In which order the caller was asked.
    asked: BTreeMap<u64, ContentId>,
    turn: u64,
}

#[derive(Debug)]
struct Awaited {
    by: BTreeSet<Seat>,
    /// Its turn, once the caller was asked.
    asked: Option<u64>,
}

impl Import {
    /// A node asks for it.
    pub(crate) fn want(&mut self, seat: Seat, id: ContentId) -> Found {
        if let Some(held) = self.came.get(&id) {
            return Found::Here(*held);
        }
        if self.missing.contains(&id) {
            return Found::Missing;
        }
        let unasked = &mut self.unasked;
        let awaited = self.awaited.entry(id).or_insert_with(|| {
            unasked.push_back(id);
            Awaited { by: BTreeSet::new(), asked: None }
        });
        awaited.by.insert(seat);
        Found::Awaited
    }

    /// What the caller is to send next: at most so many ids.
    pub(crate) fn ask(&mut self, ids_max: usize) -> Vec<ContentId> {
        let mut batch = Vec::new();
        while batch.len() < ids_max {
            let Some(id) = self.unasked.pop_front() else { break };
            if let Some(awaited) = self.awaited.get_mut(&id).filter(|awaited| awaited.asked.is_none()) {
                awaited.asked = Some(self.turn);
                self.asked.insert(self.turn, id);
                self.turn += 1;
                batch.push(id);
            }
        }
        batch
    }

    /// The caller lost what it was asked for: it is asked again, in the same order.
    pub(crate) fn ask_again(&mut self) {
        for (_, id) in std::mem::take(&mut self.asked).into_iter().rev() {
            if let Some(awaited) = self.awaited.get_mut(&id) {
                awaited.asked = None;
                self.unasked.push_front(id);
            }
        }
    }

    /// Whether a node waits for something that the caller was asked for, or would be if it asked.
    pub(crate) fn owes(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Where something that came is held.
    pub(crate) fn held(&self, id: &ContentId) -> Option<Held> {
        self.came.get(id).copied()
    }

    /// Whether anybody waits for it.
    pub(crate) fn is_awaited(&self, id: &ContentId) -> bool {
        self.awaited.contains_key(id)
    }

    /// A pack is forgotten: what it held counts as not come.
    pub(crate) fn forget(&mut self, pack: PackNo, ids: impl Iterator<Item = ContentId>) {
        for id in ids {
            if self.came.get(&id).is_some_and(|held| held.pack == pack) {
                self.came.remove(&id);
            }
        }
    }

    /// Something came and is held: who waits for it. What came before stays where it is held.
    pub(crate) fn came(&mut self, id: ContentId, held: Held) -> BTreeSet<Seat> {
        self.came.entry(id).or_insert(held);
        self.missing.remove(&id);
        self.over(&id)
    }

    /// The caller cannot give something: who waits for it.
    pub(crate) fn missing(&mut self, id: ContentId) -> BTreeSet<Seat> {
        let waiting = self.over(&id);
        if !waiting.is_empty() {
            self.missing.insert(id);
        }
        waiting
    }

    /// A node has its end: what it alone waited for is not asked for any more.
    pub(crate) fn leave(&mut self, seat: Seat) {
        let Self { awaited, asked, .. } = self;
        awaited.retain(|_, one| {
            one.by.remove(&seat);
            if one.by.is_empty()
                && let Some(turn) = one.asked
            {
                asked.remove(&turn);
            }
            !one.by.is_empty()
        });
        self.unasked.retain(|id| self.awaited.contains_key(id));
    }

    fn over(&mut self, id: &ContentId) -> BTreeSet<Seat> {
        let Some(awaited) = self.awaited.remove(id) else { return BTreeSet::new() };
        if let Some(turn) = awaited.asked {
            self.asked.remove(&turn);
        }
        awaited.by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Held = Held { pack: 0, len: 1 };

    fn id(number: u8) -> ContentId {
        ContentId::of(&[number])
    }

    #[test]
    fn what_two_nodes_lack_is_asked_for_once_and_told_to_both() {
        let mut import = Import::default();
        assert_eq!(import.want(0, id(1)), Found::Awaited);
        assert_eq!(import.want(1, id(1)), Found::Awaited);
        assert_eq!(import.want(1, id(2)), Found::Awaited);
        assert_eq!(import.ask(10), [id(1), id(2)]);
        assert_eq!(import.ask(10), []);
        assert!(import.owes());
        assert_eq!(import.came(id(1), HELD), BTreeSet::from([0, 1]));
        assert_eq!(import.came(id(2), HELD), BTreeSet::from([1]));
        assert_eq!((import.want(2, id(1)), import.owes()), (Found::Here(HELD), false));
    }

    #[test]
    fn a_batch_has_so_many_ids_and_the_next_goes_on_behind_it() {
        let mut import = Import::default();
        for number in 0..5 {
            import.want(0, id(number));
        }
        assert_eq!(import.ask(2), [id(0), id(1)]);
        assert_eq!(import.ask(10), [id(2), id(3), id(4)]);
        assert_eq!(import.ask(10), []);
    }

    #[test]
    fn what_a_caller_lost_is_asked_for_again_in_the_same_order_but_not_what_came() {
        let mut import = Import::default();
        for number in 0..4 {
            import.want(0, id(number));
        }
        assert_eq!(import.ask(3), [id(0), id(1), id(2)]);
        import.came(id(1), HELD);
        import.ask_again();
        assert_eq!(import.ask(10), [id(0), id(2), id(3)]);
    }

    #[test]
    fn a_node_that_leaves_takes_along_what_it_alone_waited_for() {
        let mut import = Import::default();
        import.want(0, id(1));
        import.want(0, id(2));
        import.want(1, id(2));
        assert_eq!(import.ask(1), [id(1)]);
        import.leave(0);
        assert!(import.asked.is_empty(), "nobody waits for it");
        assert_eq!(import.ask(10), [id(2)]);
        assert_eq!(import.came(id(1), HELD), BTreeSet::new(), "it comes late, and is kept");
        assert_eq!(import.want(1, id(1)), Found::Here(HELD));
        import.leave(1);
        assert!(
            !import.owes()
                && import.awaited.is_empty()
                && import.unasked.is_empty()
                && import.asked.is_empty()
        );
    }

    #[test]
    fn what_a_caller_cannot_give_is_told_to_who_waits_and_to_who_asks_later() {
        let mut import = Import::default();
        import.want(0, id(1));
        import.ask(1);
        assert_eq!(import.missing(id(1)), BTreeSet::from([0]));
        assert_eq!(import.missing(id(7)), BTreeSet::new(), "nobody asked for it");
        assert_eq!(import.want(1, id(1)), Found::Missing);
        assert_eq!(import.want(1, id(7)), Found::Awaited);
        import.came(id(1), HELD);
        assert_eq!(import.want(1, id(1)), Found::Here(HELD));
    }

    #[test]
    fn what_a_forgotten_pack_held_is_asked_for_again_unless_another_holds_it() {
        let mut import = Import::default();
        import.came(id(1), HELD);
        import.came(id(2), Held { pack: 1, ..HELD });
        import.came(id(2), HELD);
        import.forget(0, [id(1), id(2)].into_iter());
        assert_eq!(import.want(0, id(1)), Found::Awaited);
        assert_eq!(import.want(0, id(2)), Found::Here(Held { pack: 1, ..HELD }));
    }
}
