//! How many operations each token has open at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cortex_core::id::TokenId;
use cortex_core::limits::FILE_OPS_OPEN_PER_TOKEN_MAX;
use cortex_core::{Code, Refusal};

/// Those that are open. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Arc<Mutex<BTreeMap<TokenId, usize>>>);

/// One of them, for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted {
    tally: Tally,
    token: TokenId,
}

impl Tally {
    /// Counts one more.
    ///
    /// # Errors
    /// `rate_limited` at the bound.
    pub(super) fn one(&self, token: TokenId) -> Result<Counted, Refusal> {
        self.change(|open| {
            let count = open.entry(token).or_default();
            if *count >= FILE_OPS_OPEN_PER_TOKEN_MAX {
                let message = format!(
                    "This token has {FILE_OPS_OPEN_PER_TOKEN_MAX} operations on files open, the most at once."
                );
                return Err(Refusal::new(Code::RateLimited, message)
                    .hint("Wait for some of them to end, then ask again."));
            }
            *count += 1;
            Ok(())
        })?;
        Ok(Counted { tally: self.clone(), token })
    }

    fn change<T>(&self, work: impl FnOnce(&mut BTreeMap<TokenId, usize>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let token = self.token;
        self.tally.change(|open| {
            if let Some(count) = open.get_mut(&token) {
                *count -= 1;
            }
            open.retain(|_, count| *count > 0);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_so_many_open_at_once_and_the_next_when_one_ended() {
        let (tally, token) = (Tally::default(), TokenId::mint(1, &[1; 10]));
        let mut open: Vec<Counted> =
            (0..FILE_OPS_OPEN_PER_TOKEN_MAX).map(|_| tally.one(token).expect("room")).collect();
        assert_eq!(tally.one(token).expect_err("one too many").code, Code::RateLimited);
        tally.one(TokenId::mint(1, &[2; 10])).expect("another token has its own");
        open.pop();
        open.push(tally.one(token).expect("one ended"));
        open.clear();
        assert!(tally.change(|open| open.is_empty()), "nothing is left behind");
    }
}
