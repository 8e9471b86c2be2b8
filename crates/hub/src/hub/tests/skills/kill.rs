//! 32 nodes promote one skill at the same moment, again and again, while the hub's process ends at named points
//! and everything that no row names is collected. Over the service, SQLite and a chunk store on disk.
//!
//! A few rounds; `CORTEX_ROUNDS=1000` plays so many.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::transfer::played::files;

/// The data directory of the process that is to end, the point where, and after how many passes.
const DIR: &str = "CORTEX_TEST_SKILLS_DIR";
const POINT: &str = "CORTEX_TEST_SKILLS_POINT";
const AFTER: &str = "CORTEX_TEST_SKILLS_AFTER";
const ROUNDS: &str = "CORTEX_ROUNDS";
const NAME: &str = "hub::tests::skills::kill::r16_6_of_32_promoters_one_wins_and_31_are_told";

const PROMOTERS: u64 = 32;
/// Passed by all promoters of a round, by the winner within its transaction, and by all again.
const POINTS: [(&str, u64); 3] =
    [("skills::packed", PROMOTERS), ("skills::row", 1), ("skills::committed", PROMOTERS)];

fn rounds() -> u64 {
    std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// A number that differs for each kill and is the same in each run.
fn spread(kill: u64) -> u64 {
    let hash = blake3::hash(&kill.to_le_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
}

#[test]
fn r16_6_of_32_promoters_one_wins_and_31_are_told() {
    if let Some(dir) = std::env::var_os(DIR) {
        return play(Path::new(&dir));
    }
    let place = tempfile::tempdir().expect("a folder");
    // Of many rounds most are whole, of few each is cut somewhere.
    let every = (rounds() / 50).max(1);
    let mut kills = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().expect("it has one"));
        child.args([NAME, "--exact", "--nocapture"]).env(DIR, place.path());
        if kills < 2 * rounds() {
            let (point, passes) = POINTS[(kills % 3) as usize];
            let after = 1 + spread(kills) % (passes * every);
            child.env(POINT, point).env(AFTER, after.to_string());
        }
        let ended = child.output().expect("started");
        if ended.status.success() {
            break;
        }
        let text = String::from_utf8_lossy(&ended.stderr);
        let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
        assert_eq!(
            signal,
            Some(6),
            "after {kills} kills: {text}\n{}",
            String::from_utf8_lossy(&ended.stdout)
        );
        kills += 1;
    }
    assert!(kills >= 3, "it was killed {kills} times");
    let played = acknowledged(place.path());
    println!("{} rounds, {kills} kills", rounds());
    assert!(played.iter().map(|round| round.n).max() >= Some(rounds()));
}

/// A round of which the promoters were told.
struct Told {
    n: u64,
    winner: u64,
}

fn acknowledged(dir: &Path) -> Vec<Told> {
    let text = std::fs::read_to_string(dir.join("told")).unwrap_or_default();
    let told = text.lines().map(|line| {
        let (n, winner) = line.split_once(' ').expect("two numbers");
        Told { n: n.parse().expect("a number"), winner: winner.parse().expect("a number") }
    });
    told.collect()
}

fn tell(dir: &Path, n: u64, winner: u64) {
    let mut told = std::fs::File::options().create(true).append(true).open(dir.join("told")).expect("a file");
    writeln!(told, "{n} {winner}").expect("said");
}

