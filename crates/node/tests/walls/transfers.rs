//! Transfers as a clerk in the room of a policy does them: whose files they are, what it may not write, and
//! that a killed one leaves nothing half-made.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;

use bytes::Bytes;
use cortex_content::asking::Answering;
use cortex_content::pack::PackWriter;
use cortex_core::Code;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::FilePath;
use cortex_core::id::Revision;
use cortex_core::limits::CARRY_DATA_BYTES_MAX;
use cortex_core::sandbox::{Access, Level};
use cortex_core::sync::{DeleteLimits, Mode, Push, RootState};
use cortex_core::transfer::{ApplyAsk, Carry, Filters, SendAsk, TransferEnd, TransferWork, TreeTold};
use cortex_node::local::{LocalSpec, LocalTree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use super::clerks::clerks;
use super::support::{LEVELS, World, as_each_user, is_root, walls};

fn tree(path: &Path) -> LocalTree {
    LocalTree::open(path, &LocalSpec { vcs: true, ..LocalSpec::default() }, None, None).expect("a tree")
}

fn path(path: &Path) -> FilePath {
    FilePath::parse(path.to_str().expect("text")).expect("a path")
}

fn filters() -> Filters {
    Filters { vcs: true, ignore_files: false, ..Filters::default() }
}

fn apply(dest: &Path, target: TreeId) -> TransferWork {
    TransferWork::Apply(Box::new(ApplyAsk {
        dest: path(dest),
        target,
        base: None,
        only: None,
        mode: Mode::Push(Push { first: true, force: false, delete: false }),
        limits: DeleteLimits::default(),
        accepted: None,
        filters: filters(),
        checksum: false,
        dry_run: false,
        read_only: false,
        node_name: "n1".to_owned(),
        revision: Revision(1),
        identity: None,
    }))
}

fn source(files: u64, len: usize) -> tempfile::TempDir {
    let source = tempfile::tempdir().expect("a folder");
    for number in 0..files {
        let folder = source.path().join(format!("مجلد{}", number % 5));
        std::fs::create_dir_all(&folder).expect("made");
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        std::fs::write(folder.join(number.to_string()), bytes).expect("written");
    }
    source
}

/// Answers what is asked for; `after` is done before the pack that comes behind so many bytes. How it ended, and
/// plain bytes that were sent.
async fn serve(
    mut tree: LocalTree,
    to: mpsc::Sender<Carry>,
    mut from: mpsc::Receiver<Carry>,
    after: (u64, impl Fn()),
) -> (Option<TransferEnd>, u64) {
    let (mut answering, mut writer, mut sent) = (Answering::new(), PackWriter::new(1), 0);
    while let Some(carry) = from.recv().await {
        match carry {
            Carry::Wants(ids) => answering.want(&ids).expect("within the window"),
            Carry::Progress(_) => {}
            Carry::End(end) => return (Some(*end), sent),
            carry @ (Carry::Tree(_)
            | Carry::Held(_)
            | Carry::Pack(_)
            | Carry::Missing(_)
            | Carry::Refused(_)
            | Carry::Data(_)
            | Carry::DataEnd(_)) => panic!("{carry:?}"),
        }
        while !answering.is_idle() {
            for id in answering.next(|id| tree.len_of(id)).expect("lengths").give {
                let bytes = tree.read(&id).expect("read").expect("it is there");
                sent += bytes.len() as u64;
                let _added = writer.add(id, &bytes);
            }
            if sent > after.0 {
                (after.1)();
            }
            let Some(pack) = writer.finish() else { continue };
            for piece in [pack.head.to_bytes(), pack.tail].concat().chunks(CARRY_DATA_BYTES_MAX) {
                let _heard = to.send(Carry::Pack(Bytes::copy_from_slice(piece))).await;
            }
        }
    }
    (None, sent)
}

const NEVER: (u64, fn()) = (u64::MAX, || {});

#[test]
fn a_tree_that_is_pushed_belongs_to_the_user_of_the_runs() {
    as_each_user("transfers::a_tree_that_is_pushed_belongs_to_the_user_of_the_runs", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let (work, from) = (world.path("work"), source(60, 50_000));
            let given = walls(&[(&work, Access::Write, true)]);
            let (dest, target) = (work.join("new/مشروع"), tree(from.path()).root());
            let mut end = None;
            let told = world
                .trial
                .transfer(Some(&given), apply(&dest, target), async |to, hears| {
                    end = serve(tree(from.path()), to, hears, NEVER).await.0;
                })
                .await;
            assert_eq!(told.expect("done"), None, "it was said on the stream");
            let end = end.expect("told");
            assert_eq!((end.root, end.files), (Some(target), 60), "{level:?}");
            let script = format!("cd {} && test -O مجلد1/1 && test -w مجلد1 && ls | wc -l", dest.display());
            assert_eq!(world.text(&given, &script).await.trim(), "5", "{level:?}");
            // The same again is told without a stream.
            let told = world
                .trial
                .transfer(Some(&given), apply(&dest, target), async |_to, _hears| panic!("a stream"))
                .await;
            let news = told.expect("done").expect("told").end.expect("in sync");
            assert_eq!((news.root, news.files), (Some(target), 0));
            world.finish().await;
        }
    });
}

