//! A long file: one thread reads and cuts it, a second one hashes its chunks and all of it. Blocks go to and fro
//! between them, so that neither waits while the other has work, and none is copied.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use cortex_content::chunk::next_len;
use cortex_content::pack::ChunkRef;
use cortex_core::files::content::ContentId;
use cortex_core::limits::CHUNK_BYTES_MAX;

use super::super::super::fault::Fault;
use super::super::Take;
use super::Content;

/// Bytes that are read into one block. What of it is no whole chunk yet is copied to the next one.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Blocks: one is read and cut, one is hashed, one waits.
const BLOCKS: usize = 3;

/// A part of a file.
struct Block {
    bytes: Box<[u8]>,
    /// What was read into it.
    filled: usize,
    /// Its chunks, from the front; their ids when it comes back.
    chunks: Vec<ChunkRef>,
    /// Bytes of these chunks.
    cut: usize,
}

/// Reads a file of this size above 1 MiB from where it stands, as [`Reader::cut`](super::Reader) does. `None` where
/// no thread may be started: nothing was read then.
pub(super) fn cut(
    file: &File,
    size: u64,
    hashed: &mut u64,
    tell: &dyn Fn(u64),
    take: Option<&Take<'_>>,
) -> Option<Result<Option<Content>, Fault>> {
    thread::scope(|scope| {
        let (give, blocks) = sync_channel(BLOCKS);
        let (done, back) = sync_channel(BLOCKS);
        let hasher = thread::Builder::new().name("scan-hash".to_owned());
        let hasher = hasher.spawn_scoped(scope, move || hash(&blocks, &done)).ok()?;
        let cutting = Cutting { file, left: size, give, back, free: free(), out: 0, chunks: Vec::new() };
        let read = cutting.run(hashed, tell, take);
        let whole = hasher.join();
        let whole = whole.unwrap_or_else(|panic| resume_unwind(panic));
        let content = |chunks| Content { id: ContentId::new(whole.finalize().into()), chunks };
        Some(read.map(|chunks| chunks.map(content)))
    })
}

fn hash(blocks: &Receiver<Block>, done: &SyncSender<Block>) -> blake3::Hasher {
    let mut whole = blake3::Hasher::new();
    while let Ok(mut block) = blocks.recv() {
        let mut at = 0;
        for chunk in &mut block.chunks {
            let bytes = &block.bytes[at..at + chunk.len as usize];
            chunk.id = ContentId::of(bytes);
            at += bytes.len();
        }
        whole.update(&block.bytes[..block.cut]);
        if done.send(block).is_err() {
            break;
        }
    }
    whole
}

fn free() -> Vec<Block> {
    let bytes = || vec![0; CHUNK_BYTES_MAX + BLOCK_BYTES].into_boxed_slice();
    (0..BLOCKS).map(|_| Block { bytes: bytes(), filled: 0, chunks: Vec::new(), cut: 0 }).collect()
}

struct Cutting<'f> {
    file: &'f File,
    /// Bytes of the file that were not read.
    left: u64,
    give: SyncSender<Block>,
    back: Receiver<Block>,
    free: Vec<Block>,
    /// Blocks that are being hashed.
    out: usize,
    /// All that came back.
    chunks: Vec<ChunkRef>,
}

impl Cutting<'_> {
    /// The chunks; `None` when the file is longer or shorter than it was.
    fn run(
        mut self,
        hashed: &mut u64,
        tell: &dyn Fn(u64),
        take: Option<&Take<'_>>,
    ) -> Result<Option<Vec<ChunkRef>>, Fault> {
        let mut block = self.block(take)?;
        loop {
            if !self.fill(&mut block, hashed)? {
                return Ok(None);
            }
            tell(*hashed);
            let ended = self.left == 0;
            while let Some(len) = next_len(&block.bytes[block.cut..block.filled], ended) {
                // It is named when it comes back.
                block.chunks.push(ChunkRef { id: ContentId::new([0; 32]), len: len as u32 });
                block.cut += len;
            }
            let mut next = if ended { None } else { Some(self.block(take)?) };
            if let Some(next) = &mut next {
                let rest = &block.bytes[block.cut..block.filled];
                next.bytes[..rest.len()].copy_from_slice(rest);
                next.filled = rest.len();
            }
            self.give.send(block).map_err(|_ended| Fault::Restless)?;
            self.out += 1;
            match next {
                Some(next) => block = next,
                None => break,
            }
        }
        while self.out > 0 {
            self.hear(take)?;
        }
        Ok(Some(self.chunks))
    }

    /// An empty block, when need be one that was hashed.
    fn block(&mut self, take: Option<&Take<'_>>) -> Result<Block, Fault> {
        let mut block = match self.free.pop() {
            Some(block) => block,
            None => self.hear(take)?,
        };
        (block.filled, block.cut) = (0, 0);
        block.chunks.clear();
        Ok(block)
    }

    /// The next block that was hashed; its chunks are handed on.
    fn hear(&mut self, take: Option<&Take<'_>>) -> Result<Block, Fault> {
        let block = self.back.recv().map_err(|_ended| Fault::Restless)?;
        self.out -= 1;
        let mut at = 0;
        for chunk in &block.chunks {
            let bytes = &block.bytes[at..at + chunk.len as usize];
            at += bytes.len();
            if let Some(take) = take {
                take(chunk.id, bytes);
            }
        }
        self.chunks.extend(&block.chunks);
        Ok(block)
    }

    /// Reads behind what is in the block already. Whether the file is as long as it was, as far as it is seen.
    fn fill(&mut self, block: &mut Block, hashed: &mut u64) -> Result<bool, Fault> {
        let until = block.bytes.len().min(block.filled + BLOCK_BYTES);
        while block.filled < until && self.left > 0 {
            match self.file.read(&mut block.bytes[block.filled..until]) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    *hashed += read as u64;
                    let Some(left) = self.left.checked_sub(read as u64) else { return Ok(false) };
                    self.left = left;
                    block.filled += read;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
