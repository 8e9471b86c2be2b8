//! A timeline as bytes: steps one after the other, so that one more is an append to the row of the
//! task that is written anyway, and not a row of its own somewhere in a large table.
//!
//! A step is: when (8), the attempt (8), what is there (1), the node (16), the run (16), then its
//! kind, the actor and the detail, each with its length (4) in front. Numbers have their lowest byte
//! first. What is not there takes no bytes.

use cortex_core::id::{Attempt, NodeId, RunId};
use cortex_core::pool::{Step, StepKind};
use cortex_core::time::WallTime;

use crate::StoreError;

const NODE: u8 = 1;
const RUN: u8 = 2;
const ACTOR: u8 = 4;
const DETAIL: u8 = 8;

/// Steps as bytes.
pub(super) fn encode(steps: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(steps.len() * 64);
    for step in steps {
        bytes.extend_from_slice(&step.at.0.to_le_bytes());
        bytes.extend_from_slice(&step.attempt.0.to_le_bytes());
        let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        bytes.push(
            flag(step.node.is_some(), NODE)
                | flag(step.run.is_some(), RUN)
                | flag(step.actor.is_some(), ACTOR)
                | flag(step.detail.is_some(), DETAIL),
        );
        step.node.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
        step.run.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
        let texts = [Some(step.kind.as_str()), step.actor.as_deref(), step.detail.as_deref()];
        for text in texts.into_iter().flatten() {
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// The steps of some bytes.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<Step>, StoreError> {
    let mut steps = Vec::new();
    while !bytes.is_empty() {
        let step = step(&mut bytes).ok_or_else(|| {
            StoreError::Damaged(
                "column timeline: step {} cannot be read".replace("{}", &steps.len().to_string()),
            )
        })?;
        steps.push(step);
    }
    Ok(steps)
}

fn step(bytes: &mut &[u8]) -> Option<Step> {
    let at = WallTime(i64::from_le_bytes(take(bytes, 8)?.try_into().ok()?));
    let attempt = Attempt(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?));
    let flags = *take(bytes, 1)?.first()?;
    let mut id = |flag: u8| if flags & flag == 0 { Some(None) } else { take(bytes, 16).map(Some) };
    let node = id(NODE)?.map_or(Some(None), |id| NodeId::from_slice(id).map(Some))?;
    let run = id(RUN)?.map_or(Some(None), |id| RunId::from_slice(id).map(Some))?;
    let kind = StepKind::parse(text(bytes)?)?;
    let mut told = |flag: u8| if flags & flag == 0 { Some(None) } else { text(bytes).map(Some) };
    let actor = told(ACTOR)?.map(str::to_owned);
    let detail = told(DETAIL)?.map(str::to_owned);
    Some(Step { at, kind, attempt, node, run, actor, detail })
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn text<'b>(bytes: &mut &'b [u8]) -> Option<&'b str> {
    let len = u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?);
    std::str::from_utf8(take(bytes, usize::try_from(len).ok()?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<Step> {
        let bare = Step {
            at: WallTime(-1),
            kind: StepKind::Ready,
            attempt: Attempt(0),
            node: None,
            run: None,
            actor: None,
            detail: None,
        };
        let full = Step {
            at: WallTime(i64::MAX),
            kind: StepKind::Leased,
            attempt: Attempt(u64::MAX),
            node: Some(NodeId::mint(1, &[1; 10])),
            run: Some(RunId::mint(2, &[2; 10])),
            actor: Some("user:\u{e4}da".to_owned()),
            detail: Some(String::new()),
        };
        let half = Step { run: full.run, detail: Some("why".to_owned()), ..bare.clone() };
        vec![bare, full, half]
    }

    #[test]
    fn steps_are_read_back_and_one_more_is_an_append() {
        let all = steps();
        assert_eq!(decode(&encode(&all)).expect("its own bytes"), all);
        let appended = [encode(&all[..1]), encode(&all[1..])].concat();
        assert_eq!(decode(&appended).expect("appended"), all);
        assert_eq!(decode(&[]).expect("none"), []);
    }

    #[test]
    fn bytes_that_end_early_are_damaged() {
        let bytes = encode(&steps());
        let whole: Vec<usize> = (0..=3).map(|count| encode(&steps()[..count]).len()).collect();
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]).is_ok(), whole.contains(&end), "{end}");
        }
    }
}
