//! A store with something in the way of its calls.

use futures::future::BoxFuture;

use super::*;

type Writes =
    dyn Fn(Arc<dyn Store>, WriteFn, Duration) -> BoxFuture<'static, Result<(), WriteError>> + Send + Sync;
type Reads = dyn Fn(Duration) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync;

/// See the module.
pub(super) struct Through {
    inner: Arc<dyn Store>,
    /// Carries a write out.
    write: Box<Writes>,
    /// Before a read; may fail it.
    read: Box<Reads>,
}

impl Through {
    /// Writes go this way, reads as ever.
    pub(super) fn writes<W>(
        inner: Arc<dyn Store>,
        write: impl Fn(Arc<dyn Store>, WriteFn, Duration) -> W + Send + Sync + 'static,
    ) -> Arc<dyn Store>
    where
        W: Future<Output = Result<(), WriteError>> + Send + 'static,
    {
        let write = Box::new(move |inner, work, deadline| -> BoxFuture<'static, _> {
            Box::pin(write(inner, work, deadline))
        });
        Arc::new(Self { inner, write, read: Box::new(|_| Box::pin(std::future::ready(Ok(())))) })
    }

    /// Before each call, which this may fail; it is given `true` for a write, and the call's deadline.
    pub(super) fn before<B>(
        inner: Arc<dyn Store>,
        before: impl Fn(bool, Duration) -> B + Send + Sync + 'static,
    ) -> Arc<dyn Store>
    where
        B: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let before = Arc::new(before);
        let of_write = Arc::clone(&before);
        let write = Box::new(move |inner: Arc<dyn Store>, work, deadline| -> BoxFuture<'static, _> {
            let before = of_write(true, deadline);
            Box::pin(async move {
                before.await?;
                inner.write_boxed(work, deadline).await
            })
        });
        Arc::new(Self { inner, write, read: Box::new(move |deadline| Box::pin(before(false, deadline))) })
    }

    /// Writes are answered so much later than they are stored.
    pub(super) fn late(inner: Arc<dyn Store>, late: Duration) -> Arc<dyn Store> {
        Self::writes(inner, move |inner, work, deadline| async move {
            let written = inner.write_boxed(work, deadline).await;
            tokio::time::sleep(late).await;
            written
        })
    }
}

#[async_trait::async_trait]
impl Store for Through {
    async fn write_boxed(&self, work: WriteFn, deadline: Duration) -> Result<(), WriteError> {
        let written = (self.write)(Arc::clone(&self.inner), work, deadline).await;
        // The memory's writes end at once. Those of a store on a disk do not, and what has just been
        // started in the hub runs meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
        written
    }

    async fn read_boxed(&self, work: ReadFn, deadline: Duration) -> Result<(), StoreError> {
        (self.read)(deadline).await?;
        self.inner.read_boxed(work, deadline).await
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
