//! `cortex fs ls|cat|write|edit|rm|mv|cp|mkdir|stat|find|grep`: one file per verb. Every verb is one call
//! of the HTTP API, or the pages or parts of one; what is allowed is judged there.

mod cat;
mod cp;
mod edit;
mod find;
mod fresh;
mod grep;
mod ls;
mod mkdir;
mod mv;
mod pages;
mod rm;
pub(super) mod show;
mod stat;
mod write;

use cortex_core::Code;
use cortex_core::files::content::ContentId;
use http::Method;
use serde::de::DeserializeOwned;

use super::args::{self, Place};
use super::{Context, ask};
use crate::client::{Call, Client, encode};
use crate::env;
use crate::error::{Failure, Result};

/// Work on the files of a node. A path is written NODE:PATH, from the top of the node's disk.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs ls build-2:/srv/app\n  cortex fs cat build-2:/srv/app/config.toml\n  cortex fs edit build-2:/srv/app/config.toml --old 'port = 80' --new 'port = 8080'"
)]
pub(crate) struct Fs {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    Ls(ls::Ls),
    Cat(cat::Cat),
    Stat(stat::Stat),
    Find(find::Find),
    Grep(grep::Grep),
    Write(write::Write),
    Edit(edit::Edit),
    Mkdir(mkdir::Mkdir),
    Mv(mv::Mv),
    Cp(cp::Cp),
    Rm(rm::Rm),
}

impl Fs {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut files = Files::new(context, args::place(self.action.place())?)?;
        match self.action.run(context, &mut files).await {
            Ok(()) => Ok(()),
            Err(failure) => {
                let failure = with_ways(failure, &files.place);
                Err(ask::with_nearest(failure, &files.client, &files.place.node).await)
            }
        }
    }
}

impl Action {
    fn place(&self) -> &str {
        match self {
            Self::Ls(ls::Ls { place, .. })
            | Self::Cat(cat::Cat { place, .. })
            | Self::Stat(stat::Stat { place, .. })
            | Self::Find(find::Find { place, .. })
            | Self::Grep(grep::Grep { place, .. })
            | Self::Write(write::Write { place, .. })
            | Self::Edit(edit::Edit { place, .. })
            | Self::Mkdir(mkdir::Mkdir { place, .. })
            | Self::Mv(mv::Mv { place, .. })
            | Self::Cp(cp::Cp { place, .. })
            | Self::Rm(rm::Rm { place, .. }) => place,
        }
    }

    async fn run(self, context: &Context, files: &mut Files) -> Result {
        match self {
            Self::Ls(verb) => verb.run(context, files).await,
            Self::Cat(verb) => verb.run(context, files).await,
            Self::Stat(verb) => verb.run(context, files).await,
            Self::Find(verb) => verb.run(context, files).await,
            Self::Grep(verb) => verb.run(context, files).await,
            Self::Write(verb) => verb.run(context, files).await,
            Self::Edit(verb) => verb.run(context, files).await,
            Self::Mkdir(verb) => verb.run(context, files).await,
            Self::Mv(verb) => verb.run(context, files).await,
            Self::Cp(verb) => verb.run(context, files).await,
            Self::Rm(verb) => verb.run(context, files).await,
        }
    }
}

/// Adds the commands that go on from a refusal.
fn with_ways(failure: Failure, place: &Place) -> Failure {
    let at = |path: &str| Place { path: path.to_owned(), ..place.clone() }.shown();
    // The refusal names the path that it is about, which may be the other end of a move.
    let path = failure.detail("path").map(str::to_owned);
    let above = |path: &str| match path.rsplit_once('/') {
        Some(("", _)) | None => at("/"),
        Some((above, _)) => at(above),
    };
    let is_bare = matches!(&failure, Failure::Refused(refused) if refused.ways.is_empty());
    match (failure.code(), path) {
        (Some(Code::NotFound), Some(path)) if is_bare => {
            failure.way("look", format!("cortex fs ls {}", above(&path)))
        }
        (Some(Code::UnsupportedEntry), path) => {
            let shown = at(&path.unwrap_or_else(|| place.path.clone()));
            failure.way("look", format!("cortex fs stat {shown}"))
        }
        (Some(Code::EtagMismatch | Code::EditNotFound | Code::EditAmbiguous), _) => {
            failure.way("read it", format!("cortex fs cat {}", place.shown()))
        }
        (Some(Code::UnknownOutcome), _) => {
            failure.way("look", format!("cortex fs stat {} --hash", place.shown()))
        }
        _ => failure,
    }
}

