//! Watches: protobuf ⇄ core. A sight that this build does not know is a watch that failed: nothing is hoped
//! from it, and the folder is looked at.

use bytes::Bytes;
use cortex_core::Refusal;
use cortex_core::files::path::FilePath;
use cortex_core::id::WatchId;
use cortex_core::watch::{Blind, Sight, WatchAsk, WatchNews};

use super::missing;
use super::transfer::{filters_from, filters_into};
use crate::mesh::{self, WatchSight};

/// A watch, for the wire.
pub(super) fn ask_into(ask: WatchAsk) -> mesh::Watch {
    mesh::Watch {
        watch_id: id_into(ask.id),
        path: ask.path.as_str().to_owned(),
        filters: Some(filters_into(ask.filters)),
    }
}

/// A watch, from the wire.
///
/// # Errors
/// `bad_path`, `too_large` and `invalid_argument`.
pub(super) fn ask_from(ask: mesh::Watch) -> Result<WatchAsk, Refusal> {
    let filters = filters_from(ask.filters.ok_or_else(|| missing("watch.filters"))?);
    filters.check()?;
    Ok(WatchAsk { id: id_from(&ask.watch_id)?, path: FilePath::parse(&ask.path)?, filters })
}

/// News of one, for the wire.
pub(super) fn news_into(news: WatchNews) -> mesh::WatchNews {
    mesh::WatchNews { watch_id: id_into(news.id), sight: sight_into(news.sight).into() }
}

/// News of one, from the wire.
///
/// # Errors
/// `invalid_argument`.
pub(super) fn news_from(news: &mesh::WatchNews) -> Result<WatchNews, Refusal> {
    Ok(WatchNews { id: id_from(&news.watch_id)?, sight: sight_from(news.sight) })
}

/// A watch as bytes, for the process that watches.
pub fn ask_to_bytes(ask: WatchAsk) -> Vec<u8> {
    use prost::Message as _;
    ask_into(ask).encode_to_vec()
}

/// Reads it back.
///
/// # Errors
/// As for one that came over the link.
pub fn ask_from_bytes(bytes: &[u8]) -> Result<WatchAsk, Refusal> {
    use prost::Message as _;
    ask_from(mesh::Watch::decode(bytes).map_err(|_| missing("watch"))?)
}

/// News as bytes, from the process that watches.
pub fn news_to_bytes(news: WatchNews) -> Vec<u8> {
    use prost::Message as _;
    news_into(news).encode_to_vec()
}

/// Reads them back.
///
/// # Errors
/// `invalid_argument` for what is none.
pub fn news_from_bytes(bytes: &[u8]) -> Result<WatchNews, Refusal> {
    use prost::Message as _;
    news_from(&mesh::WatchNews::decode(bytes).map_err(|_| missing("watch_news"))?)
}

const fn sight_into(sight: Sight) -> WatchSight {
    match sight {
        Sight::Watching => WatchSight::Watching,
        Sight::Changed => WatchSight::Changed,
        Sight::Blind(Blind::Limit) => WatchSight::Limit,
        Sight::Blind(Blind::Overflow) => WatchSight::Overflow,
        Sight::Blind(Blind::Failed) => WatchSight::Failed,
        Sight::Blind(Blind::Denied) => WatchSight::Denied,
        Sight::Blind(Blind::Many) => WatchSight::Many,
        Sight::Blind(Blind::Moved) => WatchSight::Moved,
        Sight::Blind(Blind::Remote) => WatchSight::Remote,
        Sight::Blind(Blind::Ended) => WatchSight::Ended,
    }
}

fn sight_from(sight: i32) -> Sight {
    match WatchSight::try_from(sight) {
        Ok(WatchSight::Watching) => Sight::Watching,
        Ok(WatchSight::Changed) => Sight::Changed,
        Ok(WatchSight::Limit) => Sight::Blind(Blind::Limit),
        Ok(WatchSight::Overflow) => Sight::Blind(Blind::Overflow),
        Ok(WatchSight::Denied) => Sight::Blind(Blind::Denied),
        Ok(WatchSight::Many) => Sight::Blind(Blind::Many),
        Ok(WatchSight::Moved) => Sight::Blind(Blind::Moved),
        Ok(WatchSight::Remote) => Sight::Blind(Blind::Remote),
        Ok(WatchSight::Ended) => Sight::Blind(Blind::Ended),
        Ok(WatchSight::Failed | WatchSight::Unspecified) | Err(_) => Sight::Blind(Blind::Failed),
    }
}

