//! What a clerk that watches says over its pipe, and that it waits for nothing but what it is told.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use cortex_core::files::path::FilePath;
use cortex_core::sandbox::Access;
use cortex_core::transfer::Filters;
use cortex_wire::convert::watch::news_from_bytes;

use super::*;

/// A clerk without walls, on a thread, and the node's ends of its pipes.
struct Clerk {
    jobs: Option<File>,
    replies: File,
    life: JoinHandle<io::Result<()>>,
}

impl Clerk {
    fn new(first: &WatchJob) -> Self {
        let (reads, jobs) = io::pipe().expect("a pipe");
        let (replies, writes) = io::pipe().expect("a pipe");
        let (reads, writes) = (File::from(OwnedFd::from(reads)), File::from(OwnedFd::from(writes)));
        let first = first.to_frame();
        let life = std::thread::spawn(move || live(&mut Talk::new(reads, writes), &Desk::of(None), &first));
        Self {
            jobs: Some(File::from(OwnedFd::from(jobs))),
            replies: File::from(OwnedFd::from(replies)),
            life,
        }
    }

    fn say(&mut self, frame: &Frame) {
        frame.write_to(self.jobs.as_mut().expect("open")).expect("it lives");
    }

    fn hear(&mut self) -> (WatchId, Sight) {
        let frame = Frame::read_from(&mut self.replies).expect("readable").expect("it lives");
        let news = news_from_bytes(&frame.body).expect("news");
        (news.id, news.sight)
    }

    /// Whether it says anything within this time.
    fn says_within(&self, ms: u16) -> bool {
        let mut fds = [PollFd::new(self.replies.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(ms)).expect("polled") > 0
    }

    /// Its node goes away.
    fn end(mut self) -> io::Result<()> {
        self.jobs = None;
        self.life.join().expect("no panic")
    }
}

fn id(n: u8) -> WatchId {
    WatchId::mint(1, &[n; 10])
}

fn job(n: u8, path: &std::path::Path) -> WatchJob {
    let text = path.to_str().expect("text");
    let rest = cortex_core::files::path::RelPath::parse(&text[1..]).expect("a path");
    WatchJob {
        ask: WatchAsk {
            id: id(n),
            path: FilePath::parse(text).expect("a path"),
            filters: Filters::default(),
        },
        reach: Reach { root: "/".to_owned(), rest, access: Access::Read },
    }
}

fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("a/ملف")).expect("made");
    std::fs::create_dir_all(folder.path().join("b")).expect("made");
    folder
}

#[test]
fn a_job_is_read_as_it_was_written() {
    let job = job(1, std::path::Path::new("/srv/مشروع"));
    assert_eq!(WatchJob::from_frame(&job.to_frame()), Some(job.clone()));
    assert_eq!(WatchJob::from_frame(&Frame::new(Kind::Watch, vec![1, 2, 3])), None);
    assert_eq!(WatchJob::from_frame(&Frame { kind: Kind::Operation, ..job.to_frame() }), None);
}

/// What is said over the pipe has a length and no names of what changed: no name on the disk ends a word early.
#[test]
fn names_with_line_feeds_and_other_controls_neither_break_the_pipe_nor_are_told() {
    let scene = scene();
    let (a, b) = (scene.path().join("a"), scene.path().join("b"));
    let names = ["x\ny", "\u{1b}[2J", "\r", "\u{1}"];
    let mut odd = job(3, &a);
    odd.reach.root = format!("/srv/{}", names.concat());
    assert_eq!(WatchJob::from_frame(&odd.to_frame()), Some(odd));
    names.iter().for_each(|name| std::fs::create_dir(a.join(name)).expect("made"));
    let mut clerk = Clerk::new(&job(1, &a));
    assert_eq!(clerk.hear(), (id(1), Sight::Watching));
    clerk.say(&job(2, &b).to_frame());
    assert_eq!(clerk.hear(), (id(2), Sight::Watching));
    for name in names {
        std::fs::write(a.join(name).join("x"), "x").expect("written");
        std::fs::write(b.join(name), "x").expect("written");
    }
    assert!(!clerk.says_within(400), "no tree takes such names");
    std::fs::rename(a.join("x\ny"), a.join("اسم")).expect("moved");
    assert_eq!(clerk.hear(), (id(1), Sight::Changed));
    std::fs::rename(b.join("\r"), b.join("x")).expect("moved");
    assert_eq!(clerk.hear(), (id(2), Sight::Changed));
    assert!(clerk.end().is_ok());
}

