//! Pulls: the hub hands on, and keeps nothing.

use cortex_core::transfer::LeftOut;
use http_body_util::BodyExt as _;

use super::*;

/// What comes of a pull.
struct Reading {
    body: Incoming,
    front: Vec<u8>,
}

impl World {
    async fn pull(&self) -> String {
        id_of(
            &self
                .begin(json!({"kind": "pull", "node": "n1", "source": "/srv/مشروع", "exclude": ["*.o"]}))
                .await,
        )
    }

    async fn read(&self, id: &str) -> Reading {
        let bearer = format!("Bearer {}", self.admin);
        let headers = [("authorization", &*bearer)];
        let response = self.open(Method::GET, &format!("{API}/{id}/content"), &headers, Bytes::new()).await;
        assert_eq!(response.status().as_u16(), 200);
        Reading { body: response.into_body(), front: Vec::new() }
    }

    async fn hand(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        let admin = self.admin.clone();
        self.octets(&admin, Method::POST, path, body).await
    }
}

impl Reading {
    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<(char, Vec<u8>)> {
        loop {
            if let Some((head, rest)) = self.front.split_first_chunk::<5>() {
                let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if rest.len() >= len {
                    let frame = (char::from(head[0]), rest[..len].to_vec());
                    self.front.drain(..5 + len);
                    return Some(frame);
                }
            }
            let next = tokio::time::timeout(SOON, self.body.frame()).await.expect("in time")?;
            self.front.extend_from_slice(&next.expect("it is whole").into_data().expect("data"));
        }
    }

    async fn json(&mut self, kind: char) -> Value {
        let (found, body) = self.next().await.expect("a frame");
        assert_eq!(found, kind);
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") }
    }
}

fn tree() -> TreeTold {
    TreeTold {
        root: root(7),
        state: RootState::Dir,
        counts: SideCounts { files: 3, root_entries: 2 },
        entries: 4,
        bytes: 999,
        identity: None,
        left_out: LeftOut { unnamed: 3, unfit: 1, ..LeftOut::default() },
    }
}

