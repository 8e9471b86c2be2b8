//! Collection in two phases: what a mark finds to be named too little is condemned, and goes in a later
//! collection whose own mark says the same (SYNC, safety rule 18).
//!
//! A pack goes only when nothing of it was put or found under a pin that was held when this collection
//! began, and when it was condemned before any such pin. So whatever a use case learned under its pin
//! stays true for as long as it holds it.
//!
//! A crash leaves the old state or the new one: marks are in memory, live chunks are in a new pack and
//! durable before the old one goes, and a file goes before its rows, which a start notices.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;

use bytes::Bytes;
use cortex_content::pack::{Added, PackWriter};
use cortex_core::files::content::ContentId;

use super::files::{Moment, read_head};
use super::{FolderBlobs, Spot};
use crate::blobs::index::{self, PackRow, Row};
use crate::blobs::mark::{Marks, mark};
use crate::blobs::pin::Condemned;
use crate::blobs::space::is_full;
use crate::blobs::{BlobError, Blobs as _, Collected, Pin, Rules, Since, Sweep, decode};

/// Packs that are removed in one go; their heads are in memory until their rows are gone.
const BATCH: usize = 16;
/// Packs that one call writes anew, however small they are.
const SOURCES_MAX: usize = 4_096;
/// Level of zstd of what is written anew.
const LEVEL: i32 = 1;

/// A pack during a mark: 40 bytes, beside three bits for each of its chunks.
struct Tally {
    row: Row,
    /// Number of its first chunk among those of all packs.
    base: u64,
    plain: u32,
    /// Plain bytes of its chunks that are named.
    live: u32,
    /// Whether a collection saw it before.
    seen: bool,
    /// Whether that was long enough ago.
    old: bool,
}

impl Tally {
    /// Whether too little of it is named.
    fn is_sparse(&self, rules: &Rules) -> bool {
        self.live == 0
            || u64::from(self.live) * 100 < u64::from(self.plain) * u64::from(rules.live_percent_min)
    }
}

