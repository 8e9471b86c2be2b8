//! Profiles that a hub keeps beside the built-in ones. A node that is set to one holds a copy: a
//! profile that changes later changes no node.

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::limits::PROFILES_MAX;
use cortex_core::name::{Name, printable};
use cortex_core::policy::{Document, Mode, PROFILES};
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{StoredProfile, Tx};
use cortex_wire::policy as text;

use super::{Policies, may_open};
use crate::service::{Caller, anew};

/// A profile with what it says.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it says.
    pub document: Document,
    /// Who changed it last, and when; `None` when it is built in.
    pub changed: Option<(String, WallTime)>,
}

impl Policies {
    /// All profiles: the built-in ones first, then those that are kept, by name. Needs `policy:read` somewhere.
    ///
    /// # Errors
    /// `forbidden`, `store_unavailable`; `policy_invalid` when one that is kept cannot be read.
    pub async fn profiles(&self, caller: &Caller) -> Result<Vec<Profile>, Refusal> {
        caller.anywhere(Right::PolicyRead)?;
        let kept = self.context.view(|view| view.profiles()).await?;
        let built_in = PROFILES.iter().filter_map(|name| {
            let document = Document::profile(name)?;
            Some(Ok(Profile { name: (*name).to_owned(), document, changed: None }))
        });
        built_in.chain(kept.into_iter().map(read)).collect()
    }

    /// One profile.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`, `policy_invalid`.
    pub async fn profile(&self, caller: &Caller, name: &str) -> Result<Profile, Refusal> {
        let found = self.profiles(caller).await?.into_iter().find(|profile| profile.name == name);
        found.ok_or_else(|| none(name))
    }

    /// Keeps a profile, new or in place of the one of that name. Needs `policy:write` on all nodes.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument` for a bad name, `conflict` for a built-in one,
    /// `policy_invalid`, `quota`, `store_unavailable`.
    pub async fn put_profile(
        &self,
        caller: &Caller,
        name: &str,
        document: Document,
    ) -> Result<Profile, Refusal> {
        keeps_profiles(caller)?;
        if document.mode == Mode::Permissive {
            may_open(&caller.token)?;
        }
        let name = own_name(name)?;
        let bytes = text::write_document(&document)?;
        let written = String::from_utf8_lossy(&bytes).into_owned();
        let (now, again, actor) = (self.context.clock.wall(), caller.clone(), caller.actor());
        let stored = StoredProfile { name, document: written, changed_by: actor, changed_at: now };
        let kept = stored.clone();
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            keeps_profiles(&again)?;
            let others = tx.profiles()?.into_iter().filter(|profile| profile.name != kept.name).count();
            if others >= PROFILES_MAX {
                let message = format!("The hub keeps {PROFILES_MAX} profiles, which is the most it may.");
                return Err(Refusal::new(Code::Quota, message)
                    .hint("Remove one with `cortex policy profile rm`.")
                    .into());
            }
            tx.put_profile(&kept)?;
            let row = AuditRow::new(now, kept.changed_by.clone(), "policy.profile.put", Outcome::Allowed);
            tx.append_audit(&AuditRow {
                policy_hash: Some(*blake3::hash(kept.document.as_bytes()).as_bytes()),
                detail: Some(format!("profile {}", kept.name)),
                token: Some(again.token.id),
                ..row
            })?;
            Ok(())
        };
        self.context.commit(work, |()| ()).await?;
        read(stored)
    }

    /// Removes a profile that is kept. Nodes that were set to it keep what they have.
    ///
    /// # Errors
    /// `forbidden`, `conflict` for a built-in one, `not_found`, `store_unavailable`.
    pub async fn remove_profile(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        keeps_profiles(caller)?;
        let (name, again, now) = (own_name(name)?, caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            keeps_profiles(&again)?;
            if !tx.remove_profile(&name)? {
                return Err(none(name.as_str()).into());
            }
            let row = AuditRow::new(now, again.actor(), "policy.profile.rm", Outcome::Allowed);
            let (detail, token) = (Some(format!("profile {name}")), Some(again.token.id));
            tx.append_audit(&AuditRow { detail, token, ..row })?;
            Ok(())
        };
        self.context.commit(work, |()| ()).await
    }
}

fn read(stored: StoredProfile) -> Result<Profile, Refusal> {
    let document = text::read_document(stored.document.as_bytes())?;
    let changed = Some((stored.changed_by, stored.changed_at));
    Ok(Profile { name: stored.name.to_string(), document, changed })
}

/// A profile is for every node, so it is for those who may change every node.
fn keeps_profiles(caller: &Caller) -> Result<(), Refusal> {
    if caller.everywhere(Right::PolicyWrite) {
        return Ok(());
    }
    Err(Refusal::new(Code::Forbidden, "Profiles are kept by those who may change the policy of every node."))
}

fn own_name(name: &str) -> Result<Name, Refusal> {
    let name = Name::parse(name)?;
    // `own` is what a policy is called that was set from a document.
    if PROFILES.contains(&name.as_str()) || matches!(name.as_str(), "own" | "unreadable") {
        return Err(Refusal::new(Code::Conflict, format!("The profile `{name}` is built in."))
            .hint("Choose another name."));
    }
    Ok(name)
}

fn none(name: &str) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no profile `{}`.", printable(name, 80)))
        .hint("List them with `cortex policy profile ls`.")
}