#[test]
fn folders_are_watched_each_by_itself_until_they_are_not_wanted() {
    let scene = scene();
    let (a, b) = (scene.path().join("a"), scene.path().join("b"));
    let mut clerk = Clerk::new(&job(1, &a));
    assert_eq!(clerk.hear(), (id(1), Sight::Watching));
    clerk.say(&job(2, &b).to_frame());
    assert_eq!(clerk.hear(), (id(2), Sight::Watching));
    std::fs::write(a.join("ملف/x"), "x").expect("written");
    assert_eq!(clerk.hear(), (id(1), Sight::Changed));
    std::fs::create_dir_all(b.join("new/deep")).expect("made");
    assert_eq!(clerk.hear(), (id(2), Sight::Changed));
    std::thread::sleep(2 * TELL_EVERY);
    while clerk.says_within(1) {
        assert_eq!(clerk.hear(), (id(2), Sight::Changed), "the new folders have their watches");
    }
    std::fs::write(b.join("new/deep/x"), "x").expect("written");
    assert_eq!(clerk.hear(), (id(2), Sight::Changed));
    clerk.say(&unwatch(id(2)));
    clerk.say(&unwatch(id(9)));
    std::fs::remove_dir_all(&a).expect("removed");
    // What the removal of what lies in it is told as comes before, or not.
    let mut heard = clerk.hear();
    while heard == (id(1), Sight::Changed) {
        heard = clerk.hear();
    }
    assert_eq!(heard, (id(1), Sight::Blind(Blind::Moved)));
    std::fs::write(b.join("x"), "x").expect("written");
    assert!(!clerk.says_within(400), "nobody wants it");
    clerk.say(&job(3, &a).to_frame());
    assert_eq!(clerk.hear(), (id(3), Sight::Blind(Blind::Moved)), "it is not there");
    assert!(clerk.end().is_ok());
}

#[test]
fn a_second_job_of_an_id_replaces_the_first() {
    let scene = scene();
    let (a, b) = (scene.path().join("a"), scene.path().join("b"));
    let mut clerk = Clerk::new(&job(1, &a));
    assert_eq!(clerk.hear(), (id(1), Sight::Watching));
    clerk.say(&job(1, &b).to_frame());
    assert_eq!(clerk.hear(), (id(1), Sight::Watching));
    std::fs::write(a.join("x"), "x").expect("written");
    assert!(!clerk.says_within(400));
    std::fs::write(b.join("x"), "x").expect("written");
    assert_eq!(clerk.hear(), (id(1), Sight::Changed));
    assert!(clerk.end().is_ok());
}

#[test]
fn a_folder_that_changes_all_the_time_is_told_of_a_few_times_a_second() {
    let scene = scene();
    let a = scene.path().join("a");
    let mut clerk = Clerk::new(&job(1, &a));
    assert_eq!(clerk.hear(), (id(1), Sight::Watching));
    let (until, mut told) = (Instant::now() + Duration::from_secs(1), 0);
    while Instant::now() < until {
        std::fs::write(a.join("x"), "x").expect("written");
        if clerk.says_within(0) {
            assert_eq!(clerk.hear(), (id(1), Sight::Changed));
            told += 1;
        }
    }
    assert!((2..=6).contains(&told), "{told} times");
    assert!(clerk.says_within(600), "the last change is told");
    assert!(clerk.end().is_ok());
}

#[test]
fn a_node_that_makes_no_sense_ends_it() {
    let scene = scene();
    for frame in [
        Frame::new(Kind::Operation, vec![]),
        Frame::new(Kind::Unwatch, vec![1]),
        Frame::new(Kind::Watch, vec![]),
    ] {
        let mut clerk = Clerk::new(&job(1, &scene.path().join("a")));
        assert_eq!(clerk.hear(), (id(1), Sight::Watching));
        clerk.say(&frame);
        assert!(clerk.life.join().expect("no panic").is_err(), "{frame:?}");
    }
}
