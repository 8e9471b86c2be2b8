//! `cortex policy get`.

use cortex_core::policy::{Args, Document, Sensitive};
use cortex_core::sandbox::{Limits, Network, Root, RootPath};
use cortex_core::words::count;
use cortex_wire::http::PolicyView;

use super::path;
use crate::cli::Context;
use crate::client::Client;
use crate::error::Result;

/// Show one node's policy.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex policy get build-2\n  cortex policy get build-2 --document > build-2.json"
)]
pub(super) struct Get {
    /// The node.
    pub(super) node: String,
    /// Only the document, as `policy set --file` takes it.
    #[arg(long)]
    document: bool,
}

impl Get {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let policy: PolicyView = client.get(&path(&self.node)).await?;
        let output = context.output;
        if self.document {
            let text = serde_json::to_string_pretty(&policy.document).unwrap_or_default();
            return output.line(&text);
        }
        let document = Document::try_from(policy.document.clone())?;
        output.facts(&policy, &facts(&policy, &document))
    }
}

fn facts(policy: &PolicyView, document: &Document) -> Vec<(&'static str, String)> {
    vec![
        ("node", policy.node.clone()),
        ("mode", policy.mode.to_uppercase()),
        ("profile", policy.profile.clone()),
        ("revision", policy.revision.to_string()),
        ("allow", allowed(policy, document)),
        ("deny", listed(&document.deny)),
        ("always denied", listed(&document.always_denied)),
        ("env", listed(&document.env)),
        ("roots", listed(&document.roots.iter().map(root).collect::<Vec<_>>())),
        ("network", network(&document.network)),
        ("sandbox", document.sandbox.as_str().to_owned()),
        ("limits", limits(&document.limits)),
        ("asks for", listed(&document.sensitive.iter().map(sensitive).collect::<Vec<_>>())),
        ("longest run", crate::duration::show(policy.timeout_ms_max)),
        ("changed", policy.changed_at.clone()),
    ]
}

fn allowed(policy: &PolicyView, document: &Document) -> String {
    let programs = policy.allow.iter().zip(&document.programs).map(|(grant, program)| {
        let args = match &program.args {
            Args::Any => Some("any arguments".to_owned()),
            Args::Known => None,
            Args::Rules(rules) => Some(format!("own rules: {}", rules.len())),
        };
        let until = grant.until.as_ref().map(|until| format!("until {until}"));
        let more: Vec<String> = args.into_iter().chain(until).collect();
        if more.is_empty() {
            grant.program.clone()
        } else {
            format!("{} ({})", grant.program, more.join(", "))
        }
    });
    listed(&programs.collect::<Vec<_>>())
}

fn listed(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(" ") }
}

fn root(root: &Root) -> String {
    let path = match &root.path {
        RootPath::Absolute(path) => path.clone(),
        RootPath::Home(below) => format!("~/{below}"),
        RootPath::Work => "work".to_owned(),
    };
    format!("{path}:{}{}", root.access.as_str(), if root.exec { "+exec" } else { "" })
}

fn network(network: &Network) -> String {
    match network {
        Network::None => "none".to_owned(),
        Network::All => "all".to_owned(),
        Network::Ports(ports) => {
            format!("ports {}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","))
        }
    }
}

fn limits(limits: &Limits) -> String {
    let Limits { memory_bytes, processes, output_bytes, files, file_bytes } = *limits;
    let bytes = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {}", size(bytes)));
    let count = |what: &str, count: Option<u64>| count.map(|count| format!("{what} {count}"));
    let all = [
        bytes("memory", memory_bytes),
        count("processes", processes.map(u64::from)),
        bytes("output", output_bytes),
        count("open files", files),
        bytes("size of a file", file_bytes),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// `1 GiB`; bytes when it is nothing round.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let round = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    round.map_or_else(|| count(bytes, "byte", "bytes"), |(unit, shift)| format!("{} {unit}", bytes >> shift))
}

fn sensitive(one: &Sensitive) -> String {
    format!("`{} {}`", one.program, one.words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shown_in_the_unit_that_fits() {
        let some = Limits {
            memory_bytes: Some(1 << 30),
            processes: Some(256),
            file_bytes: Some(1_500),
            ..Limits::default()
        };
        assert_eq!(limits(&some), "memory 1 GiB, processes 256, size of a file 1500 bytes");
        assert_eq!(limits(&Limits::default()), "none");
    }
}