/// A hub over what the last one left: looks at it, and plays rounds until all are played or it is killed.
fn play(dir: &Path) {
    if let Ok(point) = std::env::var(POINT) {
        let after: u64 = std::env::var(AFTER).expect("with it").parse().expect("a number");
        let passed = AtomicU64::new(0);
        let end = move || {
            if passed.fetch_add(1, Ordering::Relaxed) + 1 == after {
                std::process::abort();
            }
        };
        fail::cfg_callback(point, end).expect("the point is known");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let hub = Hub::start(config(&dir.join("hub"), StoreKind::Sqlite)).await.expect("the hub starts");
        let admin = std::fs::read_to_string(&hub.started().token_file).expect("the token file");
        let world = World {
            hub,
            admin: admin.trim().to_owned(),
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        let mut head = look(&world, dir).await;
        let (mut nodes, mut callers) = (Vec::new(), Vec::new());
        for who in 0..PROMOTERS {
            nodes.push(world.plays(format!("n{who}").leak()).await);
            let name = format!("p{who}-{}", std::process::id());
            let secret = world.token(&name, Role::Operator, false, false).await;
            let directory = &world.hub.context.directory;
            let token = directory.token(&secret::hash(secret.as_bytes())).expect("it is known");
            callers.push(Caller::new(directory.who(token)));
        }
        let (context, chunks) = (world.hub.context.clone(), world.hub.chunks.clone());
        let collecting = tokio::spawn(async move {
            let rules = Sweeping { young_ms: 0, condemned_ms: 0, ..Sweeping::default() };
            loop {
                collect_once(&context, &chunks, rules).await.expect("what rows name is whole");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        while head < rounds() {
            head += 1;
            let winner = round(&world, &nodes, &callers, head).await;
            tell(dir, head, winner);
        }
        assert!(!collecting.is_finished(), "{:?}", collecting.await);
        collecting.abort();
        let _cancelled = collecting.await;
        look(&world, dir).await;
        world.stop().await;
    });
}

fn text(n: u64, who: u64) -> String {
    format!("# نسخة {n} من {who}\n")
}

/// One round, after which revision `n` is the newest. Who won it.
async fn round(world: &World, nodes: &[Played], callers: &[Caller], n: u64) -> u64 {
    let barrier = Arc::new(tokio::sync::Barrier::new(PROMOTERS as usize));
    let promoters = (0..PROMOTERS).map(|who| {
        let (node, caller) = (&nodes[who as usize], callers[who as usize].clone());
        node.folder.write("SKILL.md", Some(text(n, who).as_bytes()));
        node.folder.write("same", Some(b"of all"));
        node.folder.write(&format!("own/{who}"), Some(&n.to_le_bytes().repeat(200)));
        let (skills, barrier, order) =
            (world.hub.skills.clone(), Arc::clone(&barrier), order(node.name(), Some(n - 1)));
        tokio::spawn(async move {
            barrier.wait().await;
            (who, skills.promote(&caller, order).await)
        })
    });
    let (mut won, mut told) = (None, Vec::new());
    for promoter in promoters.collect::<Vec<_>>() {
        match promoter.await.expect("no panic") {
            (who, Ok(promoted)) => {
                assert!(!promoted.already && promoted.row.n == Revision(n), "{promoted:?}");
                assert_eq!(won.replace(who), None, "two won round {n}");
            }
            (_, Err(refusal)) => told.push(refusal),
        }
    }
    let won = won.unwrap_or_else(|| panic!("nobody won round {n}: {:?}", told.first()));
    assert_eq!(told.len() as u64, PROMOTERS - 1);
    let by = callers[won as usize].actor();
    for refusal in told {
        assert_eq!(refusal.code, Code::Conflict, "{refusal:?}");
        let names = refusal.message.contains(&by) && refusal.message.contains(&format!("revision {n}"));
        assert!(names, "{refusal:?}");
    }
    won
}

/// Looks at the whole library: the number of the newest revision. One that was committed and that nobody was
/// told of is told from here on.
async fn look(world: &World, dir: &Path) -> u64 {
    let scrubbed = world.hub.chunks.blobs().scrub(u64::MAX).expect("a disk");
    assert!(scrubbed.damaged.is_empty() && scrubbed.lost.is_empty(), "{scrubbed:?}");
    let told = acknowledged(dir);
    let shown = match world.hub.skills.show(&world.caller(), "build").await {
        Ok(shown) => shown,
        Err(refusal) => {
            assert!(refusal.code == Code::NotFound && told.is_empty(), "{refusal:?}");
            return 0;
        }
    };
    let head = shown.head.n.0;
    let acknowledged = told.last().map_or(0, |round| round.n);
    assert!(head == acknowledged || head == acknowledged + 1, "{head} after {acknowledged} were told");
    for (row, n) in shown.revisions.iter().zip((1..=head).rev()) {
        assert_eq!(row.n.0, n, "no number is left out");
        let pin = world.hub.chunks.pin().expect("a pin");
        world.hub.chunks.whole(row.tree, &pin).expect("whole");
        // Each chunk is read, and verified by that.
        let files = files(&world.hub.chunks, row.tree);
        let who = (0..PROMOTERS)
            .find(|who| files["SKILL.md"] == text(n, *who).into_bytes())
            .expect("of this round");
        assert_eq!(files[&format!("own/{who}")], n.to_le_bytes().repeat(200), "of one promoter alone");
        assert!(row.by.starts_with(&format!("token:p{who}-")), "{row:?}");
        if let Some(round) = told.iter().find(|round| round.n == n) {
            assert_eq!(round.winner, who, "what was told is kept");
        } else if n == head {
            tell(dir, n, who);
        }
    }
    let kept = head.min(cortex_core::limits::SKILL_REVISIONS_KEPT as u64);
    assert_eq!(shown.revisions.len() as u64, kept);
    head
}
