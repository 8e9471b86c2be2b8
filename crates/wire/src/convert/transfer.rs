//! Transfers: protobuf ⇄ core. Every length and every count is bounded here; an unknown enum value or a
//! missing member is refused.

mod carry;
mod end;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use cortex_core::files::ask::Ticket;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::FilePath;
use cortex_core::id::{Epoch, LockEpoch, Revision, TransferId, WorkspaceId};
use cortex_core::sync::{DeleteLimits, HaltId, Mode, Push};
use cortex_core::transfer::{ApplyAsk, Filters, SendAsk, TransferAsk, TransferNews, TransferWork};
use cortex_core::workspace::RootIdentity;
use cortex_core::{Refusal, limits};

pub use carry::{carry_from_bytes, carry_to_bytes};
pub(super) use end::{news_from, news_into};

use super::files::id_if_set;
use super::{missing, refusal_from, refusal_into, task_from};
use crate::mesh;
use crate::mesh::apply_ask::Mode as WireMode;
use crate::mesh::transfer_ask::Work;
use crate::mesh::transfer_request::Message as FromNode;
use crate::mesh::transfer_response::Message as FromHub;

/// What a node sends on a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// First: which transfer.
    Open {
        /// The ticket.
        ticket: Ticket,
        /// Of the link by which it came.
        epoch: Epoch,
    },
    /// One frame, not looked into; at most [`limits::CARRY_BYTES_MAX`].
    Frame(Bytes),
    /// Why it ends.
    Refused(Refusal),
}

/// What the hub sends on a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// One frame, not looked into; at most [`limits::CARRY_BYTES_MAX`].
    Frame(Bytes),
    /// Why it ends.
    Refused(Refusal),
}

/// For the wire.
pub fn sent_into(sent: Sent) -> mesh::TransferRequest {
    let message = match sent {
        Sent::Open { ticket, epoch } => {
            let ticket = Bytes::copy_from_slice(ticket.as_bytes());
            FromNode::Open(mesh::TransferOpen { ticket, epoch: epoch.0 })
        }
        Sent::Frame(frame) => FromNode::Frame(frame),
        Sent::Refused(refusal) => FromNode::Refusal(refusal_into(&refusal)),
    };
    mesh::TransferRequest { message: Some(message) }
}

/// From the wire; `None` when this build does not know it.
///
/// # Errors
/// `invalid_argument`.
pub fn sent_from(request: mesh::TransferRequest) -> Result<Option<Sent>, Refusal> {
    let sent = match request.message {
        None => return Ok(None),
        Some(FromNode::Open(open)) => Sent::Open {
            ticket: Ticket::from_slice(&open.ticket).ok_or_else(|| missing("open.ticket (16 bytes)"))?,
            epoch: Epoch(open.epoch),
        },
        Some(FromNode::Frame(frame)) => Sent::Frame(bounded(frame)?),
        Some(FromNode::Refusal(refusal)) => Sent::Refused(super::files::refused_from(refusal)),
    };
    Ok(Some(sent))
}

/// For the wire.
pub fn given_into(given: Given) -> mesh::TransferResponse {
    let message = match given {
        Given::Frame(frame) => FromHub::Frame(frame),
        Given::Refused(refusal) => FromHub::Refusal(refusal_into(&refusal)),
    };
    mesh::TransferResponse { message: Some(message) }
}

/// From the wire; `None` when this build does not know it.
///
/// # Errors
/// `invalid_argument`.
pub fn given_from(response: mesh::TransferResponse) -> Result<Option<Given>, Refusal> {
    let given = match response.message {
        None => return Ok(None),
        Some(FromHub::Frame(frame)) => Given::Frame(bounded(frame)?),
        Some(FromHub::Refusal(refusal)) => Given::Refused(refusal_from(refusal)),
    };
    Ok(Some(given))
}

fn bounded(frame: Bytes) -> Result<Bytes, Refusal> {
    if (1..=limits::CARRY_BYTES_MAX).contains(&frame.len()) {
        Ok(frame)
    } else {
        Err(missing("frame (1 to 278,528 bytes)"))
    }
}

