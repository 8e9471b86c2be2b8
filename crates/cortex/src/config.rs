//! Configuration: default < `cortex.toml` and `conf.d/*.toml` < `CORTEX_SECTION__KEY` < flags.
//! The address of the hub has one more source, just above its default: the hub that runs here.
//!
//! All of it is read and checked before anything is started. An unknown key is an error that
//! names the nearest one. Secrets are never values here: only the files that hold them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cortex_core::limits;
use cortex_core::sandbox::Level;
use cortex_core::{Code, Refusal};

use crate::{duration, env, remembered};

/// One key: its name, its form, and what it is for.
pub(crate) struct Key {
    /// `section.key`.
    pub(crate) name: &'static str,
    /// What its text must look like.
    kind: Kind,
    /// One sentence.
    pub(crate) doc: &'static str,
}

#[derive(Clone, Copy)]
enum Kind {
    Path,
    Address,
    Url,
    Switch,
    Span,
    Text,
    /// Absolute paths with colons between them, as in PATH.
    Folders,
    /// A level of the sandbox.
    Level,
    /// A number of tasks at once.
    Slots,
    /// A number of tasks that wait.
    Tasks,
}

/// Every key there is.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "client.connect_timeout",
        kind: Kind::Span,
        doc: "How long to wait for the hub to answer a call.",
    },
    Key {
        name: "client.hub",
        kind: Kind::Url,
        doc: "Address of the hub (also CORTEX_HUB); when unset, the one that runs here.",
    },
    Key { name: "client.reconnect", kind: Kind::Span, doc: "How long to try again when a stream breaks." },
    Key {
        name: "client.token_file",
        kind: Kind::Path,
        doc: "File with the API token (also CORTEX_TOKEN_FILE).",
    },
    Key {
        name: "hub.allow_plain_http",
        kind: Kind::Switch,
        doc: "Let HTTP listen beyond loopback without TLS.",
    },
    Key { name: "hub.data_dir", kind: Kind::Path, doc: "Where the hub keeps everything." },
    Key { name: "hub.grpc", kind: Kind::Address, doc: "Where nodes dial in (TLS)." },
    Key { name: "hub.http", kind: Kind::Address, doc: "Where the API listens." },
    Key { name: "hub.public_url", kind: Kind::Url, doc: "Address of the hub as other machines see it." },
    Key {
        name: "hub.tasks_per_owner",
        kind: Kind::Tasks,
        doc: "Tasks of the pool that one person, or a token of nobody, may have open; more are refused.",
    },
    Key { name: "node.data_dir", kind: Kind::Path, doc: "Where a node keeps its identity and its spool." },
    Key {
        name: "node.level_max",
        kind: Kind::Level,
        doc: "Highest level of the sandbox that a node uses: partial, kernel or full.",
    },
    Key {
        name: "node.path",
        kind: Kind::Text,
        doc: "PATH by which a node finds programs; its own when unset.",
    },
    Key {
        name: "node.run_user",
        kind: Kind::Text,
        doc: "As whom runs of a root node execute: a system user, or UID:GID; cortex-run when it exists.",
    },
    Key {
        name: "node.slots",
        kind: Kind::Slots,
        doc: "Tasks of the pool that a node works on at once; its processors when unset, 0 for none.",
    },
    Key {
        name: "node.work",
        kind: Kind::Folders,
        doc: "Folders for work, with colons between them; the first holds the runs' home.",
    },
];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A flag of this command.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Where `cortex login` keeps a session, in the data directory. It goes before the administrator's token.
pub(crate) const SESSION: &str = "session.token";

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// As it was written.
    pub(crate) text: String,
    /// Where.
    pub(crate) origin: Origin,
}

/// A flag that was given: key, the flag's name, its text.
pub(crate) type Flag = (&'static str, &'static str, Option<String>);

/// All values, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config(BTreeMap<&'static str, Value>);

impl Config {
    /// Reads all sources. `file` is that of `--config`.
    pub(crate) fn load(file: Option<&Path>, flags: Vec<Flag>) -> Result<Self, Refusal> {
        let mut config = Self::default();
        for (name, text) in defaults() {
            config.set(name, text, Origin::Default)?;
        }
        config.read_files(file)?;
        config.read_env()?;
        for (name, flag, text) in flags {
            if let Some(text) = text {
                config.set(name, text, Origin::Flag(flag))?;
            }
        }
        config.find_running_hub()?;
        if !config.0.contains_key("client.token_file") {
            let dir = config.path("hub.data_dir");
            let session = dir.join(SESSION);
            let beside = if session.exists() { session } else { dir.join("admin.token") };
            config.set("client.token_file", beside.display().to_string(), Origin::Default)?;
        }
        Ok(config)
    }

    /// The hub of our data directory, when it runs and nobody named another.
    fn find_running_hub(&mut self) -> Result<(), Refusal> {
        let named = self.get("client.hub").is_some_and(|value| value.origin != Origin::Default);
        match remembered::running(&self.path("hub.data_dir")) {
            Some(found) if !named => self.set("client.hub", found.http, Origin::File(found.path)),
            Some(_) | None => Ok(()),
        }
    }

