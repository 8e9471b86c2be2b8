//! What the chunk store needs for its life: what nothing names goes, and what the disk changed is found.

use std::time::Duration;

use cortex_core::Refusal;
use cortex_store::blobs::{Root, Rules, Sweep};
use tokio_util::sync::CancellationToken;

use crate::service::Context;
use crate::transfer::chunks::{Chunks, refusal};

/// Between two collections.
const COLLECT_EVERY: Duration = Duration::from_secs(600);
/// Between two parts of a scrub.
const SCRUB_EVERY: Duration = Duration::from_secs(600);
/// Parts of one cycle, which takes a day.
const SCRUB_PARTS: u64 = 144;
/// What one part reads at least, bytes.
const SCRUB_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Collects until the hub stops.
///
/// # Errors
/// None; what fails is tried with the next one.
pub(super) async fn collect(
    context: Context,
    chunks: Chunks,
    shutdown: CancellationToken,
) -> Result<(), Refusal> {
    while !over(&shutdown, COLLECT_EVERY).await {
        if let Err(refusal) = collect_once(&context, &chunks, Rules::default()).await {
            tracing::warn!(code = %refusal.code, reason = %refusal.message, "a collection was not done");
        }
    }
    Ok(())
}

/// One collection.
///
/// # Errors
/// `store_unavailable`, `internal`.
pub(crate) async fn collect_once(context: &Context, chunks: &Chunks, rules: Rules) -> Result<(), Refusal> {
    // Before the roots are read: what comes in between is protected by its pin.
    let since = chunks.run(|chunks| chunks.blobs().begin().map_err(refusal)).await?;
    let roots = context
        .view(|view| {
            let mut roots = Vec::new();
            view.each_root(&mut |tree| {
                roots.push(Root { tree, content: true });
                Ok(())
            })?;
            Ok(roots)
        })
        .await?;
    let now = context.clock.wall();
    let swept = chunks
        .run(move |chunks| {
            let sweep = Sweep { since, roots: &roots, now, rules };
            chunks.blobs().collect(sweep).map_err(refusal)
        })
        .await?;
    if swept.missing > 0 {
        tracing::error!(chunks = swept.missing, "trees that are kept lack chunks");
    }
    tracing::debug!(?swept, "chunks were collected");
    Ok(())
}

/// Reads what is kept, all of it in a day, until the hub stops.
///
/// # Errors
/// None; what fails is tried with the next part.
pub(super) async fn scrub(chunks: Chunks, shutdown: CancellationToken) -> Result<(), Refusal> {
    while !over(&shutdown, SCRUB_EVERY).await {
        let part = |chunks: &Chunks| {
            let bytes = chunks.blobs().figures().map_err(refusal)?.bytes;
            chunks.blobs().scrub((bytes / SCRUB_PARTS).max(SCRUB_BYTES_MIN)).map_err(refusal)
        };
        match chunks.run(part).await {
            Ok(scrubbed) if !scrubbed.damaged.is_empty() => tracing::error!(
                packs = ?scrubbed.damaged, chunks = scrubbed.lost.len(),
                "the disk changed packs of the chunk store; they were set aside"
            ),
            Ok(_) => {}
            Err(refusal) => {
                tracing::warn!(code = %refusal.code, reason = %refusal.message, "a scrub was not done");
            }
        }
    }
    Ok(())
}

async fn over(shutdown: &CancellationToken, every: Duration) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => true,
        () = tokio::time::sleep(every) => false,
    }
}
