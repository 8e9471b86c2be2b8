//! One frame of a transfer as bytes. Clerks speak with the hub in these, and the node between them does
//! not look into them.

use bytes::{Bytes, BytesMut};
use cortex_core::files::content::ContentId;
use cortex_core::sync::{RootState, SideCounts};
use cortex_core::transfer::{Carry, DataEnd, LeftOut, Phase, Progress, TreeTold};
use cortex_core::{Refusal, limits};
use prost::Message as _;

use super::end::{end_from, end_into, note_into, notes_from};
use super::{hash_from, hash_into, identity_from, identity_into, tree_from, tree_into};
use crate::convert::files::refused_from;
use crate::convert::{missing, refusal_into};
use crate::mesh;
use crate::mesh::carry::Is;

/// Bytes of one id.
const ID_BYTES: usize = 32;

/// For the wire.
pub fn carry_to_bytes(carry: Carry) -> Bytes {
    let is = match carry {
        Carry::Tree(tree) => Is::Tree(mesh::TreeTold {
            root: tree_into(tree.root),
            state: state_into(tree.state).into(),
            files: tree.counts.files,
            root_entries: tree.counts.root_entries,
            entries: tree.entries,
            bytes: tree.bytes,
            identity: tree.identity.map(identity_into),
            left_out: left_out_into(tree.left_out),
        }),
        Carry::Held(notes) => Is::Held(mesh::PathNotes { notes: notes.into_iter().map(note_into).collect() }),
        Carry::Wants(ids) => Is::Wants(ids_into(&ids)),
        Carry::Pack(bytes) => Is::Pack(bytes),
        Carry::Missing(ids) => Is::Missing(ids_into(&ids)),
        Carry::Progress(progress) => Is::Progress(progress_into(progress)),
        Carry::End(end) => Is::End(end_into(*end)),
        Carry::Refused(refusal) => Is::Refusal(refusal_into(&refusal)),
        Carry::Data(bytes) => Is::Data(bytes),
        Carry::DataEnd(DataEnd { len, id }) => {
            Is::DataEnd(mesh::DataEnd { length: len, id: id.map(hash_into) })
        }
    };
    mesh::Carry { is: Some(is) }.encode_to_vec().into()
}

/// From the wire; `None` when this build does not know it. Content is not copied.
///
/// # Errors
/// `invalid_argument` for what cannot be read, and for what is beyond its bound.
pub fn carry_from_bytes(bytes: Bytes) -> Result<Option<Carry>, Refusal> {
    if bytes.len() > limits::CARRY_BYTES_MAX {
        return Err(missing("carry (at most 278,528 bytes)"));
    }
    let carry = mesh::Carry::decode(bytes).map_err(|_| missing("carry"))?;
    let Some(is) = carry.is else { return Ok(None) };
    let carry = match is {
        Is::Tree(tree) => Carry::Tree(TreeTold {
            root: tree_from(&tree.root)?,
            state: state_from(tree.state)?,
            counts: SideCounts { files: tree.files, root_entries: tree.root_entries },
            entries: tree.entries,
            bytes: tree.bytes,
            identity: tree.identity.map(identity_from).transpose()?,
            left_out: left_out_from(tree.left_out.unwrap_or_default()),
        }),
        Is::Held(mesh::PathNotes { notes }) if notes.is_empty() => return Err(missing("held.notes")),
        Is::Held(mesh::PathNotes { notes }) => Carry::Held(notes_from(notes)?),
        Is::Wants(ids) => Carry::Wants(ids_from(&ids)?),
        Is::Pack(bytes) => Carry::Pack(content(bytes)?),
        Is::Missing(ids) => Carry::Missing(ids_from(&ids)?),
        Is::Progress(progress) => Carry::Progress(progress_from(progress)?),
        Is::End(end) => Carry::End(Box::new(end_from(end)?)),
        Is::Refusal(refusal) => Carry::Refused(refused_from(refusal)),
        Is::Data(bytes) => Carry::Data(content(bytes)?),
        Is::DataEnd(end) => {
            Carry::DataEnd(DataEnd { len: end.length, id: end.id.map(|id| hash_from(&id)).transpose()? })
        }
    };
    Ok(Some(carry))
}

