//! The trees that are moved: the same bytes from the same seed, on each machine.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

/// Folders of the tree of sources.
const FOLDERS: usize = 7_443;
/// Of its files, one in so many is edited.
const EDITED: usize = 100;
const SEED: u64 = 0x5eed_c0de;

/// What a tree is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One file that no codec makes smaller.
    Random,
    /// One file of text like sources.
    Text,
    /// Many files like sources.
    Sources,
}

/// What happens to a tree between two synchronisations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Nothing,
    /// One file in a hundred gets a line in its middle.
    Edit,
    /// The file gets 1 MiB at three tenths of its length.
    Insert,
}

/// How large a tree is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    /// Files of [`Kind::Sources`]; the other kinds have one.
    pub(crate) files: usize,
}

/// A tree on the disk, and the files that change in it.
pub(crate) struct Tree {
    dir: PathBuf,
    spare: PathBuf,
    change: Change,
    /// The files to edit, as they were.
    edits: Vec<(PathBuf, Vec<u8>, SystemTime)>,
    changed: bool,
    pub(crate) files: usize,
}

impl Tree {
    /// Makes a tree in `dir`; `spare` is a folder beside it for what is put in its place.
    pub(crate) fn make(dir: &Path, spare: &Path, kind: Kind, change: Change, size: Size) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::create_dir_all(spare)?;
        let mut paths = vec![dir.join("file")];
        match kind {
            Kind::Random => random(&mut File::create(dir.join("file"))?, size.bytes, &mut Rng(SEED))?,
            Kind::Text => text(&dir.join("file"), size.bytes)?,
            Kind::Sources => paths = sources(dir, size)?,
        }
        let mut tree = Self {
            dir: dir.to_owned(),
            spare: spare.to_owned(),
            change,
            edits: Vec::new(),
            changed: false,
            files: paths.len(),
        };
        match change {
            Change::Nothing => {}
            Change::Edit => {
                for path in paths.iter().step_by(EDITED) {
                    tree.edits.push((path.clone(), fs::read(path)?, fs::metadata(path)?.modified()?));
                }
            }
            Change::Insert => inserted(&dir.join("file"), &spare.join("file"))?,
        }
        Ok(tree)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Changes the tree as it was made to be changed.
    pub(crate) fn change(&mut self) -> Result<()> {
        ensure!(!self.changed, "the tree is changed");
        for (path, old, _) in &self.edits {
            fs::write(path, edited(old))?;
        }
        self.exchange()?;
        self.changed = true;
        Ok(())
    }

    /// Takes the change back, times of the files as well.
    pub(crate) fn reset(&mut self) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        for (path, old, time) in &self.edits {
            fs::write(path, old)?;
            File::options().write(true).open(path)?.set_modified(*time)?;
        }
        self.exchange()?;
        self.changed = false;
        Ok(())
    }

    fn exchange(&self) -> Result<()> {
        if self.change == Change::Insert {
            let (here, there, held) =
                (self.dir.join("file"), self.spare.join("file"), self.spare.join("held"));
            fs::rename(&here, &held)?;
            fs::rename(&there, &here)?;
            fs::rename(&held, &there)?;
        }
        Ok(())
    }
}

/// Says where `copy` is not as `tree`: each file of the tree must be there with the same bytes.
pub(crate) fn compare(tree: &Path, copy: &Path) -> Result<()> {
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let other = copy.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            // A peer's own marker of the source's root.
            if entry.file_name() != ".stfolder" && entry.file_name() != ".cortex" {
                compare(&entry.path(), &other)?;
            }
        } else {
            ensure!(equal(&entry.path(), &other)?, "{} is not as in the source", other.display());
        }
    }
    Ok(())
}

fn equal(one: &Path, other: &Path) -> Result<bool> {
    let length = fs::metadata(one)?.len();
    if fs::metadata(other).with_context(|| format!("{} is missing", other.display()))?.len() != length {
        return Ok(false);
    }
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let piece = usize::try_from(length.min(1 << 20))?;
    let (mut left, mut right) = (vec![0; piece], vec![0; piece]);
    let mut rest = length;
    while rest > 0 {
        let take = usize::try_from(rest.min(1 << 20))?;
        one.read_exact(&mut left[..take])?;
        other.read_exact(&mut right[..take])?;
        if left[..take] != right[..take] {
            return Ok(false);
        }
        rest -= take as u64;
    }
    Ok(true)
}

