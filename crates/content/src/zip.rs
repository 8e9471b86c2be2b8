//! zstd for one pack at a time: a look at parts of it whether that is worth it, and a decoder that
//! believes no frame's word on its own length.

use cortex_core::Refusal;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::malformed;

/// What is compressed to see whether the rest is worth it (SYNC 3).
const PROBE_BYTES: usize = 128 * 1024;
/// From how many places of a pack the probe is: it may hold a picture first and sources behind it.
const PROBE_PLACES: usize = 4;
/// Largest window that a frame may ask for: 2²² bytes, all of a pack.
const WINDOW_LOG_MAX: u32 = 22;

const _: () = assert!(cortex_core::limits::PACK_BYTES_MAX <= 1 << WINDOW_LOG_MAX);

/// Compresses; its memory (about a mebibyte) is taken once.
pub(super) struct Zip {
    context: Option<zstd::bulk::Compressor<'static>>,
}

impl Zip {
    /// Without memory for it nothing is compressed, which is no error.
    pub(super) fn new(level: i32) -> Self {
        Self { context: zstd::bulk::Compressor::new(level).ok() }
    }

    /// One frame with all of `plain`, when this saves at least 8 %.
    pub(super) fn shrink(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let context = self.context.as_mut()?;
        if plain.len() > 2 * PROBE_BYTES {
            let part = PROBE_BYTES / PROBE_PLACES;
            let step = (plain.len() - part) / (PROBE_PLACES - 1);
            let parts: Vec<&[u8]> =
                (0..PROBE_PLACES).map(|place| &plain[place * step..place * step + part]).collect();
            let probe = parts.concat();
            context.compress(&probe).ok().filter(|packed| saves(packed.len(), probe.len()))?;
        }
        context.compress(plain).ok().filter(|packed| saves(packed.len(), plain.len()))
    }
}

const fn saves(packed: usize, plain: usize) -> bool {
    packed * 100 <= plain * 92
}

/// Decompresses one frame as it comes. Its memory is bounded by [`WINDOW_LOG_MAX`].
pub(super) struct Unzip {
    decoder: Decoder<'static>,
    ended: bool,
}

impl Unzip {
    pub(super) fn new() -> Result<Self, Refusal> {
        let start = || {
            let mut decoder = Decoder::new()?;
            decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
            Ok::<_, std::io::Error>(decoder)
        };
        let decoder = start().map_err(|_| super::too_large("There is no memory to decompress a pack."))?;
        Ok(Self { decoder, ended: false })
    }

    /// For the next frame, with the memory of this one.
    pub(super) fn again(mut self) -> Result<Self, Refusal> {
        self.decoder.reinit().map_err(|_| super::too_large("There is no memory to decompress a pack."))?;
        self.ended = false;
        Ok(self)
    }

    /// Takes from the front of `packed` and fills `space` from its front. How much of both.
    pub(super) fn run(&mut self, packed: &[u8], space: &mut [u8]) -> Result<(usize, usize), Refusal> {
        if self.ended {
            return Ok((0, 0));
        }
        let mut from = InBuffer::around(packed);
        let mut to = OutBuffer::around(space);
        let hint = self.decoder.run(&mut from, &mut to);
        let hint = hint
            .map_err(|_| malformed("The body of a pack is no zstd frame, or one that asks for too much."))?;
        self.ended = hint == 0;
        let taken = from.pos();
        Ok((taken, to.pos()))
    }

    /// Whether the frame has ended, with its checksum if it had one.
    pub(super) const fn ended(&self) -> bool {
        self.ended
    }
}
