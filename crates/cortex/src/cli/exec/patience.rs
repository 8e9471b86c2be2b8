//! How long a person's answer is waited for: from the first question on.

use tokio::time::{Duration, Instant, sleep_until};

/// The bound, and when it is over.
pub(super) struct Patience {
    bound: Option<Duration>,
    until: Option<Instant>,
}

impl Patience {
    /// `None` waits as long as the question does.
    pub(super) fn new(ms: Option<u64>) -> Self {
        Self { bound: ms.map(Duration::from_millis), until: None }
    }

    /// Comes when the bound is over; never while nobody is waited for.
    pub(super) async fn over(&mut self, waits: bool) {
        let (Some(bound), true) = (self.bound, waits) else { return std::future::pending().await };
        let until = *self.until.get_or_insert_with(|| Instant::now() + bound);
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn patience_ends_after_its_bound_and_only_while_somebody_is_waited_for() {
        let mut patience = Patience::new(Some(100));
        assert!(timeout(MOMENT, patience.over(false)).await.is_err(), "nobody is waited for");
        assert_eq!(patience.until, None, "so nothing has begun");
        assert!(timeout(MOMENT, patience.over(true)).await.is_err(), "it is not over yet");
        let until = patience.until;
        patience.over(true).await;
        assert_eq!(patience.until, until, "a look in between begins nothing anew");
        assert!(until.is_some_and(|until| Instant::now() >= until));
        assert!(timeout(MOMENT, Patience::new(None).over(true)).await.is_err(), "no bound");
    }
}
