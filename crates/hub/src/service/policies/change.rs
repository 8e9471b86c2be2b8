//! What may be done to a policy, and the document that comes of it.

use cortex_core::id::Revision;
use cortex_core::limits::PROFILES_MAX;
use cortex_core::name::{Name, printable};
use cortex_core::policy::{Args, Document, Mode, PROFILES, Policy, Program, check_program};
use cortex_core::sandbox::{Level, Network, Root};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Read, WriteError};
use cortex_wire::policy as text;

use super::signed;
use crate::authority::Authority;

/// What to do to a policy.
#[derive(Clone, Debug)]
pub enum Change {
    /// The profile of that name, built in or kept.
    Profile(String),
    /// Exactly this.
    Document(Box<Document>),
    /// Leave to start a program.
    Allow {
        /// Name or absolute path.
        program: String,
        /// For milliseconds, or for good.
        for_ms: Option<u64>,
        /// Whatever its arguments.
        any_arguments: bool,
    },
    /// No leave to start a program, whatever else is said.
    Deny(String),
    /// Files that runs may use.
    AllowRoot(Root),
    /// Not those below that path.
    DenyRoot(Root),
    /// An outgoing port.
    AllowPort(u16),
    /// Not that port.
    DenyPort(u16),
    /// Which connections may be opened.
    Network(Network),
    /// The least level of the sandbox.
    Sandbox(Level),
    /// What an earlier revision said, as a new revision.
    Rollback(Revision),
    /// Leave that has ended goes.
    Expire,
}

impl Change {
    /// The action in the audit log.
    pub(super) const fn action(&self, opens: bool) -> &'static str {
        match self {
            _ if opens => "policy.permissive",
            Self::Profile(_) | Self::Document(_) | Self::Network(_) | Self::Sandbox(_) => "policy.set",
            Self::Allow { .. } | Self::AllowRoot(_) | Self::AllowPort(_) => "policy.allow",
            Self::Deny(_) | Self::DenyRoot(_) | Self::DenyPort(_) => "policy.deny",
            Self::Rollback(_) => "policy.rollback",
            Self::Expire => "policy.expire",
        }
    }

    /// The policy after this change, one revision up. Ended leave goes with every change.
    pub(super) fn apply(
        self,
        view: &dyn Read,
        authority: &Authority,
        before: &Policy,
        now: WallTime,
    ) -> Result<Policy, WriteError> {
        let mut after = Policy { revision: before.revision.next(), changed_at: now, ..before.clone() };
        match self {
            Self::Profile(name) => {
                after.document = profile(view, &name)?;
                after.profile = name;
            }
            Self::Document(document) => {
                after.document = *document;
                after.profile = "own".to_owned();
            }
            Self::Rollback(revision) => {
                let earlier = earlier(view, authority, before, revision)?;
                (after.document, after.profile) = (earlier.document, earlier.profile);
            }
            Self::Allow { .. }
            | Self::Deny(_)
            | Self::AllowRoot(_)
            | Self::DenyRoot(_)
            | Self::AllowPort(_)
            | Self::DenyPort(_)
            | Self::Network(_)
            | Self::Sandbox(_)
            | Self::Expire => self.edit(&mut after.document, now)?,
        }
        after.document.programs.retain(|program| program.holds(Some(now)));
        after.document.check()?;
        Ok(after)
    }

    /// The changes that begin from what is there.
    fn edit(self, document: &mut Document, now: WallTime) -> Result<(), Refusal> {
        match self {
            Self::Allow { program, for_ms, any_arguments } => {
                check_program(&program)?;
                check_span(for_ms)?;
                allow(document, program, for_ms.map(|ms| now.plus_ms(ms)), any_arguments)?;
            }
            Self::Deny(program) => {
                check_program(&program)?;
                document.deny.push(program);
                document.deny.sort();
                document.deny.dedup();
            }
            Self::AllowRoot(root) => {
                refuse_open(document, "files")?;
                document.roots.retain(|held| held.path != root.path);
                document.roots.push(root);
                document.roots.sort();
            }
            Self::DenyRoot(root) => {
                let count = document.roots.len();
                document.roots.retain(|held| held.path != root.path);
                if document.roots.len() == count {
                    return Err(Refusal::new(Code::InvalidArgument, "The policy has no such root.").hint(
                        "Look at its roots with `cortex policy get`, and name one as it stands there.",
                    ));
                }
            }
            Self::AllowPort(port) => {
                refuse_open(document, "ports")?;
                document.network = with_port(&document.network, port);
            }
            Self::DenyPort(port) => document.network = without_port(&document.network, port)?,
            Self::Network(network) => {
                refuse_open(document, "the network")?;
                document.network = network;
            }
            Self::Sandbox(level) => {
                refuse_open(document, "the sandbox")?;
                document.sandbox = level;
            }
            Self::Profile(_) | Self::Document(_) | Self::Rollback(_) | Self::Expire => {}
        }
        Ok(())
    }
}

