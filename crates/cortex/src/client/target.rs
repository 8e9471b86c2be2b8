//! Where the hub is and who asks: address and token, checked before anything is sent.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::{Code, Refusal};

use crate::config::{Config, Origin};
use crate::error::{Failure, Result};
use crate::output::Output;

/// Largest token file.
const TOKEN_BYTES_MAX: u64 = 4096;

/// The hub's address, and the token for it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: String,
    /// Path in front of `/api/v1`, for a hub behind a front end.
    pub(super) prefix: String,
    pub(super) token: Option<Token>,
    pub(super) connect_max: Duration,
    /// How long a broken stream is tried again.
    pub(crate) reconnect_max: Duration,
}

/// The API token; it cannot be printed.
#[derive(Clone)]
pub(crate) struct Token(Arc<str>);

impl Token {
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl Target {
    /// From the configuration. A readable-by-others token file is told on standard error.
    pub(crate) fn new(config: &Config, output: Output) -> Result<Self> {
        let token = read_token(config, output)?;
        Ok(Self { token, ..Self::without_token(config)? })
    }

    /// The same for a call that shows no token.
    pub(crate) fn without_token(config: &Config) -> Result<Self> {
        let mut target = Self::at(config.text("client.hub"))?;
        target.connect_max = config.span("client.connect_timeout");
        target.reconnect_max = config.span("client.reconnect");
        Ok(target)
    }

    /// The address for people.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.authority, self.prefix)
    }

    fn at(url: &str) -> Result<Self> {
        if url.starts_with("https://") {
            return Err(Failure::new(
                Code::BadConfig,
                format!("{url}: this version of the command line does not speak HTTPS yet."),
                "Run it on the hub's machine, or through `ssh -L 7440:127.0.0.1:7440 HUB` with CORTEX_HUB=http://127.0.0.1:7440.",
            ));
        }
        let rest = url.strip_prefix("http://").ok_or_else(|| bad_url(url))?;
        let (authority, prefix) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
        let uri: http::uri::Authority = authority.parse().map_err(|_| bad_url(url))?;
        let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || authority.contains('@') {
            return Err(bad_url(url));
        }
        let prefix = prefix.trim_end_matches('/');
        Ok(Self {
            port: uri.port_u16().unwrap_or(80),
            host,
            authority: authority.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
            token: None,
            connect_max: Duration::from_secs(5),
            reconnect_max: Duration::from_secs(30),
        })
    }
}

/// One segment of a path, or one value of a query, with all that could end it encoded.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
    }
    encoded
}

fn bad_url(url: &str) -> Failure {
    let shown = cortex_core::name::printable(url, 80);
    Refusal::new(Code::BadConfig, format!("`{shown}` is not the address of a hub."))
        .hint("Write it as http://HOST:PORT, such as CORTEX_HUB=http://127.0.0.1:7440.")
        .into()
}

/// Nobody's token file by default is no error here: the hub says what it needs.
fn read_token(config: &Config, output: Output) -> Result<Option<Token>> {
    let path = config.path("client.token_file");
    let named = config.get("client.token_file").is_some_and(|value| value.origin != Origin::Default);
    let unreadable = |why: String| {
        Failure::new(
            Code::Unauthenticated,
            format!("The token file {} cannot be used: {why}.", path.display()),
            "Point CORTEX_TOKEN_FILE at a valid token file; the hub writes admin.token into its data directory.",
        )
    };
    let meta = match std::fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) if named => return Err(unreadable(error.to_string())),
        Err(_) => return Ok(None),
    };
    if !meta.is_file() || meta.len() > TOKEN_BYTES_MAX {
        return Err(unreadable("it is not a small file".to_owned()));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        output.say(&format!(
            "warning: {} can be read by others; run `chmod 600 {}`",
            path.display(),
            path.display()
        ));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unreadable("it does not hold one token".to_owned()));
    }
    Ok(Some(Token(token.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (url, host, port, prefix) in [
            ("http://127.0.0.1:7440", "127.0.0.1", 7440, ""),
            ("http://[::1]:80/", "::1", 80, ""),
            ("http://hub.lan/cortex/", "hub.lan", 80, "/cortex"),
        ] {
            let target = Target::at(url).unwrap_or_else(|_| panic!("{url} is an address"));
            assert_eq!((target.host.as_str(), target.port, target.prefix.as_str()), (host, port, prefix));
        }
    }

    #[test]
    fn https_and_nonsense_are_refused_with_a_way_on() {
        for url in ["https://hub.lan", "http://", "http://user:secret@hub", "hub.lan:7440", "http://a b"] {
            let failure = Target::at(url).err().unwrap_or_else(|| panic!("{url} must be refused"));
            assert_eq!(failure.exit(), 64, "{url}");
        }
    }

    #[test]
    fn nothing_in_a_segment_can_end_it() {
        assert_eq!(encode("a/b?c#d e%"), "a%2Fb%3Fc%23d%20e%25");
    }
}
