//! What both sides agree on when a plan is carried out. It is a tree: what is above a path is a folder.

use super::plan::Mode;
use super::steps::Decided;
use super::tree::{End, Entry};
use super::verdict::Verdict;
use crate::files::path::RelPath;

/// The paths whose agreement the plan changes, in the order of the rows.
pub(super) fn agreed(mode: Mode, decided: &Decided<'_, '_>) -> Vec<(RelPath, Option<Entry>)> {
    let keepers = keepers(decided);
    let mut changed = Vec::new();
    // By row: whether a folder was agreed on there, and is not any more.
    let mut ended = vec![false; decided.rows.len()];
    for (index, (row, verdict)) in decided.rows.iter().zip(decided.verdicts).enumerate() {
        let after = match verdict {
            Verdict::Hold(_) | Verdict::Extra if row.above.is_some_and(|above| ended[above]) => None,
            Verdict::Hold(_) | Verdict::Extra => row.agreed,
            Verdict::Want(_) | Verdict::Aside { .. } if mode == Mode::Merge => {
                let (wanted, node) = (verdict.wanted(), row.entry(End::Node));
                let stays = node.is_none() && wanted == row.agreed && keepers[index];
                if stays { wanted } else { node }
            }
            Verdict::Want(_) | Verdict::Aside { .. } => verdict.wanted(),
        };
        if let (Verdict::Aside { leaf, .. }, Some(copy), Mode::TwoWay) =
            (verdict, decided.copies.get(&index), mode)
        {
            changed.push((copy.clone(), Some((*leaf).clone())));
        }
        if after != row.agreed {
            ended[index] = row.agreed == Some(&Entry::Dir);
            changed.push((row.path.clone(), after.cloned()));
        }
    }
    changed
}

/// By row: whether something in the folder is left as it is, and was agreed on.
fn keepers(decided: &Decided<'_, '_>) -> Vec<bool> {
    let mut keepers = vec![false; decided.rows.len()];
    for (index, row) in decided.rows.iter().enumerate().rev() {
        let is_left = decided.verdicts[index].leaves_all() && row.agreed.is_some();
        if let Some(above) = row.above.filter(|_| is_left || keepers[index]) {
            keepers[above] = true;
        }
    }
    keepers
}
