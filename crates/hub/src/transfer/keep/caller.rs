//! A tree that comes from a caller: what the hub lacks is asked for as a node asks in a push.

use cortex_core::Refusal;
use cortex_core::limits::CARRY_DATA_BYTES_MAX;

use super::{Chunks, Hold, Keeping, Order, Wants, changed, step};
use crate::transfer::import::Seat;
use crate::transfer::push::{Give, Push};

/// Receives a tree by a seat of a push until it is whole and durable; with what holds it. `moved` hears of each
/// pack: how long it was, and how many plain bytes of it were wanted.
///
/// # Errors
/// `conflict` when the caller cannot give something of it, `quota` when it is too large, `invalid_argument` for what
/// contradicts itself; `no_space`, `internal`.
pub(crate) async fn receive(
    chunks: &Chunks,
    order: Order,
    came: Hold,
    (push, seat): (&Push, Seat),
    moved: impl Fn(u64, u64),
) -> Result<Hold, Refusal> {
    let lane = chunks.lane();
    let mut keeping = Keeping::new(chunks, order, came);
    loop {
        let (kept, wants) = step(&lane, keeping, Keeping::wants).await?;
        keeping = kept;
        match wants? {
            Wants::Over => break,
            Wants::Ask(ids) if !ids.is_empty() => {
                push.want(seat, &ids)?;
                continue;
            }
            Wants::Ask(_) => {}
        }
        match push.next(seat).await? {
            Give::Pack(mut bytes, plain) => {
                moved(bytes.len() as u64, plain);
                let take = move |keeping: &mut Keeping| {
                    while !bytes.is_empty() {
                        keeping.take(bytes.split_to(bytes.len().min(CARRY_DATA_BYTES_MAX)))?;
                    }
                    Ok(())
                };
                let (kept, taken) = step(&lane, keeping, take).await?;
                keeping = kept;
                taken?;
                fail::fail_point!("imports::pack");
            }
            // Without it there is no tree: the rest need not come.
            Give::Missing(_) => return Err(changed()),
        }
    }
    let (keeping, settled) = step(&lane, keeping, Keeping::settle).await?;
    settled.map(|()| keeping.came)
}
