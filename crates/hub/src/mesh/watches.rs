//! Folders that nodes watch for the hub. Of each at most one word waits to be taken in, however much its node
//! tells; whoever wants it watched holds it as long as that.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use cortex_core::files::path::FilePath;
use cortex_core::id::{LinkId, NodeId, WatchId};
use cortex_core::limits::{PROTOCOL_WATCH, WATCHES_MAX};
use cortex_core::message::ToNode;
use cortex_core::transfer::Filters;
use cortex_core::watch::{Blind, Sight, WatchAsk, WatchNews};
use tokio::sync::{Notify, watch};

use super::link::Link;
use super::{Inner, Mesh, lock};
use crate::clock::new_watch_id;

/// Why a folder is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatched {
    /// Its node says why.
    Blind(Blind),
    /// Its node is of a version that watches nothing.
    Version,
}

impl Unwatched {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blind(why) => why.as_str(),
            Self::Version => "version",
        }
    }
}

/// What is told of one folder.
#[derive(Debug)]
pub(super) struct Seen {
    link: LinkId,
    told: Mutex<Told>,
    /// Woken by what is told.
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Told {
    /// Not taken in yet.
    news: Option<Sight>,
    is_watched: bool,
}

/// A folder that a node was asked to watch. Dropped, it is watched no more.
pub(crate) struct Watch {
    mesh: Arc<Inner>,
    key: (NodeId, WatchId),
    seen: Arc<Seen>,
}

impl Mesh {
    /// Asks a node to watch a folder; `wake` is woken by what it tells. The link that is here ends it.
    ///
    /// # Errors
    /// Why the node is not asked.
    pub(crate) fn watch(
        &self,
        node: NodeId,
        path: FilePath,
        filters: Filters,
        wake: &Arc<Notify>,
    ) -> Result<Watch, Unwatched> {
        let inner = &self.inner;
        inner.with_slot(node, |slot, state| {
            let asked = match &state.link {
                None => Err(Unwatched::Blind(Blind::Ended)),
                Some(link) if link.protocol() < PROTOCOL_WATCH => Err(Unwatched::Version),
                Some(link) => inner.begin_watch(link, path, filters, wake),
            };
            inner.act(slot, state);
            asked
        })
    }

    /// The node tells of a folder, on this link.
    pub fn watch_news(&self, link: &Link, WatchNews { id, sight }: WatchNews) {
        self.inner.watch_news.fetch_add(1, Ordering::Relaxed);
        let seen = lock(&self.inner.watches).get(&(link.node(), id)).cloned();
        // Of one that is not wanted any more something may still come.
        let Some(seen) = seen.filter(|seen| seen.link == link.id()) else { return };
        {
            let mut told = lock(&seen.told);
            told.news = Some(told.news.map_or(sight, |earlier| sight.after(earlier)));
            match sight {
                Sight::Watching => told.is_watched = true,
                Sight::Blind(_) => told.is_watched = false,
                Sight::Changed => {}
            }
        }
        seen.wake.notify_one();
    }

    /// Folders that are watched, and news of any since the start.
    pub fn watches(&self) -> (usize, u64) {
        let watches = lock(&self.inner.watches);
        let watched = watches.values().filter(|seen| lock(&seen.told).is_watched).count();
        (watched, self.inner.watch_news.load(Ordering::Relaxed))
    }

    /// How often the hub asked a node for a folder, or to bring one to a revision, by itself.
    pub fn folder_asks(&self) -> u64 {
        self.inner.folder_asks.load(Ordering::Relaxed)
    }

    /// Counts one of these.
    pub(crate) fn count_folder_ask(&self) {
        self.inner.folder_asks.fetch_add(1, Ordering::Relaxed);
    }

    /// Told whenever a node comes or goes.
    pub(crate) fn presence_changes(&self) -> watch::Receiver<()> {
        self.inner.came_or_went.subscribe()
    }
}

impl Inner {
    fn begin_watch(
        self: &Arc<Self>,
        link: &Link,
        path: FilePath,
        filters: Filters,
        wake: &Arc<Notify>,
    ) -> Result<Watch, Unwatched> {
        let (node, id) = (link.node(), new_watch_id(&self.context.clock));
        let told = Mutex::default();
        let seen = Arc::new(Seen { link: link.id(), told, wake: Arc::clone(wake) });
        {
            let mut watches = lock(&self.watches);
            let all = (node, WatchId::from_slice(&[0; 16]).unwrap_or(id))..;
            let here = watches.range(all).take_while(|((of, _), _)| *of == node);
            if here.filter(|(_, seen)| seen.link == link.id()).count() >= WATCHES_MAX {
                return Err(Unwatched::Blind(Blind::Many));
            }
            watches.insert((node, id), Arc::clone(&seen));
        }
        link.send(ToNode::Watch(Box::new(WatchAsk { id, path, filters })));
        Ok(Watch { mesh: Arc::clone(self), key: (node, id), seen })
    }
}

impl Watch {
    /// What was told since the last time.
    pub(crate) fn take(&self) -> Option<Sight> {
        lock(&self.seen.told).news.take()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (node, id) = self.key;
        lock(&self.mesh.watches).remove(&self.key);
        // With its link it has ended already.
        self.mesh.with_slot(node, |slot, state| {
            if let Some(link) = state.link.as_ref().filter(|link| link.id() == self.seen.link) {
                link.send(ToNode::Unwatch { id });
            }
            self.mesh.act(slot, state);
        });
    }
}