/// Numbers that look random and are the same from the same seed (SplitMix64).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `bound`, the small ones far more often than the large ones.
    fn low(&mut self, bound: usize) -> usize {
        let share = self.share();
        ((share * share * share) * bound as f64) as usize
    }
}

fn random(out: &mut impl Write, bytes: u64, rng: &mut Rng) -> Result<()> {
    let mut piece = vec![0; 1 << 20];
    let mut rest = bytes;
    while rest > 0 {
        for eight in piece.chunks_exact_mut(8) {
            eight.copy_from_slice(&rng.next().to_le_bytes());
        }
        let take = usize::try_from(rest.min(piece.len() as u64))?;
        out.write_all(&piece[..take])?;
        rest -= take as u64;
    }
    Ok(())
}

fn text(path: &Path, bytes: u64) -> Result<()> {
    let mut writer = Writer::new();
    let mut out = BufWriter::new(File::create(path)?);
    let mut rest = bytes;
    while rest > 0 {
        let take = usize::try_from(rest.min(64 << 10))?;
        out.write_all(&writer.file(take))?;
        rest -= take as u64;
    }
    Ok(out.flush()?)
}

/// Files of a spread of sizes as sources have it (log-normal, half of them below a third of the
/// mean) in folders up to nine deep, none of them empty.
fn sources(dir: &Path, size: Size) -> Result<Vec<PathBuf>> {
    let mut rng = Rng(SEED ^ 1);
    let mut writer = Writer::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while folders.len() < FOLDERS.min(size.files) {
        let (parent, depth) = folders[rng.below(folders.len())].clone();
        if depth < 9 {
            let folder = free(&parent, writer.word(), "", folders.len());
            fs::create_dir(&folder)?;
            folders.push((folder, depth + 1));
        }
    }
    let weights: Vec<f64> =
        (0..size.files).map(|_| (((0..12).map(|_| rng.share()).sum::<f64>() - 6.0) * 1.4).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut paths = Vec::with_capacity(size.files);
    for (index, weight) in weights.iter().enumerate() {
        let place = if index < folders.len() { index } else { rng.below(folders.len()) };
        let extension = [".rs", ".js", ".py", ".ts", ".c"][rng.below(5)];
        let path = free(&folders[place].0, writer.word(), extension, index);
        let bytes = (weight / total * size.bytes as f64).round() as usize;
        fs::write(&path, writer.file(bytes))?;
        paths.push(path);
    }
    Ok(paths)
}

/// A path that is not taken, with a number in its name only when it must have one.
fn free(folder: &Path, name: &str, extension: &str, number: usize) -> PathBuf {
    let path = folder.join(format!("{name}{extension}"));
    if path.exists() { folder.join(format!("{name}_{number}{extension}")) } else { path }
}

/// The same with a line in its middle.
fn edited(old: &[u8]) -> Vec<u8> {
    let middle = old.len() / 2;
    let at = old[..middle].iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    [&old[..at], b"    // This line was not there before.\n".as_slice(), &old[at..]].concat()
}

fn inserted(old: &Path, new: &Path) -> Result<()> {
    let length = fs::metadata(old)?.len();
    let mut old = BufReader::new(File::open(old)?);
    let mut out = BufWriter::new(File::create(new)?);
    // No multiple of any block size.
    let at = length / 10 * 3 + 12_345;
    std::io::copy(&mut old.by_ref().take(at.min(length)), &mut out)?;
    random(&mut out, 1 << 20, &mut Rng(SEED ^ 2))?;
    std::io::copy(&mut old, &mut out)?;
    Ok(out.flush()?)
}

/// Lines as sources have them; `@` is an identifier, `#` a number, `%` a name of a type.
const LINES: &[&str] = &[
    "    let @ = @.@(@)?;\n",
    "    let mut @ = Vec::new();\n",
    "    if @.is_empty() {\n        return Err(Error::%(@));\n    }\n",
    "    for @ in @.iter() {\n        @.push(@);\n    }\n",
    "    self.@ = @;\n",
    "}\n\n",
    "/// @ @ the @ of @, @ @ when the @ is @.\n",
    "pub fn @(&self, @: &%, @: usize) -> Result<%> {\n",
    "use crate::@::{@, %};\n",
    "    // @ the @ @ before @ and @.\n",
    "#[derive(Clone, Debug)]\npub struct % {\n    pub @: %,\n    @: Vec<%>,\n}\n\n",
    "    match @ {\n        %::% => @(),\n        %::% { @ } => @.@(@),\n    }\n",
    "    assert_eq!(@.@(), #);\n",
    "const %: usize = #;\n",
    "    @(\"@ @ @\", @, #);\n",
    "impl % for % {\n",
];
/// What most files begin with.
const HEAD: &str = "// Copyright of the authors of this project, listed in the file AUTHORS beside this folder.\n\
                    // Licensed under the terms that the file LICENSE says; without a warranty of any kind.\n\
                    // Read CONTRIBUTING before you change what is below.\n\n";
const SYLLABLES: &[&str] = &[
    "ac", "al", "an", "ar", "at", "ber", "ca", "con", "de", "der", "do", "ed", "en", "er", "ex", "fi", "for",
    "ge", "ha", "id", "in", "is", "key", "la", "le", "li", "ma", "men", "mo", "na", "ne", "no", "on", "or",
    "pa", "per", "po", "re", "ri", "ro", "se", "si", "so", "sta", "ta", "te", "ti", "to", "tra", "un", "ver",
];

/// Writes files that share the words of one project, each with some that it uses most.
struct Writer {
    rng: Rng,
    words: Vec<String>,
}

impl Writer {
    fn new() -> Self {
        let mut rng = Rng(SEED ^ 3);
        let mut words = Vec::new();
        for _ in 0..4_000 {
            let length = 2 + rng.below(3);
            let mut word: String = (0..length).map(|_| SYLLABLES[rng.below(SYLLABLES.len())]).collect();
            if rng.below(3) == 0 {
                word.push('_');
                word.push_str(SYLLABLES[rng.below(SYLLABLES.len())]);
            }
            words.push(word);
        }
        Self { rng, words }
    }

    fn word(&mut self) -> &str {
        &self.words[self.rng.low(self.words.len())]
    }

    /// A file of so many bytes.
    fn file(&mut self, bytes: usize) -> Vec<u8> {
        let own: Vec<usize> = (0..24).map(|_| self.rng.low(self.words.len())).collect();
        let mut out = Vec::with_capacity(bytes + 512);
        if self.rng.below(10) < 8 {
            out.extend_from_slice(HEAD.as_bytes());
        }
        while out.len() < bytes {
            let line = LINES[self.rng.low(LINES.len())];
            for byte in line.bytes() {
                match byte {
                    b'@' | b'%' => {
                        let own_word = self.rng.below(100) < 90;
                        let index = if own_word {
                            own[self.rng.low(own.len())]
                        } else {
                            self.rng.low(self.words.len())
                        };
                        let begin = out.len();
                        out.extend_from_slice(self.words[index].as_bytes());
                        if byte == b'%' {
                            out[begin] = out[begin].to_ascii_uppercase();
                        }
                    }
                    b'#' => out.extend_from_slice(self.rng.low(1 << 16).to_string().as_bytes()),
                    _ => out.push(byte),
                }
            }
        }
        out.truncate(bytes);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size { bytes: 1 << 20, files: 300 };

    fn made(dir: &Path, kind: Kind, change: Change) -> Tree {
        Tree::make(&dir.join("tree"), &dir.join("spare"), kind, change, SMALL).unwrap()
    }

    #[test]
    fn the_same_tree_is_made_each_time() {
        for kind in [Kind::Random, Kind::Text, Kind::Sources] {
            let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (one, other) =
                (made(one.path(), kind, Change::Nothing), made(other.path(), kind, Change::Nothing));
            compare(one.path(), other.path()).unwrap();
            compare(other.path(), one.path()).unwrap();
        }
    }

    #[test]
    fn a_change_is_seen_by_the_comparison_and_taken_back_in_whole() {
        for (kind, change) in [(Kind::Sources, Change::Edit), (Kind::Random, Change::Insert)] {
            let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (mut tree, kept) = (made(dir.path(), kind, change), made(kept.path(), kind, Change::Nothing));
            tree.change().unwrap();
            assert!(compare(tree.path(), kept.path()).is_err());
            tree.reset().unwrap();
            compare(tree.path(), kept.path()).unwrap();
        }
    }

    #[test]
    fn a_missing_a_short_and_a_damaged_copy_are_told() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (tree, copy) =
            (made(dir.path(), Kind::Text, Change::Nothing), made(copy.path(), Kind::Text, Change::Nothing));
        let file = copy.path().join("file");
        let mut bytes = fs::read(&file).unwrap();
        bytes[1 << 19] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert!(compare(tree.path(), copy.path()).is_err());
        fs::write(&file, &bytes[..1000]).unwrap();
        assert!(compare(tree.path(), copy.path()).is_err());
        fs::remove_file(&file).unwrap();
        assert!(compare(tree.path(), copy.path()).is_err());
    }
}
