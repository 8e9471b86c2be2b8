//! What is known of folders that were pushed before: a file for each in the user's cache folder, by which
//! what nobody touched is not read again. Whoever deletes one loses nothing but time.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cortex_core::files::content::ContentId;

/// Folders of which something is kept: those that were pushed last.
const FOLDERS_MAX: usize = 64;
/// Bytes that are kept of all together. A file of 20,000 entries has about 2 MB.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The file of a folder, in `home`, which is made. Others that are beyond the bounds go. `None` when the disk
/// has no place for one, and for a folder that would change by it: all is read then.
pub(super) fn file_of(home: &Path, source: &Path) -> Option<PathBuf> {
    let source = source.canonicalize().ok()?;
    DirBuilder::new().recursive(true).mode(0o700).create(home).ok()?;
    let home = &home.canonicalize().ok()?;
    if home.starts_with(&source) {
        return None;
    }
    let id = ContentId::of(source.as_os_str().as_encoded_bytes());
    let file = home.join(id.to_string());
    // It is the last one that was used, whether or not it changes.
    if let Ok(file) = File::options().append(true).open(&file) {
        let _touched = file.set_modified(SystemTime::now());
    }
    trim(home, &file, (FOLDERS_MAX, BYTES_MAX));
    Some(file)
}

/// Removes what was not used for the longest time, and what a command left that was killed. `used` stays.
fn trim(home: &Path, used: &Path, (count_max, bytes_max): (usize, u64)) {
    let Ok(entries) = fs::read_dir(home) else { return };
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path() != used)
        .filter_map(|entry| {
            let about = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((about.modified().ok()?, about.len(), entry.path()))
        })
        .collect();
    files.sort_by(|one, other| other.cmp(one));
    let mut bytes = fs::metadata(used).map_or(0, |about| about.len());
    for (place, (_, len, path)) in files.into_iter().enumerate() {
        bytes = bytes.saturating_add(len);
        if place + 1 >= count_max || bytes > bytes_max {
            let _gone = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;

    fn names(home: &Path) -> Vec<String> {
        let entries = fs::read_dir(home).expect("a folder").flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn each_folder_has_a_file_by_its_real_path_in_a_folder_that_is_private() {
        let place = tempfile::tempdir().expect("a folder");
        let home = place.path().join("cache/cortex/scans");
        let (one, other) = (place.path().join("one"), place.path().join("other"));
        fs::create_dir(&one).expect("made");
        std::os::unix::fs::symlink(&one, &other).expect("linked");
        let file = file_of(&home, &one).expect("a place");
        assert_eq!(file_of(&home, &other), Some(file.clone()));
        let third = place.path().join("third");
        fs::create_dir(&third).expect("made");
        assert!(file_of(&home, &third).is_some_and(|third| third != file));
        assert_eq!(file_of(&home, place.path()), None, "it would be in it");
        assert_eq!(fs::metadata(&home).expect("it is there").permissions().mode() & 0o777, 0o700);
        assert_eq!(file_of(&home, &place.path().join("gone")), None);
    }

    #[test]
    fn the_ones_that_were_used_last_stay_within_the_bounds() {
        let place = tempfile::tempdir().expect("a folder");
        for (age, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let file = File::create(place.path().join(name)).expect("made");
            file.set_len(10).expect("long");
            let then = SystemTime::now() - Duration::from_secs(100 * (age as u64 + 1));
            file.set_modified(then).expect("dated");
        }
        trim(place.path(), &place.path().join("d"), (3, 1000));
        assert_eq!(names(place.path()), ["a", "b", "d"]);
        trim(place.path(), &place.path().join("d"), (3, 25));
        assert_eq!(names(place.path()), ["a", "d"]);
        trim(place.path(), &place.path().join("none"), (1, 1000));
        assert_eq!(names(place.path()), Vec::<String>::new());
    }
}
