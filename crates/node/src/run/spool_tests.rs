//! The spool against a plain vector, with bounds so small that everything spills.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Append(Stream, Vec<u8>),
    Read(u64, u64),
    Trim(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    prop_oneof![
        3 => (stream, proptest::collection::vec(any::<u8>(), 1..90)).prop_map(|(s, d)| Op::Append(s, d)),
        3 => (0..100u64, 1..70u64).prop_map(|(at, max)| Op::Read(at, max)),
        1 => (0..100u64).prop_map(Op::Trim),
    ]
}

/// Every byte that was ever written, in order.
#[derive(Default)]
struct Model {
    bytes: Vec<(Stream, u64, u8)>,
    begin: u64,
    ends: Positions,
}

impl Model {
    fn append(&mut self, stream: Stream, data: &[u8]) {
        for byte in data {
            self.bytes.push((stream, self.ends.of(stream), *byte));
            self.ends.advance(stream, 1);
        }
    }

    fn place(&self, percent: u64) -> u64 {
        self.begin + (self.ends.total() - self.begin) * percent / 100
    }

    fn check(&self, position: u64, max: u64, read: &Read) {
        match read {
            Read::Here(stream, offset, data) => {
                assert!(!data.is_empty() && data.len() as u64 <= max);
                for (i, byte) in data.iter().enumerate() {
                    let expected = self.bytes[position as usize + i];
                    assert_eq!((*stream, offset + i as u64, *byte), expected);
                }
            }
            Read::Nothing => assert_eq!(position, self.ends.total(), "only the end holds nothing"),
            Read::OnDisk => panic!("it was loaded"),
        }
    }
}

async fn read_loaded(spool: &Arc<Spool>, position: u64, max: u64) -> Read {
    match spool.read(position, max) {
        Read::OnDisk => {
            spool.load(position).await.expect("its file is there");
            spool.read(position, max)
        }
        read @ (Read::Here(..) | Read::Nothing) => read,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_spool_gives_back_what_was_written_wherever_it_lies(ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Arc::new(Spool::with_bounds(folder.path().join("run"), 100, 64));
        let mut model = Model::default();
        runtime.block_on(async {
            for op in ops {
                match op {
                    Op::Append(stream, data) => {
                        spool.append(stream, Bytes::from(data.clone())).await.expect("room");
                        model.append(stream, &data);
                    }
                    Op::Read(at, max) => {
                        let position = model.place(at);
                        model.check(position, max, &read_loaded(&spool, position, max).await);
                    }
                    Op::Trim(at) => {
                        model.begin = model.place(at);
                        spool.trim(model.begin);
                    }
                }
            }
            let state = spool.lock();
            let in_memory: u64 = state.pieces.iter().filter(|p| matches!(p.place, Place::Memory(_))).map(|p| p.len).sum();
            assert_eq!(state.in_memory, in_memory);
            assert!(state.in_memory <= 100);
        });
    }
}

#[tokio::test]
async fn short_output_never_touches_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Arc::new(Spool::new(folder.path().join("run")));
    spool.append(Stream::Stdout, Bytes::from_static(b"hello")).await.expect("room");
    assert!(!folder.path().join("run").exists());
    assert_eq!(spool.read(1, 3), Read::Here(Stream::Stdout, 1, Bytes::from_static(b"ell")));
}

#[tokio::test]
async fn the_files_of_a_removed_spool_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run");
    let spool = Arc::new(Spool::with_bounds(path.clone(), 0, 64));
    spool.append(Stream::Stdout, Bytes::from_static(b"hello")).await.expect("room");
    assert!(path.exists());
    spool.remove();
    tokio::time::timeout(std::time::Duration::from_secs(5), async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("removed in time");
    assert_eq!(spool.read(0, 10), Read::Nothing);
}