/// A transfer, for the wire.
pub(super) fn ask_into(ask: TransferAsk) -> mesh::TransferAsk {
    let (task_id, attempt) = ask
        .attempt
        .map(|(task, attempt)| (Bytes::copy_from_slice(task.as_bytes()), attempt.0))
        .unwrap_or_default();
    let (workspace_id, lock_epoch) = ask
        .lock
        .map(|(workspace, epoch)| (Bytes::copy_from_slice(workspace.as_bytes()), epoch.0))
        .unwrap_or_default();
    let work = match ask.work {
        TransferWork::Apply(ask) => Work::Apply(apply_into(*ask)),
        TransferWork::Send(ask) => Work::Send(send_into(*ask)),
    };
    mesh::TransferAsk {
        transfer_id: id_into(ask.id),
        ticket: Bytes::copy_from_slice(ask.ticket.as_bytes()),
        work: Some(work),
        caller: ask.caller,
        policy_revision: ask.policy_revision.0,
        task_id,
        attempt,
        workspace_id,
        lock_epoch,
        deadline_ms: ask.deadline_ms,
        traceparent: ask.traceparent,
    }
}

/// A transfer, from the wire.
///
/// # Errors
/// As [`TransferWork::check`], `bad_path`, and `invalid_argument`.
pub(super) fn ask_from(ask: mesh::TransferAsk) -> Result<TransferAsk, Refusal> {
    if !(1..=limits::TRANSFER_MS_MAX).contains(&ask.deadline_ms) {
        return Err(missing("transfer_ask.deadline_ms (1 to 86,400,000)"));
    }
    let work = match ask.work.ok_or_else(|| missing("transfer_ask.work"))? {
        Work::Apply(ask) => TransferWork::Apply(Box::new(apply_from(ask)?)),
        Work::Send(ask) => TransferWork::Send(Box::new(send_from(ask)?)),
    };
    work.check()?;
    Ok(TransferAsk {
        id: id_from(&ask.transfer_id)?,
        ticket: Ticket::from_slice(&ask.ticket).ok_or_else(|| missing("transfer_ask.ticket (16 bytes)"))?,
        work,
        caller: ask.caller,
        policy_revision: Revision(ask.policy_revision),
        attempt: task_from(&ask.task_id, ask.attempt)?,
        lock: id_if_set(&ask.workspace_id, WorkspaceId::from_slice, "transfer_ask.workspace_id (16 bytes)")?
            .map(|workspace| (workspace, LockEpoch(ask.lock_epoch))),
        deadline_ms: ask.deadline_ms,
        traceparent: ask.traceparent,
    })
}

/// What a job of a clerk is about, as bytes.
pub fn work_to_bytes(work: TransferWork) -> Vec<u8> {
    use prost::Message as _;
    let work = match work {
        TransferWork::Apply(ask) => Work::Apply(apply_into(*ask)),
        TransferWork::Send(ask) => Work::Send(send_into(*ask)),
    };
    mesh::TransferAsk { work: Some(work), ..mesh::TransferAsk::default() }.encode_to_vec()
}

/// Reads it back.
///
/// # Errors
/// As for one that came over the link.
pub fn work_from_bytes(bytes: &[u8]) -> Result<TransferWork, Refusal> {
    use prost::Message as _;
    let ask = mesh::TransferAsk::decode(bytes).map_err(|_| missing("transfer_ask"))?;
    let work = match ask.work.ok_or_else(|| missing("transfer_ask.work"))? {
        Work::Apply(ask) => TransferWork::Apply(Box::new(apply_from(ask)?)),
        Work::Send(ask) => TransferWork::Send(Box::new(send_from(ask)?)),
    };
    work.check()?;
    Ok(work)
}

/// What is told of a transfer, as bytes.
pub fn news_to_bytes(news: TransferNews) -> Vec<u8> {
    use prost::Message as _;
    news_into(news).encode_to_vec()
}

/// Reads it back, for the transfer of this id.
///
/// # Errors
/// `invalid_argument` for what is none of it.
pub fn news_from_bytes(id: TransferId, bytes: &[u8]) -> Result<TransferNews, Refusal> {
    use prost::Message as _;
    let news = mesh::TransferNews::decode(bytes).map_err(|_| missing("transfer_news"))?;
    let news = news_from(news)?;
    if news.id == id { Ok(news) } else { Err(missing("transfer_news.transfer_id")) }
}

fn apply_into(ask: ApplyAsk) -> mesh::ApplyAsk {
    let DeleteLimits { files, percent, percent_from } = ask.limits;
    mesh::ApplyAsk {
        dest: ask.dest.as_str().to_owned(),
        target: tree_into(ask.target),
        base: ask.base.map(tree_into),
        // One that does not write the node passes no check; it is sent as none.
        mode: match ask.mode {
            Mode::TwoWay => Some(WireMode::TwoWay(true)),
            Mode::FromHub { repair } => Some(WireMode::FromHub(repair)),
            Mode::Merge | Mode::FromNode => None,
            Mode::Push(Push { first, force, delete }) => {
                Some(WireMode::Push(mesh::Push { first, force, delete }))
            }
        },
        limits: Some(mesh::DeleteLimits { files, percent, percent_from }),
        accepted: ask.accepted.map(|halt| hash_into(halt.hash())),
        filters: Some(filters_into(ask.filters)),
        checksum: ask.checksum,
        dry_run: ask.dry_run,
        read_only: ask.read_only,
        node_name: ask.node_name,
        revision: ask.revision.0,
        only: ask.only,
        identity: ask.identity.map(identity_into),
    }
}

