//! The hash chain of the audit log: one definition, used by every store and by whoever verifies
//! an export. A row that was changed, removed, added or moved breaks the chain at its place.
//!
//! Never here: a decision what to do about a broken chain.

use cortex_core::audit::AuditRow;
use cortex_core::id::Seq;

use crate::LoggedAudit;

/// What stands in front of the first row.
pub const CHAIN_START: [u8; 32] = [0; 32];

/// The hash of row `seq`: blake3 over the hash of the row before, `seq`, and every field with its
/// length (eight bytes, little endian) in front. A field that is absent is one zero byte, a field
/// that is present is one byte 1 and then the field, so that `None` and an empty text differ. Token,
/// policy hash and consent follow when at least one of them is there.
pub fn chain_hash(previous: &[u8; 32], seq: Seq, row: &AuditRow) -> [u8; 32] {
    let mut chain = Chain(blake3::Hasher::new());
    chain.field(previous);
    chain.field(&seq.0.to_le_bytes());
    chain.field(&row.at.0.to_le_bytes());
    chain.field(row.actor.as_bytes());
    chain.field(row.action.as_bytes());
    chain.field(row.outcome.as_str().as_bytes());
    chain.optional(row.reason.as_deref().map(str::as_bytes));
    chain.optional(row.node.as_ref().map(|id| id.as_bytes().as_slice()));
    chain.optional(row.run.as_ref().map(|id| id.as_bytes().as_slice()));
    chain.optional(
        row.policy_revision.map(|revision| revision.0.to_le_bytes()).as_ref().map(<[u8; 8]>::as_slice),
    );
    chain.length(row.argv.len());
    row.argv.iter().for_each(|argument| chain.field(argument.as_bytes()));
    chain.optional(row.detail.as_deref().map(str::as_bytes));
    if row.token.is_some() || row.policy_hash.is_some() || row.consent.is_some() {
        chain.optional(row.token.as_ref().map(|id| id.as_bytes().as_slice()));
        chain.optional(row.policy_hash.as_ref().map(<[u8; 32]>::as_slice));
        chain.optional(row.consent.as_ref().map(|id| id.as_bytes().as_slice()));
    }
    chain.0.finalize().into()
}

/// Checks rows as [`crate::Read::audit`] lists them without conditions, from the first one on.
/// `Err` names the first row that does not fit, and why.
///
/// Rows that are missing at the end leave no trace in the chain: compare the last hash with one
/// that was kept elsewhere.
pub fn verify_chain(rows: &[LoggedAudit]) -> Result<(), (Seq, &'static str)> {
    verify_chain_from(Seq(0), CHAIN_START, rows).map(drop)
}

/// The same for a log that is read page by page: `last` and `hash` are those of the row before
/// the page. Returns those of the last row of the page.
pub fn verify_chain_from(
    mut last: Seq,
    mut hash: [u8; 32],
    rows: &[LoggedAudit],
) -> Result<(Seq, [u8; 32]), (Seq, &'static str)> {
    for logged in rows {
        if logged.seq != last.next() {
            return Err((logged.seq, "rows before it are missing or out of order"));
        }
        if logged.hash != chain_hash(&hash, logged.seq, &logged.row) {
            return Err((logged.seq, "the row or its hash was changed"));
        }
        (last, hash) = (logged.seq, logged.hash);
    }
    Ok((last, hash))
}

struct Chain(blake3::Hasher);

impl Chain {
    fn length(&mut self, length: usize) {
        self.0.update(&(length as u64).to_le_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.update(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else {
            self.0.update(&[0]);
            return;
        };
        self.0.update(&[1]);
        self.field(bytes);
    }
}