#[tokio::test]
async fn a_pull_is_handed_on_as_the_reader_asks_for_it() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.mover("n1").await;
    let transfer = world.pull().await;
    node.is_left_alone().await;
    let wants = format!("{API}/{transfer}/wants");
    world.hand(&wants, id(1).as_bytes().to_vec()).await.refused(409, "conflict");
    let ((mut reading, ask), clerk) = tokio::join!(async { (world.read(&transfer).await, ()) }, async {
        let ask = node.ask().await;
        let clerk = node.open(&world, &ask);
        clerk.say(Carry::Progress(Progress { files: 1, bytes: 1, ..Progress::default() })).await;
        clerk.say(Carry::Tree(tree())).await;
        (ask, clerk)
    });
    let () = ask;
    let (ask, mut clerk) = clerk;
    assert_eq!(
        (sends(&ask).source.as_str(), &*sends(&ask).filters.exclude),
        ("/srv/مشروع", &["*.o".to_owned()][..])
    );
    let told = reading.json('T').await;
    assert_eq!(
        (&told["root"], &told["state"], &told["entries"]),
        (&json!(root(7).to_string()), &json!("dir"), &json!(4))
    );
    let left_out = json!({"unnamed": 3, "too_large": 0, "rules_unread": 0, "unreadable": 0, "unfit": 1});
    assert_eq!(told["left_out"], left_out);
    let note = PathNote { path: RelPath::parse("سر").expect("a path"), what: Noted::Held(Why::Ignored) };
    clerk.say(Carry::Held(vec![note])).await;
    assert_eq!(reading.json('N').await, json!([{"path": "سر", "what": "ignored"}]));
    let two: Vec<u8> = ids([1, 2]).iter().flat_map(|id| *id.as_bytes()).collect();
    world.hand(&wants, two).await.ok(204);
    assert_eq!(clerk.hear().await.expect("it goes on"), Carry::Wants(ids([1, 2])));
    clerk.say(Carry::Pack(pack([1]))).await;
    clerk.say(Carry::Missing(ids([2]))).await;
    assert_eq!(reading.next().await, Some(('P', pack([1]).to_vec())));
    assert_eq!(reading.next().await, Some(('M', id(2).as_bytes().to_vec())));
    let view = world.hand(&format!("{API}/{transfer}/end"), Bytes::new()).await.ok(200);
    assert_eq!((&view["state"], &view["root"]), (&json!("done"), &json!(root(7).to_string())));
    assert!(view["nodes"][0]["wire_bytes"].as_u64() >= Some(1_024), "{view}");
    assert_eq!(view["nodes"][0]["left_out"], left_out, "the view tells it as well");
    assert!(matches!(clerk.hear().await, Ok(Carry::End(end)) if end.root == Some(root(7))));
    assert_eq!(reading.json('E').await, Value::Null);
    assert_eq!(reading.next().await, None);
    clerk.is_cut().await;
    let rows = world.rows("pull.start").await;
    assert_eq!(rows[0].2, ["@pull", "/srv/مشروع"]);
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_slow_reader_holds_its_node_back_and_gets_all_of_it() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let transfer = world.pull().await;
    let (mut reading, clerk) = tokio::join!(world.read(&transfer), node.opened(&world));
    clerk.say(Carry::Tree(tree())).await;
    reading.json('T').await;
    let piece = |number: u32| {
        let mut bytes = vec![0; 256 * 1024];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        Bytes::from(bytes)
    };
    let said = Arc::new(std::sync::atomic::AtomicU32::new(0));
    const PIECES: u32 = 200;
    let count = Arc::clone(&said);
    let sending = tokio::spawn(async move {
        for number in 0..PIECES {
            clerk.say(Carry::Pack(piece(number))).await;
            count.store(number + 1, std::sync::atomic::Ordering::SeqCst);
        }
        clerk
    });
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let before = said.load(std::sync::atomic::Ordering::SeqCst);
    assert!(before < PIECES, "50 MiB were taken of the node, and none of it read");
    for number in 0..PIECES {
        assert_eq!(reading.next().await, Some(('P', piece(number).to_vec())), "{number}");
    }
    let _clerk = sending.await.expect("no panic");
    world.hand(&format!("{API}/{transfer}/end"), Bytes::new()).await.ok(200);
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_may_come_again_and_is_waited_for_only_so_long() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    world.set_patience(|patience| patience.reader = Duration::from_millis(900));
    let transfer = world.pull().await;
    let (mut reading, mut clerk) = tokio::join!(world.read(&transfer), node.opened(&world));
    clerk.say(Carry::Tree(tree())).await;
    reading.json('T').await;
    drop(reading);
    assert_eq!(node.cancelled().await.to_string(), transfer);
    clerk.is_cut().await;
    let (mut reading, mut clerk) = tokio::join!(world.read(&transfer), node.opened(&world));
    clerk.say(Carry::Tree(tree())).await;
    reading.json('T').await;
    // The link breaks: the reader is told to come again.
    world.hub.mesh.detach(&node.link);
    clerk.is_cut().await;
    let problem = reading.json('E').await;
    assert_eq!((&problem["code"], &problem["retryable"]), (&json!("node_offline"), &json!(true)));
    assert_eq!(reading.next().await, None);
    let view = world.over(&transfer).await;
    assert_eq!((&view["state"], &view["nodes"][0]["error"]["code"]), (&json!("failed"), &json!("timeout")));
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn what_the_node_refuses_of_a_pull_is_the_last_frame() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let transfer = world.pull().await;
    let (mut reading, ask) = tokio::join!(world.read(&transfer), node.ask());
    node.tells(&world, &ask, Err(Refusal::new(Code::NotFound, "There is no such folder.")));
    assert_eq!(reading.json('E').await["code"], "not_found");
    assert_eq!(reading.next().await, None);
    assert_eq!(world.over(&transfer).await["nodes"][0]["error"]["code"], "not_found");
    world.get(&format!("{API}/{transfer}/content")).await.refused(404, "not_found");
    world.is_idle().await;
    world.stop().await;
}