fn apply_from(ask: mesh::ApplyAsk) -> Result<ApplyAsk, Refusal> {
    let mode = match ask.mode.ok_or_else(|| missing("apply_ask.mode"))? {
        WireMode::TwoWay(true) => Mode::TwoWay,
        WireMode::TwoWay(false) => return Err(missing("apply_ask.two_way")),
        WireMode::FromHub(repair) => Mode::FromHub { repair },
        WireMode::Push(mesh::Push { first, force, delete }) => Mode::Push(Push { first, force, delete }),
    };
    let limits = ask.limits.ok_or_else(|| missing("apply_ask.limits"))?;
    Ok(ApplyAsk {
        dest: FilePath::parse(&ask.dest)?,
        target: tree_from(&ask.target)?,
        base: tree_if_set(ask.base.as_ref())?,
        mode,
        limits: DeleteLimits {
            files: limits.files,
            percent: limits.percent,
            percent_from: limits.percent_from,
        },
        accepted: ask.accepted.map(|halt| hash_from(&halt)).transpose()?.map(HaltId::new),
        filters: filters_from(ask.filters.ok_or_else(|| missing("apply_ask.filters"))?),
        checksum: ask.checksum,
        dry_run: ask.dry_run,
        read_only: ask.read_only,
        node_name: ask.node_name,
        revision: Revision(ask.revision),
        only: ask.only,
        identity: ask.identity.map(identity_from).transpose()?,
    })
}

fn send_into(ask: SendAsk) -> mesh::SendAsk {
    mesh::SendAsk {
        source: ask.source.as_str().to_owned(),
        base: ask.base.map(tree_into),
        filters: Some(filters_into(ask.filters)),
        checksum: ask.checksum,
        only: ask.only,
        mark: ask.mark,
        identity: ask.identity.map(identity_into),
    }
}

fn send_from(ask: mesh::SendAsk) -> Result<SendAsk, Refusal> {
    Ok(SendAsk {
        source: FilePath::parse(&ask.source)?,
        base: tree_if_set(ask.base.as_ref())?,
        filters: filters_from(ask.filters.ok_or_else(|| missing("send_ask.filters"))?),
        checksum: ask.checksum,
        only: ask.only,
        mark: ask.mark,
        identity: ask.identity.map(identity_from).transpose()?,
    })
}

fn identity_into(identity: RootIdentity) -> mesh::RootIdentity {
    let RootIdentity { marker, dev, ino } = identity;
    mesh::RootIdentity { marker: Bytes::copy_from_slice(&marker), dev, ino }
}

fn identity_from(identity: mesh::RootIdentity) -> Result<RootIdentity, Refusal> {
    let mesh::RootIdentity { marker, dev, ino } = identity;
    let marker = marker[..].try_into().map_err(|_| missing("identity.marker (32 bytes)"))?;
    Ok(RootIdentity { marker, dev, ino })
}

pub(super) fn filters_into(filters: Filters) -> mesh::Filters {
    let Filters { exclude, ignore_files, vcs, links_outside } = filters;
    mesh::Filters { exclude, ignore_files, vcs, links_outside }
}

pub(super) fn filters_from(filters: mesh::Filters) -> Filters {
    let mesh::Filters { exclude, ignore_files, vcs, links_outside } = filters;
    Filters { exclude, ignore_files, vcs, links_outside }
}

pub(super) fn id_into(id: TransferId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(super) fn id_from(bytes: &[u8]) -> Result<TransferId, Refusal> {
    TransferId::from_slice(bytes).ok_or_else(|| missing("transfer_id (16 bytes)"))
}

fn tree_into(id: TreeId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn tree_from(bytes: &[u8]) -> Result<TreeId, Refusal> {
    TreeId::from_slice(bytes).ok_or_else(|| missing("a tree's id (32 bytes)"))
}

fn tree_if_set(bytes: Option<&Bytes>) -> Result<Option<TreeId>, Refusal> {
    bytes.map(|bytes| tree_from(bytes)).transpose()
}

fn hash_into(id: ContentId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn hash_from(bytes: &[u8]) -> Result<ContentId, Refusal> {
    ContentId::from_slice(bytes).ok_or_else(|| missing("an id (32 bytes)"))
}
