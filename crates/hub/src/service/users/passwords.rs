//! Passwords: hashed and compared by argon2id, few at once, since each takes 19 MiB and tens of
//! milliseconds of a processor. Never a password in an error, nor a way to tell by the time that an
//! answer takes whether a user is there.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use cortex_core::limits::{PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN, PASSWORD_CHECKS_AT_ONCE_MAX};
use cortex_core::user::PasswordHash;
use cortex_core::{Code, Refusal};
use tokio::sync::Semaphore;

use crate::clock;
use crate::secret::Secret;

/// Memory of one hash, KiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over it.
const PASSES: u32 = 2;
/// How long a password waits for its turn.
const TURN: Duration = Duration::from_secs(2);

/// Hashes and compares. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    /// What is compared when there is no user: nobody's password.
    nobodys: Arc<OnceLock<String>>,
}

/// What a comparison said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service) enum Compared {
    /// It is another one, or there is none.
    Wrong,
    /// It is this one.
    Right,
    /// It is this one, and its hash has other parameters than those of today: this is the new one.
    Weak(PasswordHash),
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(PASSWORD_CHECKS_AT_ONCE_MAX)), nobodys: Arc::default() }
    }
}

impl Passwords {
    /// The hash to keep.
    ///
    /// # Errors
    /// `invalid_argument` for one that is too short, `too_large`, `rate_limited`.
    pub(in crate::service) async fn hash(&self, password: Secret) -> Result<PasswordHash, Refusal> {
        check(&password)?;
        self.in_turn(move || hash(password.reveal().as_bytes())).await?
    }

    /// Compares with the hash that is kept; without one it takes as long and is wrong.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(in crate::service) async fn compare(
        &self,
        password: Secret,
        kept: Option<PasswordHash>,
    ) -> Result<Compared, Refusal> {
        let nobodys = Arc::clone(&self.nobodys);
        self.in_turn(move || {
            // Made for everybody's first comparison, so that its time tells nothing.
            let made =
                || hash(&clock::random::<32>()).map(|hash| hash.reveal().to_owned()).unwrap_or_default();
            let nobodys = nobodys.get_or_init(made);
            let against = kept.as_ref().map_or(nobodys.as_str(), PasswordHash::reveal);
            let right = password.reveal().len() <= PASSWORD_BYTES_MAX && is(password.reveal(), against);
            match kept {
                Some(_) if right && !is_of_today(against) => {
                    hash(password.reveal().as_bytes()).map_or(Compared::Right, Compared::Weak)
                }
                Some(_) if right => Compared::Right,
                Some(_) | None => Compared::Wrong,
            }
        })
        .await
    }

    /// On a thread that may be busy. The turn is the work's: it goes on when its caller gave up.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let busy = || {
            Refusal::new(Code::RateLimited, "Too many passwords are being compared.")
                .detail("retry_after_s", "2")
        };
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        task.await.map_err(|_| Refusal::new(Code::Internal, "Comparing a password failed."))
    }
}

fn check(password: &Secret) -> Result<(), Refusal> {
    let bytes = password.reveal().len();
    if bytes > PASSWORD_BYTES_MAX {
        let message = format!("A password has at most {PASSWORD_BYTES_MAX} bytes.");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    if bytes < PASSWORD_BYTES_MIN {
        let message = format!("A password has at least {PASSWORD_BYTES_MIN} bytes.");
        return Err(Refusal::new(Code::InvalidArgument, message)
            .hint("Choose a longer one; four words that do not belong together are good."));
    }
    Ok(())
}

fn hasher() -> Result<Argon2<'static>, Refusal> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|_| failed())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8]) -> Result<PasswordHash, Refusal> {
    let made: Phc =
        hasher()?.hash_password_with_salt(password, &clock::random::<16>()).map_err(|_| failed())?;
    Ok(PasswordHash::new(made.to_string()))
}

fn failed() -> Refusal {
    Refusal::new(Code::Internal, "A password could not be hashed.")
}

fn is(password: &str, kept: &str) -> bool {
    Phc::new(kept).is_ok_and(|kept| Argon2::default().verify_password(password.as_bytes(), &kept).is_ok())
}

fn is_of_today(kept: &str) -> bool {
    kept.starts_with(&format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_kept_as_argon2id_and_known_again() {
        let passwords = Passwords::default();
        let kept = passwords.hash(secret("correct horse battery")).await.expect("hashed");
        assert!(kept.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", kept.reveal());
        assert!(!kept.reveal().contains("correct") && !format!("{kept:?}").contains("argon2"));
        let other = passwords.hash(secret("correct horse battery")).await.expect("hashed");
        assert_ne!(kept, other, "each has its own salt");
        let compare = async |text: &str, kept: Option<&PasswordHash>| {
            passwords.compare(secret(text), kept.cloned()).await.expect("compared")
        };
        assert_eq!(compare("correct horse battery", Some(&kept)).await, Compared::Right);
        assert_eq!(compare("correct horse batterz", Some(&kept)).await, Compared::Wrong);
        assert_eq!(compare("", Some(&kept)).await, Compared::Wrong);
        assert_eq!(compare("correct horse battery", None).await, Compared::Wrong);
        let broken = PasswordHash::new("$argon2id$nonsense".to_owned());
        assert_eq!(compare("correct horse battery", Some(&broken)).await, Compared::Wrong);
    }

    #[tokio::test]
    async fn a_hash_of_weaker_parameters_is_made_anew() {
        let weak = Params::new(8 * 1024, 1, 1, None).expect("parameters");
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, weak);
        let made: Phc = weak.hash_password_with_salt(b"correct horse", &[7; 16]).expect("hashed");
        let kept = PasswordHash::new(made.to_string());
        let compared = Passwords::default().compare(secret("correct horse"), Some(kept)).await;
        let Ok(Compared::Weak(fresh)) = compared else { panic!("{compared:?}") };
        assert!(is_of_today(fresh.reveal()) && is("correct horse", fresh.reveal()));
    }

    #[tokio::test]
    async fn too_short_and_too_long_ones_are_refused_before_they_are_hashed() {
        let passwords = Passwords::default();
        let refused = async |text: String| passwords.hash(secret(&text)).await.expect_err("refused").code;
        assert_eq!(refused("x".repeat(PASSWORD_BYTES_MIN - 1)).await, Code::InvalidArgument);
        assert_eq!(refused("x".repeat(PASSWORD_BYTES_MAX + 1)).await, Code::TooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_turn_in_time_is_told_to_come_back() {
        let passwords = Passwords::default();
        let turns = u32::try_from(PASSWORD_CHECKS_AT_ONCE_MAX).expect("few");
        let held = passwords.turns.acquire_many(turns).await.expect("turns");
        let refusal = passwords.compare(secret("correct horse"), None).await.expect_err("no turn");
        assert_eq!(refusal.code, Code::RateLimited);
        assert_eq!(refusal.details, [("retry_after_s", "2".to_owned())]);
        drop(held);
    }
}