/// One bit for each chunk of all packs.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Sets a bit; whether it was not set.
    fn set(&mut self, at: u64) -> bool {
        let (word, mask) = ((at / 64) as usize, 1 << (at % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & mask == 0;
        self.0[word] |= mask;
        new
    }

    fn get(&self, at: u64) -> bool {
        self.0.get((at / 64) as usize).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

struct FolderMarks<'b> {
    blobs: &'b FolderBlobs,
    packs: Vec<Tally>,
    numbers: HashMap<Row, usize>,
    chunks: u64,
    live: Bits,
    /// Objects that were looked at, and those that were with the content of files.
    walked: [Bits; 2],
    /// The same of objects that the index does not know yet.
    fresh: HashSet<(ContentId, bool)>,
}

impl FolderMarks<'_> {
    fn add(&mut self, pack: &PackRow, sweep: &Sweep<'_>) {
        let young = sweep.rules.young_ms;
        let since = pack.seen_at.unwrap_or(sweep.now.0);
        let old = cortex_core::time::WallTime(since).plus_ms(young) <= sweep.now;
        let (row, plain) = (pack.row, pack.plain);
        self.numbers.insert(row, self.packs.len());
        self.packs.push(Tally { row, base: self.chunks, plain, live: 0, seen: pack.seen_at.is_some(), old });
        self.chunks += u64::from(pack.chunks);
    }

    /// The number of a chunk among all; `None` when its pack came after the mark began.
    fn at(&self, spot: &Spot) -> Option<(usize, u64)> {
        let number = *self.numbers.get(&spot.row?)?;
        Some((number, self.packs[number].base + u64::from(spot.place.number)))
    }

    fn is_live(&mut self, spot: &Spot) {
        if let Some((number, at)) = self.at(spot)
            && self.live.set(at)
        {
            let pack = &mut self.packs[number];
            pack.live = pack.live.saturating_add(spot.place.len);
        }
    }
}

impl Marks for FolderMarks<'_> {
    fn live(&mut self, ids: &[ContentId]) -> Result<u64, BlobError> {
        let (spots, _) = self.blobs.find(ids, None)?;
        spots.iter().flatten().for_each(|spot| self.is_live(spot));
        Ok(spots.iter().filter(|spot| spot.is_none()).count() as u64)
    }

    fn object(&mut self, id: &ContentId, content: bool) -> Result<Option<bool>, BlobError> {
        let Some(Some(spot)) = self.blobs.find(std::slice::from_ref(id), None)?.0.pop() else {
            return Ok(None);
        };
        self.is_live(&spot);
        Ok(Some(match self.at(&spot) {
            Some((_, at)) if content => {
                self.walked[0].set(at);
                self.walked[1].set(at)
            }
            Some((_, at)) => self.walked[0].set(at),
            None if content => {
                self.fresh.insert((*id, false));
                self.fresh.insert((*id, true))
            }
            None => self.fresh.insert((*id, false)),
        }))
    }

    fn bytes(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError> {
        self.blobs.chunk(id)
    }
}

impl FolderBlobs {
    /// One collection.
    pub(super) fn sweep(&self, sweep: Sweep<'_>) -> Result<Collected, BlobError> {
        let _alone = self.collecting.lock().map_err(|_| BlobError::Poisoned)?;
        // What cannot be made durable is told to those who put it.
        drop(self.sync_all());
        self.forget_gone()?;
        let damages = {
            let state = self.lock()?;
            if sweep.since.0 < state.swept {
                // What was in use then is not known any longer.
                return Ok(Collected { more: true, ..Collected::default() });
            }
            state.damages
        };
        let mut marks = FolderMarks {
            blobs: self,
            packs: Vec::new(),
            numbers: HashMap::new(),
            chunks: 0,
            live: Bits::default(),
            walked: Default::default(),
            fresh: HashSet::new(),
        };
        self.index.read(|conn| index::packs(conn, &mut |pack| marks.add(&pack, &sweep)))?;
        let walked = mark(sweep.roots, &mut marks)?;
        let live_bytes = marks.packs.iter().map(|pack| u64::from(pack.live)).sum();
        let mut collected = Collected {
            objects: walked.objects,
            missing: walked.missing,
            live_bytes,
            ..Collected::default()
        };
        let due = self.judge(&sweep, &marks, &mut collected)?;
        let (empty, sparse): (Vec<_>, Vec<_>) = due.into_iter().partition(|pack| pack.live == 0);
        for batch in empty.chunks(BATCH) {
            let rows: Vec<Row> = batch.iter().map(|pack| pack.row).collect();
            self.remove(&rows, sweep.since, damages, &mut collected)?;
        }
        let repacked = self.repack(&sparse, &marks, &sweep, &mut collected)?;
        if !repacked.is_empty() {
            self.files.reach(Moment::Repacked, &self.files.folder("packs"))?;
        }
        for rows in repacked.chunks(BATCH) {
            self.remove(rows, sweep.since, damages, &mut collected)?;
        }
        Ok(collected)
    }

    /// Condemns, takes back, and finds what is to go.
    fn judge<'m>(
        &self,
        sweep: &Sweep<'_>,
        marks: &'m FolderMarks<'_>,
        collected: &mut Collected,
    ) -> Result<Vec<&'m Tally>, BlobError> {
        let (mut due, mut condemned, mut spared, mut seen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        {
            let mut state = self.lock()?;
            let since = sweep.since.0;
            for pack in &marks.packs {
                if !pack.seen {
                    seen.push(pack.row);
                }
                let used = state.touched.get(&pack.row).is_some_and(|stamp| *stamp >= since);
                match (pack.is_sparse(&sweep.rules), state.condemned.get(&pack.row)) {
                    (false, Some(_)) => spared.push(pack.row),
                    (true, None) if pack.old && !used => condemned.push(pack.row),
                    (true, Some(since_when))
                        if !used && since_when.is_over(sweep.since, sweep.now, sweep.rules.condemned_ms) =>
                    {
                        due.push(pack);
                    }
                    _ => {}
                }
            }
            // A pin that is older than the next one cannot be the oldest again.
            state.touched.retain(|_, stamp| *stamp >= since);
            state.swept = since;
            state.condemned.retain(|row, _| spared.binary_search(row).is_err());
            // First condemned, then forgotten, then stamped: what a pin of a higher number learns to be
            // whole is no condemned pack.
            let hold = Condemned { at: sweep.now, stamp: u64::MAX };
            state.condemned.extend(condemned.iter().map(|row| (*row, hold)));
            if !condemned.is_empty() {
                self.memo.clear()?;
            }
            let stamp = self.pins.stamp()?;
            let held = Condemned { stamp, ..hold };
            state.condemned.extend(condemned.iter().map(|row| (*row, held)));
            state.figures.live_bytes = Some(collected.live_bytes);
        }
        collected.condemned = condemned.len() as u64;
        let now = sweep.now.0;
        let written = self.index.write(|tx| {
            index::seen(tx, &seen, now)?;
            index::condemn(tx, &condemned, Some(now))?;
            index::condemn(tx, &spared, None)
        });
        match written {
            // It holds in memory; a restart condemns them anew.
            Err(fault) if is_full(&fault) => collected.more = true,
            written => written?,
        }
        if !condemned.is_empty() {
            self.files.reach(Moment::Condemned, &self.files.folder("packs"))?;
        }
        Ok(due)
    }

    /// Removes packs, but for those that somebody came to use.
    fn remove(
        &self,
        rows: &[Row],
        since: Since,
        damages: u64,
        collected: &mut Collected,
    ) -> Result<(), BlobError> {
        let _alone = self.removing.lock().map_err(|_| BlobError::Poisoned)?;
        let packs = self
            .index
            .read(|conn| rows.iter().map(|row| index::pack(conn, *row)).collect::<Result<Vec<_>, _>>())?;
        let packs: Vec<PackRow> = {
            let mut gone = self.gone.write().map_err(|_| BlobError::Poisoned)?;
            let state = self.lock()?;
            if state.damages != damages {
                // What was found to lie in a damaged pack may lie in one of these too.
                collected.more = true;
                return Ok(());
            }
            let used = |row| state.touched.get(&row).is_some_and(|stamp| *stamp >= since.0);
            let free: Vec<PackRow> = packs.into_iter().flatten().filter(|pack| !used(pack.row)).collect();
            gone.extend(free.iter().map(|pack| pack.row));
            free
        };
        let mut removed = Vec::with_capacity(packs.len());
        let mut failed = Ok(());
        for pack in &packs {
            let head = read_head(&self.files.name(&pack.id)).unwrap_or_default();
            failed = self.files.remove(&pack.id);
            if failed.is_err() {
                break;
            }
            self.cache.forget(&pack.id)?;
            removed.push((pack, head));
        }
        {
            let mut gone = self.gone.write().map_err(|_| BlobError::Poisoned)?;
            gone.retain(|row| packs[removed.len()..].iter().all(|pack| pack.row != *row));
            let mut state = self.lock()?;
            for (pack, _) in &removed {
                state.figures.take(pack);
                state.condemned.remove(&pack.row);
                collected.deleted += 1;
                collected.deleted_bytes += u64::from(pack.bytes);
            }
        }
        failed?;
        let written = self.index.write(|tx| {
            removed.iter().try_for_each(|(pack, head)| index::remove(tx, pack.row, head.as_ref()))
        });
        match written {
            // Nobody finds them; their rows go when there is room.
            Err(fault) if is_full(&fault) => {
                collected.more = true;
                Ok(())
            }
            Err(fault) => Err(fault),
            Ok(()) => {
                let mut gone = self.gone.write().map_err(|_| BlobError::Poisoned)?;
                gone.retain(|row| removed.iter().all(|(pack, _)| pack.row != *row));
                Ok(())
            }
        }
    }

    /// Takes from the index what went when there was no room to say so.
    fn forget_gone(&self) -> Result<(), BlobError> {
        let _alone = self.removing.lock().map_err(|_| BlobError::Poisoned)?;
        let rows: HashSet<Row> = self.gone.read().map_err(|_| BlobError::Poisoned)?.clone();
        if rows.is_empty() {
            return Ok(());
        }
        match self.index.write(|tx| index::remove_all(tx, &rows)) {
            Err(fault) if is_full(&fault) => Ok(()),
            Err(fault) => Err(fault),
            Ok(()) => {
                let mut gone = self.gone.write().map_err(|_| BlobError::Poisoned)?;
                gone.retain(|row| !rows.contains(row));
                Ok(())
            }
        }
    }

    /// Writes what is alive in these packs into others; those of which all is in others, and durable.
    fn repack(
        &self,
        sparse: &[&Tally],
        marks: &FolderMarks<'_>,
        sweep: &Sweep<'_>,
        collected: &mut Collected,
    ) -> Result<Vec<Row>, BlobError> {
        if sparse.is_empty() {
            return Ok(Vec::new());
        }
        let mut new = Anew { blobs: self, pin: self.pins.pin()?, writer: PackWriter::new(LEVEL) };
        let mut left = sweep.rules.repack_bytes;
        let (mut sources, mut written) = (Vec::new(), 0);
        let mut room = true;
        for pack in sparse {
            if sources.len() == SOURCES_MAX || u64::from(pack.plain) > left {
                collected.more = true;
                break;
            }
            left -= u64::from(pack.plain);
            let Some(known) = self.index.read(|conn| index::pack(conn, pack.row))? else { continue };
            let Some(stored) = self.load(&known.id)? else { continue };
            // A damaged one is for the scrub.
            let plain = match self.suspecting(&known.id, decode(&stored)) {
                Ok(plain) => plain,
                Err(BlobError::Damaged { .. }) => continue,
                Err(fault) => return Err(fault),
            };
            let mut start = 0;
            for (chunk, number) in stored.head.chunks().iter().zip(0..) {
                let bytes = &plain[start..start + chunk.len as usize];
                start += bytes.len();
                if !marks.live.get(pack.base + number) {
                    continue;
                }
                if new.writer.add(chunk.id, bytes) == Added::Full {
                    room = new.flush()?;
                    if !room {
                        break;
                    }
                    written = sources.len();
                    let _ = new.writer.add(chunk.id, bytes);
                }
            }
            if !room {
                break;
            }
            sources.push(pack.row);
        }
        if room && new.flush()? {
            written = sources.len();
        } else {
            // Reading and deleting go on; this needs room.
            collected.more = true;
        }
        sources.truncate(written);
        self.sync(&new.pin)?;
        collected.repacked += sources.len() as u64;
        Ok(sources)
    }
}

/// Packs of what is alive in others.
struct Anew<'b> {
    blobs: &'b FolderBlobs,
    pin: Pin,
    writer: PackWriter,
}

impl Anew<'_> {
    /// Puts what was added; `false` when there is no room for it.
    fn flush(&mut self) -> Result<bool, BlobError> {
        let Some(pack) = self.writer.finish() else { return Ok(true) };
        match self.blobs.put_pack(&pack.head, &mut Cursor::new(&pack.tail), &self.pin) {
            Ok(_) => Ok(true),
            Err(fault) if is_full(&fault) => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}
