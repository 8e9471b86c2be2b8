//! `cortex user add|ls|rm|passwd|groups|grant|ungrant|grants`.

use std::collections::BTreeSet;

use cortex_wire::http::{
    GrantRequest, PasswordChange, PasswordText, RoleGrantView, UserPatch, UserRequest, UserView,
};
use http::Method;
use serde_json::json;

use super::{Context, args, password};
use crate::client::{Call, encode};
use crate::error::{Failure, Result};

/// Add, list and remove people, and give them roles.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex user add ada --group build\n  cortex user grant @build operator -l role=ci"
)]
pub(crate) struct User {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Add a person. It can do nothing until it, or one of its groups, has a role.
    #[command(before_help = "Example:\n  cortex user add ada --group build --password-file -")]
    Add {
        /// Its name.
        name: String,
        /// A group; may be repeated.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// File with its password; `-` reads standard input. Asked for on a terminal when missing.
        #[arg(long, value_name = "FILE")]
        password_file: Option<String>,
    },
    /// List people with their groups and roles.
    #[command(before_help = "Example:\n  cortex user ls")]
    Ls,
    /// Remove a person, with all tokens, sessions and roles.
    #[command(before_help = "Example:\n  cortex user rm ada --yes")]
    Rm {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Set a person's password, or without a name your own; the other sessions of that person end.
    #[command(
        before_help = "Examples:\n  cortex user passwd                          # your own\n  cortex user passwd ada --password-file -"
    )]
    Passwd {
        /// Its name; your own password when missing.
        name: Option<String>,
        /// File with your current password, when it is your own that you set; `-` reads standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "name")]
        current_file: Option<String>,
        /// File with the new password; `-` reads standard input. Asked for on a terminal when missing.
        #[arg(long, value_name = "FILE")]
        password_file: Option<String>,
    },
    /// Set all groups of a person; none when none is named.
    #[command(before_help = "Example:\n  cortex user groups ada build night")]
    Groups {
        /// Its name.
        name: String,
        /// Its groups from here on.
        groups: Vec<String>,
    },
    /// Give a person, or with `@` a group, a role: on all nodes, or on those with some labels.
    #[command(
        before_help = "Examples:\n  cortex user grant ada viewer\n  cortex user grant @build operator -l role=ci"
    )]
    Grant {
        /// NAME, or @GROUP.
        whom: String,
        /// What it may do.
        #[arg(value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// Only on nodes with these labels, such as role=ci; without it on all, and on the hub itself.
        #[arg(short = 'l', long, value_name = "SEL", value_parser = args::selector)]
        selector: Option<String>,
    },
    /// Take a role back.
    #[command(before_help = "Example:\n  cortex user ungrant 0198a1c2-0000-7000-8000-000000000000")]
    Ungrant {
        /// Its id, from `cortex user grants`.
        id: String,
    },
    /// List all roles that were given.
    #[command(before_help = "Example:\n  cortex user grants")]
    Grants,
}

impl User {
    pub(crate) async fn run(self, context: &Context) -> Result {
        match self.action {
            Action::Add { name, groups, password_file } => add(context, name, groups, password_file).await,
            Action::Ls => ls(context).await,
            Action::Rm { name, yes } => rm(context, &name, yes).await,
            Action::Passwd { name: Some(name), password_file, .. } => {
                passwd(context, &name, password_file).await
            }
            Action::Passwd { name: None, current_file, password_file } => {
                own(context, current_file, password_file).await
            }
            Action::Groups { name, groups } => {
                let groups = Some(groups.into_iter().collect());
                change(context, &name, UserPatch { groups, password: None }, "The groups are set.").await
            }
            Action::Grant { whom, role, selector } => grant(context, &whom, role, selector).await,
            Action::Ungrant { id } => ungrant(context, &id).await,
            Action::Grants => grants(context).await,
        }
    }
}

async fn add(context: &Context, name: String, groups: Vec<String>, file: Option<String>) -> Result {
    let mut client = context.client()?;
    let password = password::read_new(context.output, file.as_deref())?.map(PasswordText);
    let groups: BTreeSet<String> = groups.into_iter().collect();
    let made: UserView = client.post("/users", &UserRequest { name, password, groups }).await?;
    let output = context.output;
    if output.json {
        return output.json(&made);
    }
    output.line(&format!("{} {}", made.id, made.name))?;
    if !made.can_log_in {
        output.say(&format!("It has no password and cannot log in: cortex user passwd {}", made.name));
    }
    if made.roles.is_empty() {
        output.say(&format!("It can do nothing yet. Next: cortex user grant {} viewer", made.name));
    }
    Ok(())
}

