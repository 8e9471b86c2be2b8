//! A hub of a few lines: answers each request by a script, keeps what it was sent, and can break
//! a stream off. It listens on loopback and ends with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: String,
    /// The body as it came.
    pub(crate) bytes: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A whole answer.
    Json(u16, String),
    /// A stream that ends as it should.
    Lines(Vec<String>),
    /// A stream that breaks off after these bytes.
    Broken(Vec<String>),
    /// These bytes, which are a whole answer.
    Raw(Vec<u8>),
    /// These bytes, which are the beginning of an answer, and the end of the connection.
    Torn(Vec<u8>),
    /// A stream of bytes as they are put into the channel. It ends with the channel: as it should when the
    /// last piece is empty, else torn.
    Pieces(Arc<Mutex<Receiver<Vec<u8>>>>),
    /// The connection is closed without a word.
    Closed,
}

type Script = dyn Fn(&Asked, usize) -> Answer + Send + Sync;

/// The hub.
pub(crate) struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Answers by `script`, which is given the request and how many came before it.
    pub(crate) fn start(script: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, script): (_, Arc<Script>) = (Arc::clone(&asked), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                std::thread::spawn(move || serve(&stream, &kept, &*script));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panicked with it").clone()
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Vec<Asked>>, script: &Script) {
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        let before = {
            let mut kept = kept.lock().expect("nobody panicked with it");
            // What is kept for the test is its text: bodies of packs would add up.
            kept.push(Asked { bytes: Vec::new(), ..asked.clone() });
            kept.len() - 1
        };
        // A client that has left is part of some tests.
        if answer(stream, script(&asked, before)).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Asked> {
    let mut asked = Asked::default();
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut words = first.split_whitespace();
    asked.method = words.next()?.to_owned();
    asked.path = words.next()?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        asked.head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8_lossy(&body).into_owned();
    asked.bytes = body;
    Some(asked)
}

fn answer(mut stream: &TcpStream, answer: Answer) -> std::io::Result<()> {
    let chunked = |lines: &[String]| {
        let chunks = lines.iter().map(|line| format!("{:x}\r\n{line}\r\n", line.len())).collect::<String>();
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
        )
    };
    match answer {
        Answer::Json(status, body) => write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
        Answer::Lines(lines) => write!(stream, "{}0\r\n\r\n", chunked(&lines)),
        Answer::Broken(lines) => {
            write!(stream, "{}", chunked(&lines))?;
            stream.shutdown(std::net::Shutdown::Both)
        }
        Answer::Raw(bytes) => stream.write_all(&bytes),
        Answer::Torn(bytes) => {
            stream.write_all(&bytes)?;
            stream.shutdown(std::net::Shutdown::Both)
        }
        Answer::Pieces(pieces) => {
            let head = "content-type: application/octet-stream\r\ntransfer-encoding: chunked";
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n")?;
            let mut ends_well = false;
            for piece in pieces.lock().expect("nobody panicked with it").iter() {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(&piece)?;
                stream.write_all(b"\r\n")?;
                ends_well = piece.is_empty();
                if ends_well {
                    break;
                }
            }
            if ends_well { Ok(()) } else { stream.shutdown(std::net::Shutdown::Both) }
        }
        Answer::Closed => stream.shutdown(std::net::Shutdown::Both),
    }
}