/// Calls about the files of one node.
struct Files {
    client: Client,
    /// What the command is about.
    place: Place,
    /// The attempt of a task in whose process this runs, as `TASK/N`.
    attempt: Option<String>,
}

impl Files {
    fn new(context: &Context, place: Place) -> Result<Self> {
        Ok(Self { client: context.client()?, place, attempt: own_attempt()? })
    }

    /// The address of the path.
    fn url(&self) -> Query {
        self.at("/fs")
    }

    /// The address of a search below the path.
    fn search_url(&self) -> Query {
        self.at("/fs/search")
    }

    fn at(&self, route: &str) -> Query {
        let Place { node, path } = &self.place;
        Query(format!("/nodes/{}{route}?path={}", encode(node), encode(path)))
    }

    /// A call that says for which attempt it is.
    fn of_attempt(&self, call: Call) -> Call {
        match &self.attempt {
            Some(attempt) => call.header("cortex-attempt", attempt),
            None => call,
        }
    }

    async fn call<T: DeserializeOwned>(&mut self, method: Method, url: Query, call: Call) -> Result<T> {
        let call = self.of_attempt(call);
        self.client.call(method, &url.0, call).await
    }
}

/// The attempt in whose process this runs, as the header says it.
pub(super) fn own_attempt() -> Result<Option<String>> {
    attempt(env::get(env::TASK_ID), env::get(env::ATTEMPT))
}

/// Both variables or none: with one of them the work would not be fenced, and nobody would know.
fn attempt(task: Option<String>, number: Option<String>) -> Result<Option<String>> {
    match (task, number) {
        (Some(task), Some(number)) => Ok(Some(format!("{task}/{number}"))),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(Failure::usage(
            format!("Of {} and {} only one is set.", env::TASK_ID, env::ATTEMPT),
            "Pass both on, as the node gives them to a task's process, or unset both.",
        )),
    }
}

/// An address with its query.
struct Query(String);

impl Query {
    fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let value = encode(&value.to_string());
        self.0.push_str(&format!("&{name}={value}"));
        self
    }

    fn maybe(self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn flag(self, name: &str, is_set: bool) -> Self {
        self.maybe(name, is_set.then_some(true))
    }
}

/// What every change takes.
#[derive(clap::Args, Debug)]
struct Terms {
    /// Only if the file has this etag; `cortex fs stat --hash` shows it.
    #[arg(long, value_name = "ETAG", value_parser = etag)]
    if_match: Option<ContentId>,
    #[command(flatten)]
    key: Key,
}

impl Terms {
    fn on(self, call: Call) -> Call {
        let call = match self.if_match {
            Some(etag) => call.header("if-match", format!("\"{etag}\"")),
            None => call,
        };
        self.key.on(call)
    }
}

/// How a change happens once, and under which lock.
#[derive(clap::Args, Debug)]
struct Key {
    /// The lock of the workspace whose folder is changed, by its number; it has to be your own.
    #[arg(long, value_name = "EPOCH")]
    lock: Option<u64>,
    /// Idempotency key: the same key again on this node does not do it again.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl Key {
    fn on(self, call: Call) -> Call {
        let call = match self.lock {
            Some(epoch) => call.header("cortex-lock", epoch.to_string()),
            None => call,
        };
        match self.key {
            Some(key) => call.header("idempotency-key", key),
            None => call,
        }
    }
}

/// An etag, with or without the quotes that HTTP has around it.
fn etag(text: &str) -> std::result::Result<ContentId, String> {
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    bare.parse().map_err(|_| "an etag has 64 hex digits".to_owned())
}

/// Permissions, octal.
fn mode(text: &str) -> std::result::Result<String, String> {
    match u16::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o777 && !text.starts_with('+') => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err("permissions are octal, 0000 to 0777".to_owned()),
    }
}

