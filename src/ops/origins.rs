//! Where the rows of a batch come from that is gathered from others.

use super::batch::{Batch, Pick};
use super::ords;
use crate::base::EventTime;

/// Where a row comes from.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Origin {
    pub source: u32,
    /// Its row within the source's backing.
    pub row: u32,
}

/// Where the rows of a batch come from: each of them is a row that its source has.
pub(super) struct Origins {
    list: Vec<Origin>,
    /// Rows of each source's backing.
    rows: Vec<usize>,
}

impl Origins {
    /// The rows of `sources`, numbered through from 0, in this order.
    ///
    /// # Panics
    /// When a number is no row's.
    pub fn ordered(sources: &[Batch], order: &[u32]) -> Self {
        if let [only] = sources
            && let Pick::All = only.pick()
        {
            let rows = only.num_rows();
            check(order, rows);
            return Origins {
                list: order.iter().map(|row| Origin { source: 0, row: *row }).collect(),
                rows: vec![rows],
            };
        }
        let all = Origins::all(sources);
        Origins { list: order.iter().map(|number| all.list[*number as usize]).collect(), rows: all.rows }
    }

    /// The rows of `sources` by `(_time, _ord)`, each of which is in this order by itself. `times` are those of all rows, one source
    /// after the other, and are in order afterwards.
    ///
    /// # Panics
    /// When there are not as many times as rows.
    pub fn merged(sources: &[Batch], times: &mut Vec<EventTime>) -> Self {
        let Origins { mut list, rows } = Origins::all(sources);
        let ords: Vec<&[u64]> = sources.iter().map(|source| ords(source.backing())).collect();
        let ord = |origin: Origin| ords[origin.source as usize][origin.row as usize];
        let mut lengths: Vec<usize> = sources.iter().map(Batch::num_rows).collect();
        let (mut times_room, mut room) = (vec![0; times.len()], vec![Origin::default(); list.len()]);
        while lengths.len() > 1 {
            let mut from = 0;
            for pair in lengths.chunks(2) {
                let (middle, end) = (from + pair[0], from + pair.iter().sum::<usize>());
                let (left, right) =
                    ((&times[from..middle], &list[from..middle]), (&times[middle..end], &list[middle..end]));
                merge(left, right, (&mut times_room[from..end], &mut room[from..end]), ord);
                from = end;
            }
            std::mem::swap(times, &mut times_room);
            std::mem::swap(&mut list, &mut room);
            lengths = lengths.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        Origins { list, rows }
    }

    /// The rows of `sources`, one source after the other.
    fn all(sources: &[Batch]) -> Self {
        let rows: Vec<usize> = sources.iter().map(|source| source.backing().num_rows()).collect();
        let mut list = Vec::with_capacity(sources.iter().map(Batch::num_rows).sum());
        for ((source, batch), rows) in (0u32..).zip(sources).zip(&rows) {
            match batch.pick() {
                Pick::All => list.extend((0..*rows as u32).map(|row| Origin { source, row })),
                Pick::Rows(picked) => {
                    check(picked, *rows);
                    list.extend(picked.iter().map(|row| Origin { source, row: *row }));
                }
            }
        }
        Origins { list, rows }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// One after the other.
    pub fn list(&self) -> &[Origin] {
        &self.list
    }

    /// Whether columns of which these are the parts, by source, are as long as the sources.
    pub fn fit<W>(&self, parts: &[&[W]]) -> bool {
        parts.iter().map(|part| part.len()).eq(self.rows.iter().copied())
    }
}

/// # Panics
/// When a number is not below `rows`.
pub(super) fn check(numbers: &[u32], rows: usize) {
    let most = numbers.iter().fold(0, |most, number| most.max(*number));
    assert!(numbers.is_empty() || (most as usize) < rows, "row {most} is none of {rows}");
}

/// Merges two runs of rows and their times; which of them is next is anybody's guess, so there is no branch on it.
fn merge(
    left: (&[EventTime], &[Origin]),
    right: (&[EventTime], &[Origin]),
    (times, list): (&mut [EventTime], &mut [Origin]),
    ord: impl Fn(Origin) -> u64,
) {
    let (mut l, mut r) = (0, 0);
    for done in 0..times.len() {
        let (Some(a), Some(b)) = (left.0.get(l), right.0.get(r)) else {
            let (rest, at) = if l < left.0.len() { (left, l) } else { (right, r) };
            times[done..].copy_from_slice(&rest.0[at..]);
            list[done..].copy_from_slice(&rest.1[at..]);
            return;
        };
        let (a_from, b_from) = (left.1[l], right.1[r]);
        // Few times are equal, which the processor learns.
        let takes_left = if a == b { ord(a_from) <= ord(b_from) } else { a < b };
        times[done] = if takes_left { *a } else { *b };
        list[done] = if takes_left { a_from } else { b_from };
        l += usize::from(takes_left);
        r += usize::from(!takes_left);
    }
}