    /// The value of a key that has one.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The text of a key; empty when it has none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value.text.as_str())
    }

    /// A path.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let text = self.text(name);
        match (text.strip_prefix("~/"), env::get("HOME")) {
            (Some(below), Some(home)) => Path::new(&home).join(below),
            (Some(_) | None, _) => PathBuf::from(text),
        }
    }

    /// Folders; none when nobody named any.
    pub(crate) fn folders(&self, name: &str) -> Vec<PathBuf> {
        self.text(name).split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    }

    /// A level of the sandbox, when somebody named one.
    pub(crate) fn level(&self, name: &str) -> Option<Level> {
        Level::parse(self.text(name))
    }

    /// A number of tasks at once, when somebody named one.
    pub(crate) fn slots(&self, name: &str) -> Option<u32> {
        self.text(name).parse().ok()
    }

    /// A number of tasks that wait. The text was checked when it was set.
    pub(crate) fn tasks(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(limits::TASKS_OPEN_PER_OWNER_MAX)
    }

    /// A listening address. The text was checked when it was set.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        address(self.text(name)).unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// A switch.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// A duration. The text was checked when it was set.
    pub(crate) fn span(&self, name: &str) -> Duration {
        duration::parse(self.text(name)).unwrap_or(Duration::from_secs(30))
    }

    fn set(&mut self, name: &str, text: String, origin: Origin) -> Result<(), Refusal> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(unknown(name, &origin));
        };
        check(key.kind, &text).map_err(|why| {
            let shown = cortex_core::name::printable(&text, 80);
            Refusal::new(Code::BadConfig, format!("`{name}` is `{shown}` ({origin}): {why}."))
                .hint(format!("Correct `{name}`; `cortex config show` tells where each value comes from."))
                .detail("key", name)
        })?;
        self.0.insert(key.name, Value { text, origin });
        Ok(())
    }

    fn read_files(&mut self, file: Option<&Path>) -> Result<(), Refusal> {
        let named = file.map(Path::to_path_buf).or_else(|| env::get(env::CONFIG).map(PathBuf::from));
        let main = named.clone().unwrap_or_else(|| config_home().join("cortex.toml"));
        match std::fs::read_to_string(&main) {
            Ok(text) => self.read_toml(&main, &text)?,
            Err(error) if named.is_some() => return Err(unreadable(&main, &error)),
            Err(_) => {}
        }
        let folder = main.parent().unwrap_or(Path::new(".")).join("conf.d");
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
        let mut parts: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
        parts.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        parts.sort();
        parts.iter().try_for_each(|path| {
            let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
            self.read_toml(path, &text)
        })
    }

    fn read_toml(&mut self, path: &Path, text: &str) -> Result<(), Refusal> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            Refusal::new(Code::BadConfig, format!("{}:{line}: {}.", path.display(), error.message()))
                .hint("Correct that line; the file is TOML, such as `[hub]` and below it `http = \"127.0.0.1:7440\"`.")
        })?;
        for (section, content) in table {
            let toml::Value::Table(keys) = content else {
                return Err(unknown(&section, &Origin::File(path.to_path_buf())));
            };
            for (key, value) in keys {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                self.set(&format!("{section}.{key}"), text, Origin::File(path.to_path_buf()))?;
            }
        }
        Ok(())
    }

    fn read_env(&mut self) -> Result<(), Refusal> {
        for (short, key) in [(env::HUB, "client.hub"), (env::TOKEN_FILE, "client.token_file")] {
            if let Some(text) = env::get(short) {
                self.set(key, text, Origin::Env(short.to_owned()))?;
            }
        }
        let mut settings = env::settings();
        settings.sort();
        settings.into_iter().try_for_each(|(variable, key, text)| self.set(&key, text, Origin::Env(variable)))
    }
}