async fn ls(context: &Context) -> Result {
    let users: Vec<UserView> = context.client()?.list("/users", usize::MAX).await?;
    let row = |user: &UserView| {
        let login = if user.can_log_in { "password" } else { "-" };
        let roles: Vec<String> = user.roles.iter().map(role_words).collect();
        vec![
            user.name.clone(),
            user.groups.join(","),
            roles.join(" "),
            login.to_owned(),
            user.created_at.clone(),
        ]
    };
    let head = ["NAME", "GROUPS", "ROLES", "LOGIN", "ADDED"];
    context.output.list(&users, &head, row, "There are no users. Next: cortex user add NAME")
}

async fn rm(context: &Context, name: &str, yes: bool) -> Result {
    let output = context.output;
    output.confirm(&format!("Remove {name}, and end all its tokens and sessions?"), yes)?;
    context.client()?.done(Method::DELETE, &format!("/users/{}", encode(name)), Call::default()).await?;
    if output.json {
        return output.json(&json!({"removed": name}));
    }
    output.say("Removed, with all tokens, sessions and roles.");
    Ok(())
}

/// Sets the password of whoever is logged in.
async fn own(context: &Context, current: Option<String>, file: Option<String>) -> Result {
    if current.as_deref() == Some("-") && file.as_deref() == Some("-") {
        return Err(Failure::usage(
            "Standard input cannot hold both passwords.",
            "Put one of them into a file of mode 0600.",
        ));
    }
    let current = password::read(context.output, current.as_deref(), "Current password: ")?;
    let change = PasswordChange { current: PasswordText(current), new: new_password(context, file)? };
    context.client()?.done(Method::POST, "/password", Call::json(&change)?).await?;
    if context.output.json {
        return context.output.json(&json!({"changed": true}));
    }
    context.output.say("Your password is set, and your other sessions have ended.");
    Ok(())
}

fn new_password(context: &Context, file: Option<String>) -> Result<PasswordText> {
    let given = password::read_new(context.output, file.as_deref())?;
    given.map(PasswordText).ok_or_else(|| {
        Failure::usage(
            "No password was given.",
            "Give `--password-file FILE`, or `--password-file -` for standard input.",
        )
    })
}

async fn passwd(context: &Context, name: &str, file: Option<String>) -> Result {
    let password = new_password(context, file)?;
    let patch = UserPatch { password: Some(password), groups: None };
    change(context, name, patch, "The password is set, and its sessions have ended.").await
}

async fn change(context: &Context, name: &str, patch: UserPatch, done: &str) -> Result {
    let path = format!("/users/{}", encode(name));
    let changed: UserView = context.client()?.call(Method::PATCH, &path, Call::json(&patch)?).await?;
    if context.output.json {
        return context.output.json(&changed);
    }
    context.output.say(done);
    Ok(())
}

async fn grant(context: &Context, whom: &str, role: String, selector: Option<String>) -> Result {
    let (user, group) = match whom.strip_prefix('@') {
        Some(group) => (None, Some(group.to_owned())),
        None => (Some(whom.to_owned()), None),
    };
    let made: RoleGrantView =
        context.client()?.post("/grants", &GrantRequest { user, group, role, selector }).await?;
    if context.output.json {
        return context.output.json(&made);
    }
    context.output.line(&format!("{} {} {}", made.id, made.subject, role_words(&made)))
}

async fn ungrant(context: &Context, id: &str) -> Result {
    context.client()?.done(Method::DELETE, &format!("/grants/{}", encode(id)), Call::default()).await?;
    if context.output.json {
        return context.output.json(&json!({"taken_back": id}));
    }
    context.output.say("Taken back.");
    Ok(())
}

async fn grants(context: &Context) -> Result {
    let grants: Vec<RoleGrantView> = context.client()?.list("/grants", usize::MAX).await?;
    let row = |grant: &RoleGrantView| {
        vec![grant.id.clone(), grant.subject.clone(), role_words(grant), grant.created_by.clone()]
    };
    let head = ["ID", "WHO", "ROLE", "BY"];
    context.output.list(&grants, &head, row, "No role was given. Next: cortex user grant NAME viewer")
}

/// `operator[role=ci]`.
fn role_words(grant: &RoleGrantView) -> String {
    if grant.selector.is_empty() { grant.role.clone() } else { format!("{}[{}]", grant.role, grant.selector) }
}
