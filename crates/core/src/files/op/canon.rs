//! The canonical bytes of an operation: each field in the order of its declaration, with whatever has no
//! fixed length behind its length. So no two operations have the same bytes. Digests of them are kept: a
//! change here changes what is a repeat, and what a person's leave was for.

use super::{
    Content, Edit, Expect, FileOp, FindQuery, Glob, GrepQuery, Kind, Page, ReadAs, ReadRange, WriteHow,
};
use crate::files::content::ContentId;
use crate::files::path::FilePath;

/// What the bytes begin with: their hash is to be no other thing's.
const PREFIX: &[u8] = b"cortex file operation 1\0";

/// The bytes of an operation.
pub(super) fn encode(op: &FileOp) -> Vec<u8> {
    let mut out = Out(PREFIX.to_vec());
    out.text(op.verb().as_str());
    match op {
        FileOp::List { path, depth, hidden, glob, hash, page } => {
            out.path(path).byte(*depth).flag(*hidden).glob(glob.as_ref()).flag(*hash).page(page)
        }
        FileOp::Stat { path, hash } => out.path(path).flag(*hash),
        FileOp::Read { path, range, want, hash } => out.path(path).range(*range).read_as(*want).flag(*hash),
        FileOp::Find { path, query, page } => out.path(path).find(query).page(page),
        FileOp::Grep { path, query, page } => out.path(path).grep(query).page(page),
        FileOp::Write { path, content, how, expect, mkdirs, mode, dry_run } => out
            .path(path)
            .content(content)
            .how(*how)
            .expect(expect)
            .flag(*mkdirs)
            .optional(mode.map(u64::from))
            .flag(*dry_run),
        FileOp::Edit { path, edits, expect, dry_run } => {
            out.path(path).edits(edits).expect(expect).flag(*dry_run)
        }
        FileOp::MakeDir { path, parents, mode } => {
            out.path(path).flag(*parents).optional(mode.map(u64::from))
        }
        FileOp::Remove { path, recursive, expect, dry_run } => {
            out.path(path).flag(*recursive).expect(expect).flag(*dry_run)
        }
        FileOp::Move { from, to, replace, expect } => out.path(from).path(to).flag(*replace).expect(expect),
        FileOp::Copy { from, to, recursive, replace, expect } => {
            out.path(from).path(to).flag(*recursive).flag(*replace).expect(expect)
        }
    };
    out.0
}

struct Out(Vec<u8>);

impl Out {
    fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.byte(u8::from(flag))
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn optional(&mut self, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.byte(1).number(number),
            None => self.byte(0),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn path(&mut self, path: &FilePath) -> &mut Self {
        self.text(path.as_str())
    }

    fn id(&mut self, id: &ContentId) -> &mut Self {
        self.0.extend(id.as_bytes());
        self
    }

    fn glob(&mut self, glob: Option<&Glob>) -> &mut Self {
        match glob {
            Some(glob) => self.byte(1).text(glob.as_str()),
            None => self.byte(0),
        }
    }

    fn page(&mut self, page: &Page) -> &mut Self {
        let Page { limit, cursor } = page;
        self.number(u64::from(*limit));
        match cursor {
            Some(cursor) => self.byte(1).bytes(cursor),
            None => self.byte(0),
        }
    }

    fn range(&mut self, range: ReadRange) -> &mut Self {
        match range {
            ReadRange::All => self.byte(0),
            ReadRange::Bytes { from, len } => self.byte(1).number(from).number(len),
            ReadRange::Lines { from, count } => self.byte(2).number(from).number(count),
        }
    }

    fn read_as(&mut self, want: ReadAs) -> &mut Self {
        match want {
            ReadAs::Inline { bytes_max } => self.byte(0).number(u64::from(bytes_max)),
            ReadAs::Stream => self.byte(1),
        }
    }

    fn find(&mut self, query: &FindQuery) -> &mut Self {
        let FindQuery { name, kind, size_min, size_max, changed_within_ms, hidden, ignored } = query;
        self.glob(name.as_ref()).text(kind.map_or("", Kind::as_str));
        self.optional(*size_min).optional(*size_max).optional(*changed_within_ms);
        self.flag(*hidden).flag(*ignored)
    }

    fn grep(&mut self, query: &GrepQuery) -> &mut Self {
        let GrepQuery { pattern, literal, ignore_case, glob, context, hidden, ignored } = query;
        self.text(pattern).flag(*literal).flag(*ignore_case).glob(glob.as_ref());
        self.byte(*context).flag(*hidden).flag(*ignored)
    }

    fn content(&mut self, content: &Content) -> &mut Self {
        match content {
            Content::Inline(bytes) => self.byte(0).bytes(bytes),
            Content::Streamed { id: Some(id), len } => self.byte(1).id(id).optional(*len),
            Content::Streamed { id: None, len } => self.byte(2).optional(*len),
        }
    }

    fn how(&mut self, how: WriteHow) -> &mut Self {
        self.byte(match how {
            WriteHow::Create => 0,
            WriteHow::Replace => 1,
            WriteHow::Append => 2,
            WriteHow::Put => 3,
        })
    }

    fn expect(&mut self, expect: &Expect) -> &mut Self {
        match expect {
            Expect::Any => self.byte(0),
            Expect::Absent => self.byte(1),
            Expect::Etag(etag) => self.byte(2).id(etag),
        }
    }

    fn edits(&mut self, edits: &[Edit]) -> &mut Self {
        self.number(edits.len() as u64);
        for Edit { old, new, all } in edits {
            self.bytes(old).bytes(new).flag(*all);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::samples::{any_op, every, path};

    #[test]
    fn the_bytes_of_an_operation_are_fixed_for_good() {
        let op = FileOp::Stat { path: path("/a"), hash: true };
        let known = b"cortex file operation 1\0\x04\0\0\0\0\0\0\0stat\x02\0\0\0\0\0\0\0/a\x01";
        assert_eq!(encode(&op), known);
        assert_eq!(op.digest(), ContentId::of(known));
    }

    #[test]
    fn the_samples_differ_in_each_field_and_so_do_their_bytes() {
        let all: Vec<(FileOp, Vec<u8>)> = every().into_iter().map(|op| (op.clone(), encode(&op))).collect();
        for (at, (op, bytes)) in all.iter().enumerate() {
            for (other, others) in &all[..at] {
                assert!(op != other && bytes != others, "{op:?} {other:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        // The values are few, so that equal operations come up, and short ones that run into their neighbours.
        #[test]
        fn operations_are_the_same_exactly_when_their_bytes_are(a in any_op(), b in any_op()) {
            prop_assert_eq!(a == b, encode(&a) == encode(&b), "{:?} {:?}", a, b);
        }

        #[test]
        fn the_bytes_of_no_operation_begin_with_those_of_another(a in any_op(), b in any_op()) {
            prop_assert_eq!(a == b, encode(&a).starts_with(&encode(&b)), "{:?} {:?}", a, b);
        }
    }
}
