//! Every environment variable that `cortex` reads, in one list; the reference page is made from
//! it. Nothing else in this crate may name one.

use std::path::Path;

/// A variable and what it does.
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: &'static str,
    /// One sentence for the reference page.
    pub(crate) doc: &'static str,
}

/// Address of the hub for client commands.
pub(crate) const HUB: &str = "CORTEX_HUB";
/// File that holds the API token.
pub(crate) const TOKEN_FILE: &str = "CORTEX_TOKEN_FILE";
/// Configuration file.
pub(crate) const CONFIG: &str = "CORTEX_CONFIG";
/// Filter of the log.
pub(crate) const LOG: &str = "CORTEX_LOG";
/// The task whose process this is.
pub(crate) const TASK_ID: &str = "CORTEX_TASK_ID";
/// The number of the attempt at it.
pub(crate) const ATTEMPT: &str = "CORTEX_ATTEMPT";
/// Begins the name of every variable of ours.
pub(crate) const PREFIX: &str = "CORTEX_";
/// Separates section and key: `CORTEX_HUB__HTTP` is `hub.http`.
pub(crate) const SEPARATOR: &str = "__";

/// The list.
pub(crate) const VARIABLES: &[Variable] = &[
    Variable { name: HUB, doc: "Address of the hub for client commands, such as http://127.0.0.1:7440." },
    Variable { name: TOKEN_FILE, doc: "File that holds the API token; mode 0600." },
    Variable { name: CONFIG, doc: "Configuration file; its neighbour conf.d/*.toml is read too." },
    Variable { name: LOG, doc: "Filter of the log on standard error, such as info or cortex_hub=debug." },
    Variable {
        name: TASK_ID,
        doc: "The task whose process this is; set by the node. `cortex fs` works for it, and is refused once its attempt is over.",
    },
    Variable { name: ATTEMPT, doc: "The number of the attempt at that task; set by the node." },
    Variable {
        name: "CORTEX_SECTION__KEY",
        doc: "Any key of the configuration: CORTEX_HUB__HTTP is hub.http.",
    },
    Variable { name: "USER", doc: "Who logs in when `cortex login` names nobody." },
    Variable { name: "NO_COLOR", doc: "Set to anything: no colour." },
    Variable {
        name: "XDG_CONFIG_HOME",
        doc: "Where cortex/cortex.toml is looked for; ~/.config when unset.",
    },
    Variable {
        name: "XDG_DATA_HOME",
        doc: "Where the data directory is by default; ~/.local/share when unset.",
    },
    Variable {
        name: "XDG_CACHE_HOME",
        doc: "Where `cortex push` keeps what it knows of folders, so that it need not read all of them again; ~/.cache when unset.",
    },
    Variable { name: "HOME", doc: "The home directory, for the three defaults above." },
];

/// A variable's value; an empty one counts as unset.
pub(crate) fn get(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A path for people: `~` for the home directory.
pub(crate) fn shown(path: &Path) -> String {
    let below =
        get("HOME").and_then(|home| path.strip_prefix(home).ok().map(|below| below.display().to_string()));
    below.map_or_else(|| path.display().to_string(), |below| format!("~/{below}"))
}

/// All variables of the form `CORTEX_SECTION__KEY`, as (variable, `section.key`, value).
pub(crate) fn settings() -> Vec<(String, String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter_map(|(name, value)| {
            let (section, key) = name.strip_prefix(PREFIX)?.split_once(SEPARATOR)?;
            let dotted = format!("{}.{}", section.to_lowercase(), key.to_lowercase());
            Some((name, dotted, value))
        })
        .collect()
}
