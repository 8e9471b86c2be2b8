//! Operations and answers as bytes, as a node and the processes that work for it pass them to each other:
//! the same messages, and so the same checks, as on the link.

use cortex_core::Refusal;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::op::FileOp;
use cortex_core::id::OpId;
use prost::Message as _;

use super::{answer, missing, op, op_id_from};
use crate::mesh;

/// An operation under its id.
pub fn op_to_bytes(id: OpId, operation: FileOp) -> Vec<u8> {
    let op = Some(op::op_into(operation));
    mesh::FileAsk { op_id: super::op_into(id), op, ..mesh::FileAsk::default() }.encode_to_vec()
}

/// Reads it back.
///
/// # Errors
/// As for one that came over the link.
pub fn op_from_bytes(bytes: &[u8]) -> Result<(OpId, FileOp), Refusal> {
    let ask = mesh::FileAsk::decode(bytes).map_err(|_| missing("file_ask"))?;
    let operation = op::op_from(ask.op.ok_or_else(|| missing("file_ask.op"))?)?;
    operation.check()?;
    Ok((op_id_from(&ask.op_id)?, operation))
}

/// What came of an operation.
pub fn answer_to_bytes(id: OpId, answer: Result<FileAnswer, Refusal>) -> Vec<u8> {
    answer::answer_into(id, answer).encode_to_vec()
}

/// Reads it back, for the operation of this id.
///
/// # Errors
/// `invalid_argument` for what is no answer to it.
pub fn answer_from_bytes(id: OpId, bytes: &[u8]) -> Result<Result<FileAnswer, Refusal>, Refusal> {
    let message = mesh::FileAnswer::decode(bytes).map_err(|_| missing("file_answer"))?;
    let (answered, answer) = answer::answer_from(message)?;
    if answered == id { Ok(answer) } else { Err(missing("file_answer.op_id")) }
}