/// Where a move or copy goes: `/PATH`, or `NODE:PATH` on the same node. With a `/` at its end it goes into
/// that folder, under the name that it has.
fn target(source: &Place, text: &str) -> Result<Place> {
    let whole = if text.starts_with('/') { format!("{}:{text}", source.node) } else { text.to_owned() };
    let mut target = args::place(&whole)?;
    if target.node != source.node {
        return Err(Failure::usage(
            format!("{} and {} are on two nodes; this command works on one.", source.shown(), target.shown()),
            format!(
                "Bring a file across with `cortex fs cat {} | cortex fs write {}`, a folder with `cortex pull` and `cortex push`.",
                source.shown(),
                target.shown()
            ),
        ));
    }
    if text.ends_with('/') {
        target.path = format!("{}/{}", target.path.trim_end_matches('/'), source.name());
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_lies_on_the_same_node_and_a_slash_at_its_end_means_into() {
        let source = args::place("a:/srv/ملف 1").expect("a place");
        for (text, path) in
            [("/x", "/x"), ("a:/x", "/x"), ("/x/", "/x/ملف 1"), ("a:/x/", "/x/ملف 1"), ("/", "/ملف 1")]
        {
            assert_eq!(target(&source, text).map(|place| place.path), Ok(path.to_owned()), "{text}");
        }
        let failure = target(&source, "b:/x").expect_err("another node");
        assert!(format!("{failure:?}").contains("| cortex fs write b:/x"), "{failure:?}");
        assert_eq!(target(&source, "x").expect_err("no whole path").exit(), 2);
    }

    #[test]
    fn an_attempt_is_told_whole_or_not_at_all() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(attempt(None, None), Ok(None));
        assert_eq!(attempt(text("t"), text("3")), Ok(text("t/3")));
        for (task, number) in [(text("t"), None), (None, text("3"))] {
            assert_eq!(attempt(task, number).expect_err("half").exit(), 2);
        }
    }

    #[test]
    fn an_etag_is_taken_with_and_without_its_quotes() {
        let id = ContentId::of(b"x");
        assert_eq!(etag(&id.to_string()), Ok(id));
        assert_eq!(etag(&format!("\"{id}\"")), Ok(id));
        for text in ["", "\"\"", "abc", "*"] {
            etag(text).expect_err(text);
        }
    }

    #[test]
    fn permissions_are_octal_and_have_no_special_bits() {
        for text in ["0644", "755", "0", "0777"] {
            assert_eq!(mode(text).as_deref(), Ok(text));
        }
        for text in ["", "999", "rw", "4755", "+644", "-1"] {
            mode(text).expect_err(text);
        }
    }

    #[test]
    fn a_refusal_names_the_command_that_goes_on() {
        let place = args::place("a:/srv/x y/z").expect("a place");
        let ways = |code: Code, path: Option<&str>| {
            let refusal = cortex_core::Refusal::new(code, "why");
            let refusal = match path {
                Some(path) => refusal.detail("path", path.to_owned()),
                None => refusal,
            };
            match with_ways(refusal.into(), &place) {
                Failure::Refused(refused) => refused.ways,
                Failure::Exit(_) => Vec::new(),
            }
        };
        let way = |what, command: &str| vec![(what, command.to_owned())];
        assert_eq!(ways(Code::NotFound, Some("/b/c")), way("look", "cortex fs ls a:/b"));
        assert_eq!(ways(Code::NotFound, Some("/b")), way("look", "cortex fs ls a:/"));
        assert_eq!(ways(Code::NotFound, None), [], "a task is not there");
        assert_eq!(ways(Code::UnsupportedEntry, None), way("look", "cortex fs stat 'a:/srv/x y/z'"));
        assert_eq!(ways(Code::EtagMismatch, None), way("read it", "cortex fs cat 'a:/srv/x y/z'"));
        assert_eq!(ways(Code::PathOutsideRoots, None), []);
    }

    #[test]
    fn nothing_in_a_path_ends_its_place_in_the_address() {
        let query = Query("/fs?path=x".to_owned()).with("name", "a&b=c #é").flag("hidden", true);
        assert_eq!(
            query.flag("off", false).maybe("none", None::<u8>).0,
            "/fs?path=x&name=a%26b%3Dc%20%23%C3%A9&hidden=true"
        );
    }
}