#[test]
fn a_folder_that_runs_may_not_write_is_refused_with_its_owner() {
    as_each_user("transfers::a_folder_that_runs_may_not_write_is_refused_with_its_owner", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let (work, from) = (world.path("work"), source(3, 10));
            let closed = work.join("closed");
            std::fs::create_dir(&closed).expect("made");
            let mode = if is_root() { 0o755 } else { 0o555 };
            std::fs::set_permissions(&closed, PermissionsExt::from_mode(mode)).expect("set");
            let given = walls(&[(&work, Access::Write, true)]);
            for dest in [closed.clone(), closed.join("below")] {
                let work = apply(&dest, tree(from.path()).root());
                let told = world.trial.transfer(Some(&given), work, async |_to, _hears| panic!("a stream"));
                let refusal = told.await.expect("told").expect("told").end.expect_err("refused");
                assert_eq!(refusal.code, Code::Forbidden, "{refusal:?}");
                let uid = std::fs::metadata(&closed).expect("it is there").uid();
                assert!(refusal.message.contains(&format!("uid {uid}")), "{refusal:?}");
                assert!(refusal.hint.contains("setfacl"), "{refusal:?}");
            }
            assert!(std::fs::read_dir(&closed).expect("read").next().is_none());
            world.finish().await;
        }
    });
}

#[test]
fn a_clerk_that_is_killed_leaves_only_what_the_next_one_goes_on_with() {
    as_each_user("transfers::a_clerk_that_is_killed_leaves_only_what_the_next_one_goes_on_with", async {
        let world = World::new(Level::Full).await;
        let (work, from) = (world.path("work"), source(500, 60_000));
        let given = walls(&[(&work, Access::Write, true)]);
        let (dest, target) = (work.join("t"), tree(from.path()).root());
        let kills = || {
            // One that is gone already needs no signal.
            clerks()
                .into_iter()
                .for_each(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default());
        };
        let mut before = 0;
        let lost = world
            .trial
            .transfer(Some(&given), apply(&dest, target), async |to, hears| {
                before = serve(tree(from.path()), to, hears, (24 * 1024 * 1024, kills)).await.1;
            })
            .await;
        assert_eq!(lost.expect_err("lost").code, Code::Internal);
        assert!(before > 0);
        let seen: Vec<_> =
            std::fs::read_dir(&dest).expect("read").map(|entry| entry.expect("read")).collect();
        assert_eq!(seen.iter().map(|entry| entry.file_name()).collect::<Vec<_>>(), [".cortex"]);
        let (mut end, mut again) = (None, 0);
        let told = world
            .trial
            .transfer(Some(&given), apply(&dest, target), async |to, hears| {
                (end, again) = serve(tree(from.path()), to, hears, NEVER).await;
            })
            .await;
        assert_eq!(told.expect("done"), None);
        assert_eq!(end.expect("told").root, Some(target));
        let all = tree(from.path()).totals().bytes;
        let window = cortex_core::limits::WANTS_OPEN_BYTES_MAX;
        assert!(before + again <= all + window, "{before} and {again} of {all} bytes were sent");
        world.finish().await;
    });
}

#[test]
fn a_file_is_sent_from_a_folder_that_may_only_be_read() {
    as_each_user("transfers::a_file_is_sent_from_a_folder_that_may_only_be_read", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let folder = world.add_folder("read");
            std::fs::write(folder.join("ملف"), "text").expect("written");
            std::fs::set_permissions(folder.join("ملف"), PermissionsExt::from_mode(0o644)).expect("set");
            let given = walls(&[(&folder, Access::Read, false)]);
            let ask = SendAsk {
                source: path(&folder.join("ملف")),
                only: None,
                base: None,
                filters: filters(),
                checksum: false,
                mark: false,
                identity: None,
            };
            let mut told: Option<TreeTold> = None;
            let ended = world
                .trial
                .transfer(Some(&given), TransferWork::Send(Box::new(ask)), async |to, mut hears| {
                    while let Some(carry) = hears.recv().await {
                        if let Carry::Tree(tree) = carry {
                            told = Some(tree);
                            to.send(Carry::End(Box::default())).await.expect("it hears");
                        }
                    }
                })
                .await;
            assert_eq!(ended.expect("done"), None);
            let told = told.expect("told");
            assert_eq!((told.state, told.entries, told.bytes), (RootState::Dir, 1, 4));
            assert_eq!(std::fs::read_dir(&folder).expect("read").count(), 1, "nothing is left in it");
            world.finish().await;
        }
    });
}
