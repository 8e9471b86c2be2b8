//! Content on its way, by itself: cut and hash, pack, unpack and verify.

use std::fs;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cortex_content::chunk::Cutter;
use cortex_content::pack::{Added, Pack, PackWriter};
use cortex_content::unpack::Unpack;
use cortex_core::files::content::ContentId;

use crate::report::{self, Samples};

/// Bytes of one file that is cut.
const FILE_BYTES: usize = 64 * 1024 * 1024;
/// Pieces in which packs arrive.
const PIECE_BYTES: usize = 256 * 1024;

/// What is measured, in the order of the table.
const STEPS: [&str; 4] = ["cut and hash", "pack, zstd 1", "unpack and verify", "packed, % of plain"];

/// Measures all steps over random bytes and over lines of text, in turn.
pub(crate) fn run(rounds: usize) -> Result<()> {
    report::heading("Content: MB of plain bytes per second of processor time, medians");
    let samples = [("random", random(FILE_BYTES)), ("text", text(FILE_BYTES))];
    let mut found = vec![[(); STEPS.len()].map(|()| Samples::default()); samples.len()];
    for _ in 0..rounds {
        for ((_, bytes), found) in samples.iter().zip(&mut found) {
            let figures = round(bytes)?;
            found.iter_mut().zip(figures).for_each(|(samples, figure)| samples.push(figure));
        }
    }
    report::head(&["", samples[0].0, samples[1].0]);
    for (number, step) in STEPS.iter().enumerate() {
        let cell = |of: &[Samples; STEPS.len()]| format!("{:.0}", of[number].median());
        report::row(&[step, &cell(&found[0]), &cell(&found[1])]);
    }
    Ok(())
}

fn round(bytes: &[u8]) -> Result<[f64; STEPS.len()]> {
    let begun = on_cpu()?;
    let chunks = cut(bytes);
    let cutting = rate(bytes, begun)?;
    let begun = on_cpu()?;
    let packs = pack(bytes, &chunks)?;
    let packing = rate(bytes, begun)?;
    let begun = on_cpu()?;
    let plain = unpack(&packs)?;
    let unpacking = rate(bytes, begun)?;
    ensure!(plain == bytes.len(), "{plain} of {} bytes came out", bytes.len());
    let packed: usize = packs.iter().map(|pack| pack.head.pack_len()).sum();
    Ok([cutting, packing, unpacking, 100.0 * packed as f64 / bytes.len() as f64])
}

fn rate(bytes: &[u8], begun: f64) -> Result<f64> {
    Ok(bytes.len() as f64 / 1e6 / (on_cpu()? - begun))
}

/// Seconds that this thread has had of a processor: what runs beside it does not count.
fn on_cpu() -> Result<f64> {
    let told = fs::read_to_string("/proc/thread-self/schedstat").context("read the scheduler's figures")?;
    let nanoseconds = told.split(' ').next().context("the scheduler tells nothing")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

/// The chunks of one file, read as a scan reads it: id and length of each.
fn cut(mut bytes: &[u8]) -> Vec<(ContentId, usize)> {
    let mut cutter = Cutter::new();
    let mut chunks = Vec::new();
    loop {
        let space = cutter.space();
        let len = space.len().min(bytes.len());
        let (read, rest) = bytes.split_at(len);
        space[..len].copy_from_slice(read);
        bytes = rest;
        if len == 0 {
            cutter.end();
        } else {
            cutter.filled(len);
        }
        while let Some(chunk) = cutter.next_chunk() {
            chunks.push((ContentId::of(chunk), chunk.len()));
        }
        if len == 0 {
            return chunks;
        }
    }
}

fn pack(mut bytes: &[u8], chunks: &[(ContentId, usize)]) -> Result<Vec<Pack>> {
    let mut writer = PackWriter::new(1);
    let mut packs = Vec::new();
    for (id, len) in chunks {
        let (chunk, rest) = bytes.split_at(*len);
        bytes = rest;
        if writer.add(*id, chunk) == Added::Full {
            packs.push(writer.finish().context("a full pack has chunks")?);
            ensure!(writer.add(*id, chunk) == Added::Yes, "an empty pack takes any chunk");
        }
    }
    packs.extend(writer.finish());
    Ok(packs)
}

/// Bytes that came out.
fn unpack(packs: &[Pack]) -> Result<usize> {
    let mut plain = 0;
    for pack in packs {
        let mut unpack = Unpack::new(pack.head.clone())?;
        let mut rest = pack.tail.clone();
        while !rest.is_empty() {
            let piece: Bytes = rest.split_to(rest.len().min(PIECE_BYTES));
            unpack.push(piece)?;
            while let Some((_, chunk)) = unpack.next_chunk()? {
                plain += chunk.len();
            }
        }
        unpack.finish()?;
    }
    Ok(plain)
}

/// Bytes in which nothing repeats (splitmix64).
fn random(len: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    let word = |state: &mut u64| {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    (0..len / 8).flat_map(|_| word(&mut state).to_le_bytes()).collect()
}

/// Lines as a source has them, no two alike.
fn text(len: usize) -> Vec<u8> {
    let words =
        ["let", "state", "self.", "match", "None", "=>", "return", "(value)", "pub", "fn", "//", "while"];
    let mut text = String::with_capacity(len + 128);
    let choices = random(len);
    for (number, choice) in choices.chunks_exact(4).enumerate() {
        if text.len() >= len {
            break;
        }
        let word = |at: usize| words[usize::from(choice[at]) % words.len()];
        text.push_str(&format!("    {} {} {} {} item_{number};\n", word(0), word(1), word(2), word(3)));
    }
    let mut text = text.into_bytes();
    text.truncate(len);
    text
}