fn left_out_into(left_out: LeftOut) -> Option<mesh::LeftOut> {
    let LeftOut { unnamed, too_large, rules_unread, unreadable, unfit } = left_out;
    let told = mesh::LeftOut { unnamed, too_large, rules_unread, unreadable, unfit };
    (left_out != LeftOut::default()).then_some(told)
}

const fn left_out_from(told: mesh::LeftOut) -> LeftOut {
    let mesh::LeftOut { unnamed, too_large, rules_unread, unreadable, unfit } = told;
    LeftOut { unnamed, too_large, rules_unread, unreadable, unfit }
}

fn progress_into(progress: Progress) -> mesh::TransferProgress {
    let Progress { phase, files, files_total, bytes, bytes_total } = progress;
    let phase = match phase {
        Phase::Scanning => mesh::TransferPhase::Scanning,
        Phase::Moving => mesh::TransferPhase::Moving,
        Phase::Applying => mesh::TransferPhase::Applying,
    };
    mesh::TransferProgress { files, bytes, files_total, bytes_total, phase: phase.into() }
}

fn progress_from(progress: mesh::TransferProgress) -> Result<Progress, Refusal> {
    let mesh::TransferProgress { files, bytes, files_total, bytes_total, phase } = progress;
    let phase = match mesh::TransferPhase::try_from(phase) {
        Ok(mesh::TransferPhase::Scanning) => Phase::Scanning,
        Ok(mesh::TransferPhase::Moving) => Phase::Moving,
        Ok(mesh::TransferPhase::Applying) => Phase::Applying,
        Ok(mesh::TransferPhase::Unspecified) | Err(_) => return Err(missing("progress.phase")),
    };
    Ok(Progress { phase, files, files_total, bytes, bytes_total })
}

fn content(bytes: Bytes) -> Result<Bytes, Refusal> {
    if (1..=limits::CARRY_DATA_BYTES_MAX).contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(missing("content (1 to 262,144 bytes)"))
    }
}

fn ids_into(ids: &[ContentId]) -> mesh::Ids {
    let mut bytes = BytesMut::with_capacity(ids.len() * ID_BYTES);
    ids.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
    mesh::Ids { ids: bytes.freeze() }
}

fn ids_from(ids: &mesh::Ids) -> Result<Vec<ContentId>, Refusal> {
    let (ids, rest) = ids.ids.as_chunks::<ID_BYTES>();
    if !rest.is_empty() || !(1..=limits::WANTS_MAX).contains(&ids.len()) {
        return Err(missing("ids (1 to 4,096 of 32 bytes)"));
    }
    Ok(ids.iter().map(|id| ContentId::new(*id)).collect())
}

const fn state_into(state: RootState) -> mesh::RootState {
    match state {
        RootState::Dir => mesh::RootState::Dir,
        RootState::Missing => mesh::RootState::Missing,
        RootState::OtherKind => mesh::RootState::OtherKind,
        RootState::Unavailable => mesh::RootState::Unavailable,
    }
}

fn state_from(state: i32) -> Result<RootState, Refusal> {
    match mesh::RootState::try_from(state) {
        Ok(mesh::RootState::Dir) => Ok(RootState::Dir),
        Ok(mesh::RootState::Missing) => Ok(RootState::Missing),
        Ok(mesh::RootState::OtherKind) => Ok(RootState::OtherKind),
        Ok(mesh::RootState::Unavailable) => Ok(RootState::Unavailable),
        Ok(mesh::RootState::Unspecified) | Err(_) => Err(missing("tree.state")),
    }
}