fn allow(
    document: &mut Document,
    program: String,
    until: Option<WallTime>,
    any_arguments: bool,
) -> Result<(), Refusal> {
    let mut leave = Program::granted(program, until);
    if any_arguments {
        leave.args = Args::Any;
    }
    if document.always_denied.contains(&leave.name) {
        let shown = printable(&leave.name, 80);
        let message =
            format!("`{shown}` is always denied by this policy, so leave to start it would change nothing.");
        return Err(Refusal::new(Code::PolicyInvalid, message).hint(
            "Ask yourself whether it must be; then take it off `always_denied` with `cortex policy set NODE --file`.",
        ));
    }
    document.deny.retain(|denied| *denied != leave.name);
    document.programs.retain(|held| held.name != leave.name);
    document.programs.push(leave);
    document.programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

/// A PERMISSIVE policy has no walls, so a change of them would be a change in name only.
fn refuse_open(document: &Document, what: &str) -> Result<(), Refusal> {
    match document.mode {
        Mode::Strict => Ok(()),
        Mode::Permissive => {
            let message =
                format!("A PERMISSIVE policy has no walls, so {what} cannot be allowed or bounded.");
            Err(Refusal::new(Code::PolicyInvalid, message)
                .hint("Set the node to a STRICT profile first, such as `cortex policy set NODE dev`."))
        }
    }
}

fn with_port(network: &Network, port: u16) -> Network {
    match network {
        Network::All => Network::All,
        Network::None => Network::Ports([port].into()),
        Network::Ports(ports) => Network::Ports(ports.iter().copied().chain([port]).collect()),
    }
}

fn without_port(network: &Network, port: u16) -> Result<Network, Refusal> {
    match network {
        Network::Ports(ports) if ports.contains(&port) => {
            let left: std::collections::BTreeSet<u16> =
                ports.iter().copied().filter(|one| *one != port).collect();
            Ok(if left.is_empty() { Network::None } else { Network::Ports(left) })
        }
        Network::Ports(_) | Network::None => {
            Err(Refusal::new(Code::InvalidArgument, format!("The policy does not allow port {port}."))
                .hint("Look at its network with `cortex policy get`."))
        }
        Network::All => Err(Refusal::new(
            Code::InvalidArgument,
            "The policy allows all connections, of which no single port can be taken.",
        )
        .hint("Name those that may be used with `cortex policy set NODE --network 80,443`.")),
    }
}

/// A built-in profile, or one that this hub keeps.
pub(super) fn profile(view: &dyn Read, name: &str) -> Result<Document, WriteError> {
    if let Some(document) = Document::profile(name) {
        return Ok(document);
    }
    let kept = view.profiles()?;
    match kept.iter().find(|profile| profile.name.as_str() == name) {
        Some(profile) => Ok(text::read_document(profile.document.as_bytes())?),
        None => Err(unknown_profile(name, kept.iter().map(|profile| &profile.name)).into()),
    }
}

/// The refusal of a profile that there is not.
pub(in super::super) fn unknown_profile<'a>(name: &str, kept: impl Iterator<Item = &'a Name>) -> Refusal {
    let message = format!("There is no profile `{}`.", printable(name, 80));
    let all: Vec<&str> = PROFILES.iter().copied().chain(kept.take(PROFILES_MAX).map(Name::as_str)).collect();
    Refusal::new(Code::InvalidArgument, message).hint(format!("Use one of: {}.", all.join(", ")))
}

