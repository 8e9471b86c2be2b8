//! Invites: made, listed, revoked. The secret is in the answer to the one who asked, and nowhere
//! else; redeeming is `enrol`.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{InviteId, UserId};
use cortex_core::invite::{Invite, InviteText, within_bound};
use cortex_core::name::{Labels, check_labels};
use cortex_core::policy::{Document, Mode, PROFILES};
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal, limits};
use cortex_store::Tx;

use crate::authority::Authority;
use crate::clock;
use crate::secret;
use crate::service::policies::may_open;
use crate::service::users;
use crate::service::{Caller, Context, anew};

/// The use cases of invites. Cheap to clone.
#[derive(Clone)]
pub struct Invites {
    context: Context,
    authority: Arc<Authority>,
}

/// What an invite is for.
#[derive(Clone, Debug, Default)]
pub struct NewInvite {
    /// Labels for the joining node.
    pub labels: Labels,
    /// Profile for the joining node; STRICT when missing.
    pub profile: Option<String>,
    /// The profile beyond which the node's policy may never be set.
    pub max_profile: Option<String>,
    /// Name or id of the user whose the node will be.
    pub owner: Option<String>,
    /// Life, milliseconds; 15 minutes when missing.
    pub ttl_ms: Option<u64>,
}

impl Invites {
    /// The use cases over `context`, for joining the hub of `authority`.
    pub fn new(context: Context, authority: Arc<Authority>) -> Self {
        Self { context, authority }
    }

    /// Makes an invite. Needs `invites:write`. The text holds the secret.
    pub async fn create(&self, caller: &Caller, new: NewInvite) -> Result<(Invite, InviteText), Refusal> {
        caller.anywhere(Right::InvitesWrite)?;
        let profile = check(&new)?;
        may_invite(caller, &profile)?;
        let owner = new.owner.as_deref().map(|text| self.owner(text)).transpose()?;
        let secret: [u8; 32] = clock::random();
        let now = self.context.clock.wall();
        let invite = Invite {
            id: clock::new_invite_id(&self.context.clock),
            secret_hash: secret::hash(&secret),
            labels: new.labels,
            profile,
            created_by: caller.actor(),
            created_at: now,
            expires_at: now.plus_ms(new.ttl_ms.unwrap_or(limits::INVITE_TTL_MS)),
            used_by: None,
            used_at: None,
            revoked_at: None,
            owner,
            max_profile: new.max_profile,
        };
        let text = InviteText { authority: self.authority.fingerprint(), id: invite.id, secret };
        let (kept, again) = (invite.clone(), caller.clone());
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            may_invite(&again, &kept.profile)?;
            tx.put_invite(&kept)?;
            let bound = kept.max_profile.as_deref().map(|bound| format!(" at most {bound}"));
            let detail = format!("{} profile {}{}", kept.id, kept.profile, bound.unwrap_or_default());
            record(tx, &kept, EventKind::InviteCreated, "invite.create", &again, detail)
        };
        self.context.commit(work, |()| ()).await?;
        Ok((invite, text))
    }

    fn owner(&self, text: &str) -> Result<UserId, Refusal> {
        let found = self.context.directory.user_called(text);
        found.map(|user| user.id).ok_or_else(|| users::unknown(text))
    }

    /// The newest invites, at most `limit`.
    pub async fn list(&self, caller: &Caller, limit: usize) -> Result<Vec<Invite>, Refusal> {
        caller.anywhere(Right::InvitesRead)?;
        self.context.view(move |view| view.invites(limit)).await
    }

    /// Ends an invite. Needs `invites:write`. Ending it twice changes nothing; `Conflict` when it
    /// was used.
    pub async fn revoke(&self, caller: &Caller, id: InviteId) -> Result<Invite, Refusal> {
        caller.anywhere(Right::InvitesWrite)?;
        let (again, now) = (caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            again.anywhere(Right::InvitesWrite)?;
            let Some(mut invite) = tx.invite(id)? else {
                return Err(Refusal::new(Code::NotFound, format!("There is no invite {id}."))
                    .hint("List the invites with `cortex invite ls`.")
                    .into());
            };
            if invite.revoked_at.is_some() {
                return Ok(invite);
            }
            if invite.used_by.is_some() {
                let message = format!("Invite {id} was used; it can admit nobody more.");
                let hint = "Remove the node that joined by it with `cortex node rm`, if it should go.";
                return Err(Refusal::new(Code::Conflict, message).hint(hint).into());
            }
            invite.revoked_at = Some(now);
            tx.put_invite(&invite)?;
            record(tx, &invite, EventKind::InviteRevoked, "invite.revoke", &again, id.to_string())?;
            Ok(invite)
        };
        self.context.commit(work, |_| ()).await
    }
}

/// Who may make this invite: one that opens the node which joins by it is for those who may open nodes.
fn may_invite(caller: &Caller, profile: &str) -> Result<(), Refusal> {
    caller.anywhere(Right::InvitesWrite)?;
    if Document::profile(profile).is_some_and(|document| document.mode == Mode::Permissive) {
        may_open(&caller.token)?;
    }
    Ok(())
}

fn check(new: &NewInvite) -> Result<String, Refusal> {
    check_labels(&new.labels)?;
    let profile = new.profile.clone().unwrap_or_else(|| "strict".to_owned());
    if !PROFILES.contains(&profile.as_str()) {
        return Err(super::policies::unknown_profile(&profile, std::iter::empty()));
    }
    if let Some(bound) = &new.max_profile {
        if !PROFILES.contains(&bound.as_str()) {
            return Err(super::policies::unknown_profile(bound, std::iter::empty()));
        }
        let document = Document::profile(&profile).unwrap_or_default();
        within_bound(Some(bound), &document).map_err(|_| {
            let message = format!("The profile {profile} is beyond the bound {bound} of this invite.");
            Refusal::new(Code::InvalidArgument, message)
                .hint("Widen `max_profile`, or choose a narrower profile.")
        })?;
    }
    let ttl_ms = new.ttl_ms.unwrap_or(limits::INVITE_TTL_MS);
    if ttl_ms == 0 || ttl_ms > limits::INVITE_TTL_MS_MAX {
        let message =
            format!("`ttl_ms` is {ttl_ms}; it must be above 0 and at most {}.", limits::INVITE_TTL_MS_MAX);
        return Err(Refusal::new(Code::InvalidArgument, message));
    }
    Ok(profile)
}

fn record(
    tx: &mut dyn Tx,
    invite: &Invite,
    kind: EventKind,
    action: &str,
    caller: &Caller,
    detail: String,
) -> Result<(), cortex_store::WriteError> {
    let at = invite.revoked_at.unwrap_or(invite.created_at);
    tx.append_event(&Event::new(kind, at).actor(caller.actor()).subject(invite.id.to_string()))?;
    let row = AuditRow::new(at, caller.actor(), action, Outcome::Allowed);
    tx.append_audit(&AuditRow { detail: Some(detail), token: Some(caller.token.id), ..row })?;
    Ok(())
}