/// What holds when nobody says otherwise.
fn defaults() -> [(&'static str, String); 8] {
    let data = data_home();
    [
        ("client.connect_timeout", "5s".to_owned()),
        ("client.hub", "http://127.0.0.1:7440".to_owned()),
        ("client.reconnect", "30s".to_owned()),
        ("hub.data_dir", data.display().to_string()),
        ("hub.grpc", "127.0.0.1:7441".to_owned()),
        ("hub.http", "127.0.0.1:7440".to_owned()),
        ("hub.tasks_per_owner", limits::TASKS_OPEN_PER_OWNER_MAX.to_string()),
        ("node.data_dir", data.join("node").display().to_string()),
    ]
}

fn data_home() -> PathBuf {
    home("XDG_DATA_HOME", ".local/share")
}

fn config_home() -> PathBuf {
    home("XDG_CONFIG_HOME", ".config")
}

/// The folder for what may be deleted at any time. `None` when nothing says where.
pub(crate) fn cache_home() -> Option<PathBuf> {
    base("XDG_CACHE_HOME", ".cache").map(|base| base.join("cortex"))
}

fn home(variable: &str, below_home: &str) -> PathBuf {
    base(variable, below_home).unwrap_or_else(|| PathBuf::from(".")).join("cortex")
}

fn base(variable: &str, below_home: &str) -> Option<PathBuf> {
    let base = env::get(variable).map(PathBuf::from);
    base.or_else(|| env::get("HOME").map(|home| Path::new(&home).join(below_home)))
}

fn check(kind: Kind, text: &str) -> Result<(), String> {
    let fine = |good: bool, why: &str| if good { Ok(()) } else { Err(why.to_owned()) };
    match kind {
        Kind::Text => fine(!text.is_empty(), "it is empty"),
        Kind::Path => fine(!text.is_empty() && !text.contains('\0'), "it is not a path"),
        Kind::Address => address(text).map(drop),
        Kind::Url => fine(
            text.starts_with("http://") || text.starts_with("https://"),
            "an address begins with http:// or https://",
        ),
        Kind::Switch => fine(matches!(text, "true" | "false"), "it must be true or false"),
        Kind::Span => duration::parse(text).map(drop),
        Kind::Folders => {
            let is_good = |path: &str| cortex_core::path::normal(path).is_ok();
            fine(text.split(':').all(is_good), "it is not a list of absolute paths with colons between them")
        }
        Kind::Level => fine(
            Level::parse(text).is_some_and(|level| level > Level::None),
            "a level is partial, kernel or full; a node without walls is PERMISSIVE by its policy",
        ),
        Kind::Slots => fine(
            text.parse().is_ok_and(|slots: u32| slots <= limits::SLOTS_MAX),
            "a node works on 0 to 256 tasks at once",
        ),
        Kind::Tasks => fine(
            text.parse().is_ok_and(|tasks: u64| (1..=limits::TASKS_OPEN_MAX).contains(&tasks)),
            "it must be 1 to 5000000",
        ),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.replace("localhost:", "127.0.0.1:");
    text.parse()
        .map_err(|_| "an address is IP:PORT, such as 127.0.0.1:7440; port 0 takes a free one".to_owned())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(Code::BadConfig, format!("{} cannot be read: {error}.", path.display()))
        .hint("Check the path and who may read it.")
}

fn unknown(name: &str, origin: &Origin) -> Refusal {
    let shown = cortex_core::name::printable(name, 80);
    let near = nearest(name, KEYS.iter().map(|key| key.name)).unwrap_or("hub.http");
    Refusal::new(Code::BadConfig, format!("There is no key `{shown}` ({origin})."))
        .hint(format!("Use `{near}`, or take it out; `cortex config show` lists all keys."))
        .detail("key", shown)
        .detail("nearest", near)
}

/// The candidate that takes the fewest changes of a letter; one that only goes on is nearer.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.min_by_key(|candidate| (distance(name, candidate), !candidate.starts_with(name)))
}

/// Levenshtein distance of bytes, over at most the first 80 of each.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (&left.as_bytes()[..left.len().min(80)], &right.as_bytes()[..right.len().min(80)]);
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Refusal> {
        let mut config = Config::default();
        config.read_toml(Path::new("cortex.toml"), text).map(|()| config)
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        let refusal = read("[hub]\nhtpp = \"127.0.0.1:1\"").expect_err("unknown key");
        assert_eq!(refusal.code, Code::BadConfig);
        assert!(refusal.hint.contains("`hub.http`"), "{}", refusal.hint);
    }

    #[test]
    fn a_secret_by_value_is_no_key_and_the_file_is_named() {
        let refusal = read("[client]\ntoken = \"cxt_x\"").expect_err("secrets come from files");
        assert!(refusal.hint.contains("client.token_file"), "{}", refusal.hint);
        assert!(!refusal.message.contains("cxt_x"), "the secret itself is not shown");
    }

    #[test]
    fn a_bad_value_names_its_key_and_where_it_stands() {
        let refusal = read("[hub]\nhttp = \"7440\"").expect_err("no address");
        assert!(refusal.message.contains("hub.http") && refusal.message.contains("cortex.toml"));
    }

    #[test]
    fn broken_toml_names_the_line() {
        let refusal = read("[hub]\nhttp = ").expect_err("broken");
        assert!(refusal.message.starts_with("cortex.toml:2:"), "{}", refusal.message);
    }

    #[test]
    fn switches_are_written_with_or_without_quotes() {
        let config = read("[hub]\nallow_plain_http = true").expect("valid");
        assert!(config.switch("hub.allow_plain_http"));
    }

    #[test]
    fn every_key_is_named_once_and_documented() {
        let names: std::collections::BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), KEYS.len());
        assert!(KEYS.iter().all(|key| key.doc.ends_with('.') && key.name.contains('.')));
    }

    #[test]
    fn the_nearest_name_takes_the_fewest_changes() {
        let names = ["build-1", "web-1", "db"];
        assert_eq!(nearest("biuld-1", names.into_iter()), Some("build-1"));
    }
}
