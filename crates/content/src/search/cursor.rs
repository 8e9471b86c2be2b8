//! Where the next page of an answer begins.

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::content::ContentId;
use cortex_core::files::op::Page;

/// How far an answer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The last path, relative to the folder that is looked through.
    pub path: Vec<u8>,
    /// The last line of that file, from 1, and 0 when none of it was told; `None` when all of it was.
    pub line: Option<u64>,
}

impl Cursor {
    /// As a caller gets it.
    pub fn encode(&self, question: &ContentId) -> Bytes {
        let line = self.line.map_or(0, |line| line.saturating_add(1));
        [question.as_bytes(), &line.to_be_bytes()[..], &self.path].concat().into()
    }

    /// Reads what a caller sends back.
    ///
    /// # Errors
    ///
    /// `invalid_argument` when it belongs to another question.
    pub fn decode(page: &Page, question: &ContentId) -> Result<Option<Self>, Refusal> {
        let Some(cursor) = &page.cursor else { return Ok(None) };
        let read = || {
            let (of, rest) = cursor.split_at_checked(32)?;
            let (line, path) = rest.split_at_checked(8)?;
            let line = u64::from_be_bytes(line.try_into().ok()?);
            (of == question.as_bytes()).then(|| Self { path: path.to_vec(), line: line.checked_sub(1) })
        };
        match read() {
            Some(cursor) => Ok(Some(cursor)),
            None => Err(Refusal::new(Code::InvalidArgument, "The cursor belongs to another question.")
                .hint("Ask the same question as for the page before, or leave the cursor out.")),
        }
    }
}