/// For the wire.
pub(super) fn id_into(id: WatchId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// From the wire.
pub(super) fn id_from(bytes: &[u8]) -> Result<WatchId, Refusal> {
    WatchId::from_slice(bytes).ok_or_else(|| missing("watch_id (16 bytes)"))
}

#[cfg(test)]
mod tests {
    use cortex_core::Code;
    use cortex_core::id::Epoch;
    use cortex_core::limits::EXCLUDES_MAX;
    use cortex_core::message::{Envelope, ToHub, ToNode};
    use cortex_core::transfer::Filters;
    use prost::Message as _;

    use super::*;
    use crate::convert::{to_hub_from_proto, to_hub_into_proto, to_node_from_proto, to_node_into_proto};

    fn at_the_node(message: ToNode) -> Result<ToNode, Refusal> {
        let bytes = to_node_into_proto(Envelope { epoch: Epoch(3), message }).encode_to_vec();
        let response = mesh::AttachResponse::decode(bytes.as_slice()).expect("our own bytes");
        to_node_from_proto(response).map(|envelope| envelope.expect("known").message)
    }

    fn at_the_hub(message: ToHub) -> Result<ToHub, Refusal> {
        let bytes = to_hub_into_proto(Envelope { epoch: Epoch(3), message }).encode_to_vec();
        let request = mesh::AttachRequest::decode(bytes.as_slice()).expect("our own bytes");
        to_hub_from_proto(request).map(|envelope| envelope.expect("known").message)
    }

    fn ask() -> WatchAsk {
        let filters =
            Filters { exclude: vec!["target/".to_owned(), "*.مؤقت".to_owned()], ..Filters::default() };
        WatchAsk {
            id: WatchId::mint(7, &[9; 10]),
            path: FilePath::parse("/srv/مشروع").expect("a path"),
            filters,
        }
    }

    #[test]
    fn a_watch_and_its_end_survive_the_wire_and_the_pipe() {
        let messages = [ToNode::Watch(Box::new(ask())), ToNode::Unwatch { id: ask().id }];
        for message in messages {
            assert_eq!(at_the_node(message.clone()), Ok(message));
        }
        assert_eq!(ask_from_bytes(&ask_to_bytes(ask())), Ok(ask()));
    }

    #[test]
    fn whatever_is_seen_survives_the_wire_and_the_pipe() {
        let blind = Blind::ALL.map(Sight::Blind);
        for sight in blind.into_iter().chain([Sight::Watching, Sight::Changed]) {
            let news = WatchNews { id: ask().id, sight };
            assert_eq!(at_the_hub(ToHub::WatchNews(news)), Ok(ToHub::WatchNews(news)));
            assert_eq!(news_from_bytes(&news_to_bytes(news)), Ok(news));
        }
    }

    #[test]
    fn what_is_no_watch_is_refused_and_a_sight_of_a_later_version_is_none() {
        let wire = ask_into(ask());
        let code = |watch| ask_from(watch).err().map(|refusal| refusal.code);
        assert_eq!(code(wire.clone()), None);
        assert_eq!(code(mesh::Watch { watch_id: Bytes::new(), ..wire.clone() }), Some(Code::InvalidArgument));
        assert_eq!(code(mesh::Watch { path: "a/../b".to_owned(), ..wire.clone() }), Some(Code::BadPath));
        assert_eq!(code(mesh::Watch { filters: None, ..wire.clone() }), Some(Code::InvalidArgument));
        let filters = Filters { exclude: vec!["x".to_owned(); EXCLUDES_MAX + 1], ..Filters::default() };
        assert_eq!(code(mesh::Watch { filters: Some(filters_into(filters)), ..wire }), Some(Code::TooLarge));
        for sight in [0, 11, 99, -1] {
            let news = mesh::WatchNews { watch_id: id_into(ask().id), sight };
            assert_eq!(news_from(&news).map(|news| news.sight), Ok(Sight::Blind(Blind::Failed)));
        }
        assert!(news_from(&mesh::WatchNews { watch_id: Bytes::from_static(b"x"), sight: 1 }).is_err());
    }
}
