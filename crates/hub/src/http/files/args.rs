//! What the queries of `/api/v1/nodes/{node}/fs` may say.

use serde::Deserialize;

/// What to look at.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct LookArgs {
    /// The file or folder, from the top of the node's disk.
    pub(in crate::http) path: Option<String>,
    /// `read` (when missing), `list` or `stat`.
    pub(in crate::http) view: Option<String>,
    /// Who answers: `node`, or `mirror`, the hub's copy of a folder of a workspace. When missing the node, and
    /// the copy while the node is away.
    pub(in crate::http) from: Option<String>,
    /// Of `read`: the first line, from 1.
    pub(in crate::http) start_line: Option<u64>,
    /// Of `read`: how many lines.
    pub(in crate::http) lines: Option<u64>,
    /// Of `read`: the first byte, from 0.
    pub(in crate::http) offset: Option<u64>,
    /// Of `read`: how many bytes.
    pub(in crate::http) bytes: Option<u64>,
    /// Of `read`: at most so many bytes in the answer; 16384 when missing, at most 49152.
    pub(in crate::http) max_bytes: Option<u32>,
    /// Hash files for their etag, however large they are.
    pub(in crate::http) hash: bool,
    /// Of `list`: how many levels, 1 when missing, at most 8.
    pub(in crate::http) depth: Option<u8>,
    /// Of `list`: names that begin with a dot too.
    pub(in crate::http) hidden: bool,
    /// Of `list`: only these names.
    pub(in crate::http) glob: Option<String>,
    /// Of `list`: at most so many entries; 200 when missing, at most 1000.
    pub(in crate::http) limit: Option<u32>,
    /// Of `list`: `next_cursor` of the page before.
    pub(in crate::http) cursor: Option<String>,
    /// How long it may take; 30000 when missing, at most 300000.
    pub(in crate::http) timeout_ms: Option<u64>,
}

/// What to look for.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct SearchArgs {
    /// The folder, or for lines one file.
    pub(in crate::http) path: Option<String>,
    /// Who answers: `node`, or `mirror`, the hub's copy of a folder of a workspace. When missing the node, and
    /// the copy while the node is away.
    pub(in crate::http) from: Option<String>,
    /// Finds lines with this regular expression. Without it entries are found.
    pub(in crate::http) pattern: Option<String>,
    /// Of lines: the pattern is plain text.
    pub(in crate::http) literal: bool,
    /// Of lines: upper and lower case are the same.
    pub(in crate::http) ignore_case: bool,
    /// Of lines: only in files of these names.
    pub(in crate::http) glob: Option<String>,
    /// Of lines: so many before and after each, at most 10.
    pub(in crate::http) context: Option<u8>,
    /// Of entries: only these names.
    pub(in crate::http) name: Option<String>,
    /// Of entries: `file`, `dir`, `link` or `other`.
    pub(in crate::http) r#type: Option<String>,
    /// Of entries: files of at least so many bytes.
    pub(in crate::http) size_min: Option<u64>,
    /// Of entries: files of at most so many bytes.
    pub(in crate::http) size_max: Option<u64>,
    /// Of entries: changed within the last so many milliseconds.
    pub(in crate::http) changed_within_ms: Option<u64>,
    /// Names that begin with a dot too.
    pub(in crate::http) hidden: bool,
    /// What ignore files leave out too.
    pub(in crate::http) ignored: bool,
    /// At most so many; of lines 50 when missing and at most 200, of entries 200 and 1000.
    pub(in crate::http) limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub(in crate::http) cursor: Option<String>,
    /// How long it may take; 30000 when missing, at most 300000.
    pub(in crate::http) timeout_ms: Option<u64>,
}

/// What to write, and how.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct WriteArgs {
    /// The file or folder.
    pub(in crate::http) path: Option<String>,
    /// `file` (when missing) or `dir`.
    pub(in crate::http) kind: Option<String>,
    /// Of a file: `put` (when missing), `create`, `replace` or `append`.
    pub(in crate::http) mode: Option<String>,
    /// Make the folders above it that are missing. Of a folder: one that is there already is good.
    pub(in crate::http) mkdirs: bool,
    /// Permissions of what is new, octal: `0644`.
    pub(in crate::http) perm: Option<String>,
    /// Only say what would come of it, with a diff.
    pub(in crate::http) dry_run: bool,
    /// How long it may take; 30000 when missing, at most 300000.
    pub(in crate::http) timeout_ms: Option<u64>,
}

/// What to change.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ChangeArgs {
    /// The entry.
    pub(in crate::http) path: Option<String>,
    /// How long it may take; 30000 when missing, at most 300000.
    pub(in crate::http) timeout_ms: Option<u64>,
}

/// What to remove.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct RemoveArgs {
    /// The entry.
    pub(in crate::http) path: Option<String>,
    /// A folder goes with all that is in it.
    pub(in crate::http) recursive: bool,
    /// Only say what would go.
    pub(in crate::http) dry_run: bool,
    /// How long it may take; 30000 when missing, at most 300000.
    pub(in crate::http) timeout_ms: Option<u64>,
}