fn earlier(
    view: &dyn Read,
    authority: &Authority,
    before: &Policy,
    revision: Revision,
) -> Result<Policy, WriteError> {
    let found = view.policy_history(before.node, Some(revision.next()), 1)?;
    match found.first().filter(|stored| stored.revision == revision) {
        Some(stored) => Ok(signed::read(authority, stored)?.0),
        None => Err(Refusal::new(Code::NotFound, format!("Revision {revision} of this policy is not kept."))
            .hint("List those that are with `cortex policy history`.")
            .into()),
    }
}

fn check_span(for_ms: Option<u64>) -> Result<(), Refusal> {
    /// A year: what is meant to last longer is granted for good.
    const SPAN_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;
    if for_ms.is_some_and(|ms| ms == 0 || ms > SPAN_MS_MAX) {
        let message = format!("`for_ms` must be above 0 and at most {SPAN_MS_MAX}; leave it out for no end.");
        return Err(Refusal::new(Code::InvalidArgument, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cortex_core::sandbox::{Access, RootPath};

    use super::*;

    fn edited(profile: &str, changes: &[Change]) -> Result<Document, Code> {
        let mut document = Document::profile(profile).expect("built in");
        for change in changes {
            change.clone().edit(&mut document, WallTime(5)).map_err(|refusal| refusal.code)?;
        }
        document.check().expect("it may be set");
        Ok(document)
    }

    fn allow(program: &str, any_arguments: bool) -> Change {
        Change::Allow { program: program.to_owned(), for_ms: Some(10), any_arguments }
    }

    #[test]
    fn leave_is_given_with_its_schema_unless_any_arguments_were_meant() {
        let document = edited("strict", &[allow("find", false), allow("python3", false), allow("env", true)])
            .expect("given");
        let of = |name: &str| {
            let program = document.programs.iter().find(|program| program.name == name).expect("it is there");
            (program.args.clone(), program.until)
        };
        assert_eq!(of("find"), (Args::Known, Some(WallTime(15))));
        assert_eq!((of("python3").0, of("env").0), (Args::Any, Args::Any));
        assert_eq!(edited("strict", &[allow("sudo", false)]), Err(Code::PolicyInvalid));
        assert_eq!(edited("strict", &[allow("./x", false)]), Err(Code::InvalidArgument));
    }

    #[test]
    fn denying_wins_until_it_is_allowed_anew() {
        let denied = edited("strict", &[Change::Deny("echo".to_owned())]).expect("denied");
        assert_eq!(denied.deny, ["echo"]);
        let again =
            edited("strict", &[Change::Deny("echo".to_owned()), allow("echo", false)]).expect("allowed");
        assert_eq!(again.deny, Vec::<String>::new());
    }

    #[test]
    fn roots_and_ports_come_and_go() {
        let root = |access| Root { path: RootPath::Absolute("/srv/a".to_owned()), access, exec: false };
        let two = [Change::AllowRoot(root(Access::Read)), Change::AllowRoot(root(Access::Write))];
        assert_eq!(edited("strict", &two).expect("given").roots, [root(Access::Write)]);
        let gone = [two[0].clone(), Change::DenyRoot(root(Access::Read))];
        assert_eq!(edited("strict", &gone).expect("taken").roots, []);
        assert_eq!(edited("strict", &[Change::DenyRoot(root(Access::Read))]), Err(Code::InvalidArgument));
        let ports =
            edited("strict", &[Change::AllowPort(443), Change::AllowPort(80)]).expect("given").network;
        assert_eq!(ports, Network::Ports([80, 443].into()));
        let none = edited("strict", &[Change::AllowPort(443), Change::DenyPort(443)]).expect("taken").network;
        assert_eq!(none, Network::None);
        assert_eq!(edited("strict", &[Change::DenyPort(443)]), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_permissive_policy_has_no_walls_to_change() {
        for change in [Change::AllowPort(1), Change::Sandbox(Level::Full), Change::Network(Network::None)] {
            assert_eq!(edited("permissive", &[change]), Err(Code::PolicyInvalid));
        }
    }
}
