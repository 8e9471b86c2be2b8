//! Where blocks are in a file: one place in many, since a run that prints a line now and then makes
//! millions of blocks. Those in between are found by their headers.

use cortex_core::stream::Positions;

/// One block in so many is remembered.
const EVERY: u64 = 64;

/// Places of blocks, in their order.
#[derive(Debug, Default)]
pub(super) struct Index {
    spots: Vec<Spot>,
    blocks: u64,
    end: Spot,
}

/// Where a block begins, in the output and in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) at: Positions,
    pub(super) offset: u64,
}

/// Blocks that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) begin: Spot,
    pub(super) end: Spot,
}

impl Index {
    /// Takes note of the next block, or of one that stands where the last one stood.
    pub(super) fn wrote(&mut self, begin: Spot, end: Spot) {
        if begin.offset >= self.end.offset {
            if self.blocks.is_multiple_of(EVERY) {
                self.spots.push(begin);
            }
            self.blocks += 1;
        }
        self.end = end;
    }

    /// Where the last block ends.
    pub(super) const fn end(&self) -> Spot {
        self.end
    }

    /// The blocks among which the one with this position is.
    pub(super) fn around(&self, position: u64) -> Option<Stretch> {
        let next = self.spots.partition_point(|spot| spot.at.total() <= position);
        let begin = *self.spots.get(next.checked_sub(1)?)?;
        let end = self.spots.get(next).copied().unwrap_or(self.end);
        (position < end.at.total()).then_some(Stretch { begin, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(number: u64) -> Spot {
        Spot { at: Positions { stdout: 10 * number, stderr: 0 }, offset: 100 * number }
    }

    #[test]
    fn a_month_of_a_line_every_half_second_costs_a_few_mebibytes() {
        let mut index = Index::default();
        let blocks = 30 * 24 * 3_600 * 2;
        (0..blocks).for_each(|number| index.wrote(spot(number), spot(number + 1)));
        let bytes = index.spots.capacity() * size_of::<Spot>();
        assert!(bytes < 4 * 1024 * 1024, "{bytes}");
        for number in [0, 1, 63, 64, 65, blocks / 2, blocks - 1] {
            let stretch = index.around(10 * number + 5).expect("it is there");
            assert!(stretch.begin.offset <= 100 * number && 100 * number < stretch.end.offset, "{stretch:?}");
            assert!(stretch.end.offset - stretch.begin.offset <= 100 * EVERY);
        }
        assert_eq!(index.around(10 * blocks), None);
    }

    #[test]
    fn a_block_that_takes_the_place_of_the_last_one_is_the_last_one() {
        let mut index = Index::default();
        assert_eq!(index.around(0), None);
        index.wrote(spot(0), spot(1));
        let grown = Spot { at: Positions { stdout: 50, stderr: 0 }, offset: 100 };
        index.wrote(spot(0), grown);
        assert_eq!(index.around(40), Some(Stretch { begin: spot(0), end: grown }));
        assert_eq!((index.blocks, index.spots.len()), (1, 1));
    }
}
