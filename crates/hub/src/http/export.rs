//! The audit log as text, one JSON object a line, and back: whoever has an export can verify it
//! without a hub. A line must be, byte for byte, what the hub writes for that row.

use std::io::BufRead;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::{Revision, Seq};
use cortex_core::invite::from_hex;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::LoggedAudit;
use cortex_wire::http::{AuditVerdictView, AuditView};

use crate::http::view;
use crate::service::audit::verify::{Broken, Verdict, Verification, Witness};

/// Bytes of one line: the longest command, escaped, and room for the rest.
const LINE_BYTES_MAX: u64 = 6 * cortex_core::limits::ARGV_BYTES_MAX as u64 + 256 * 1024;

/// Verifies an export from its first row on, against what its owner kept of its end (`kept`).
///
/// # Errors
/// `bad_config` when it cannot be read.
pub fn verify_export(mut source: impl BufRead, kept: Option<Witness>) -> Result<Verdict, Refusal> {
    let mut verification = Verification::new(kept);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let mut bounded = std::io::Read::take(&mut source, LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut line).map_err(|error| unreadable(&error))?;
        if read == 0 {
            break;
        }
        let Some(row) = row_of(&line) else {
            let why = format!("Line {number} is not as the hub wrote it.");
            let verdict = verification.finish();
            return Ok(Verdict {
                broken: Some(Broken { at: Some(verdict.head.seq.next()), why }),
                ..verdict
            });
        };
        if !verification.take(&[row]) {
            break;
        }
    }
    Ok(verification.finish())
}

/// What became of it, in the shape of the API.
pub fn verdict_view(verdict: &Verdict) -> AuditVerdictView {
    view::verdict(verdict)
}

/// `None` unless the line is the one that this row has.
fn row_of(line: &[u8]) -> Option<LoggedAudit> {
    let shown: AuditView = serde_json::from_slice(line).ok()?;
    let logged = parse(&shown)?;
    let mut written = serde_json::to_vec(&view::audit(&logged)).ok()?;
    written.push(b'\n');
    (written == line).then_some(logged)
}

fn parse(shown: &AuditView) -> Option<LoggedAudit> {
    let optional = |text: &Option<String>| text.clone();
    let row = AuditRow {
        at: WallTime(shown.at.parse::<jiff::Timestamp>().ok()?.as_millisecond()),
        actor: shown.actor.clone(),
        action: shown.action.clone(),
        outcome: Outcome::parse(&shown.outcome)?,
        reason: optional(&shown.reason),
        node: shown.node.as_deref().map(str::parse).transpose().ok()?,
        run: shown.run.as_deref().map(str::parse).transpose().ok()?,
        policy_revision: shown.policy_revision.map(Revision),
        argv: shown.argv.clone(),
        detail: optional(&shown.detail),
        token: shown.token.as_deref().map(str::parse).transpose().ok()?,
        policy_hash: shown.policy_hash.as_deref().map(|hex| from_hex(hex).ok_or(())).transpose().ok()?,
        consent: shown.consent.as_deref().map(str::parse).transpose().ok()?,
    };
    Some(LoggedAudit { seq: Seq(shown.seq), row, hash: from_hex(&shown.hash)? })
}

fn unreadable(error: &std::io::Error) -> Refusal {
    Refusal::new(Code::BadConfig, format!("The export cannot be read: {error}."))
        .hint("Check the path given with `--file`.")
}

#[cfg(test)]
mod tests {
    use cortex_core::id::{ConsentId, NodeId, RunId, TokenId};
    use cortex_core::node::AuditHead;
    use cortex_store::chain::{CHAIN_START, chain_hash};

    use super::*;

    /// Three rows, with all fields, with none, and with what must be escaped.
    fn export() -> (Vec<u8>, AuditHead) {
        let full = AuditRow {
            reason: Some("exec.allow".to_owned()),
            node: Some(NodeId::mint(1, &[1; 10])),
            run: Some(RunId::mint(1, &[2; 10])),
            policy_revision: Some(Revision(7)),
            argv: vec!["printf".to_owned(), "ü \u{1b}[0m\n".to_owned()],
            detail: Some(String::new()),
            token: Some(TokenId::mint(1, &[3; 10])),
            policy_hash: Some([0xab; 32]),
            consent: Some(ConsentId::mint(1, &[4; 10])),
            ..AuditRow::new(WallTime(1_700_000_000_123), "token:a", "run.start", Outcome::Allowed)
        };
        let empty = AuditRow::new(WallTime(0), "hub", "x", Outcome::Denied);
        let mut hash = CHAIN_START;
        let mut text = Vec::new();
        for (seq, row) in (1..).map(Seq).zip([full.clone(), empty, full]) {
            hash = chain_hash(&hash, seq, &row);
            let line = serde_json::to_vec(&view::audit(&LoggedAudit { seq, row, hash })).expect("JSON");
            text.extend(line);
            text.push(b'\n');
        }
        (text, AuditHead { seq: Seq(3), hash })
    }

    fn verdict(text: &[u8], kept: Option<AuditHead>) -> Verdict {
        let kept = kept.map(|head| Witness { name: "you".to_owned(), head });
        verify_export(text, kept).expect("readable")
    }

    #[test]
    fn a_whole_export_verifies() {
        let (text, head) = export();
        assert_eq!(verdict(&text, Some(head)), Verdict { head, witnesses: 1, broken: None });
        assert_eq!(verdict(b"", None).broken, None);
    }

    #[test]
    fn any_flipped_bit_of_an_export_is_detected() {
        let (text, _) = export();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(verdict(&flipped, None).broken.is_some(), "bit {bit}");
        }
    }

    #[test]
    fn an_export_cut_in_a_row_is_detected_and_one_cut_between_rows_by_whoever_kept_its_end() {
        let (text, head) = export();
        let ends: Vec<usize> = (0..text.len()).filter(|at| *at == 0 || text[at - 1] == b'\n').collect();
        for cut in 0..text.len() {
            assert_eq!(verdict(&text[..cut], None).broken.is_none(), ends.contains(&cut), "cut at {cut}");
            assert!(verdict(&text[..cut], Some(head)).broken.is_some(), "cut at {cut}");
        }
    }
}
