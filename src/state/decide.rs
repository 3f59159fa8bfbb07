//! What to load, what to publish, what to remove: pure functions over what was found in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::base::{Epoch, Tick};

/// What is asked of a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Load this epoch, or an older one if it is damaged, instead of the newest.
    pub epoch: Option<Epoch>,
    /// Where the input behind the loaded state cannot be replayed exactly: read it again all the same, in new cuts.
    pub allow_replay: bool,
    /// The first tick of a life that has no epoch which can be loaded; later than 0 where it began with a savepoint.
    pub begin: Tick,
    /// What the newest claim said was published: a start that went back past damage may not have come that far again.
    pub published: Option<Tick>,
    /// The newest start that read its input again in new cuts: ticks of epochs before it mean nothing since.
    pub anew_since: u64,
}

/// An epoch of the log, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its last tick; unknown where the manifest is damaged.
    pub tick: Option<Tick>,
    /// Whether manifest and parts are whole.
    pub loadable: bool,
}

/// What a restart does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The epoch whose state is loaded; none begins without state.
    pub load: Option<Epoch>,
    /// Rows of ticks up to this one are not published again.
    pub suppress_through: Option<Tick>,
    /// Epochs whose outboxes may wait to be published, in order; each sink skips what it has.
    pub publish: Vec<Epoch>,
    /// The input behind the loaded state is read again in new cuts.
    pub anew: bool,
    /// What happens to the ticks behind the loaded state, in words.
    pub condition: String,
}

/// What to load. `ticks` are those that the tick log holds.
///
/// The newest loadable epoch at or before the one wished for is loaded. Rows up to the newest committed tick have been
/// published, or are in an outbox that will be; so, with older state, the ticks in between are replayed without publishing, and
/// that is right only if the tick log has them.
///
/// # Errors
/// Why there is no exact way, and which flag accepts an inexact one.
pub fn choose(epochs: &BTreeMap<Epoch, Committed>, ticks: &Range<Tick>, wish: Wish) -> Result<Choice, String> {
    let newest = epochs.last_key_value();
    let bound = match wish.epoch {
        Some(wanted) if !epochs.contains_key(&wanted) => {
            let there: Vec<String> = epochs.keys().map(u64::to_string).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            return Err(format!("there is no epoch {wanted}; there are: {there}"));
        }
        Some(wanted) => wanted,
        None => Epoch::MAX,
    };
    let load = epochs.range(..=bound).rev().find(|(_, epoch)| epoch.loadable).map(|(number, epoch)| (*number, epoch));
    let first = load.and_then(|(_, epoch)| epoch.tick).map_or(wish.begin, |tick| tick + 1);
    let loaded = load.map(|(number, _)| number);
    let publish: Vec<Epoch> =
        epochs.iter().filter(|(_, epoch)| epoch.tick.is_some()).map(|(number, _)| *number).collect();
    let beginning = if wish.begin > 0 { "the savepoint that the job began with" } else { "the beginning of the input" };
    let whence = loaded.map_or(beginning.to_owned(), |number| format!("epoch {number}"));
    let (newest, last) = match newest {
        // What a start that cut anew has gone back past means nothing since.
        Some((newest, last)) if loaded != Some(*newest) && *newest >= wish.anew_since => (newest, last),
        _ => {
            // Epochs that were replayed past damage are behind what was published before it.
            let published =
                epochs.range(wish.anew_since..).filter_map(|(_, epoch)| epoch.tick).chain(wish.published).max();
            let through = published.filter(|tick| *tick >= first);
            let lacks = match through {
                _ if ticks.end > first && ticks.start > first => Some((first, ticks.start - 1)),
                Some(through) if ticks.end <= through => Some((ticks.end.max(first), through)),
                _ => None,
            };
            let something = loaded.is_some() || wish.begin > 0;
            let found = if something { format!("{whence} is loaded") } else { "no epoch is committed".to_owned() };
            let condition = match (lacks, ticks.end.saturating_sub(first)) {
                (None, 0) => format!("{found}; nothing is behind it in the tick log"),
                (None, replayed) => {
                    format!("{found}; {replayed} ticks behind {whence} are replayed in the cuts of the tick log")
                }
                (Some((from, to)), _) if wish.allow_replay => format!(
                    "{found}; the tick log lacks ticks {from} to {to}: the input behind {whence} is read again in new cuts"
                ),
                (Some((from, to)), _) => {
                    let again = match through {
                        Some(_) => "that rows behind it are published twice",
                        None => "that topics with `delivery: at_least_once` get rows again",
                    };
                    return Err(format!(
                        "the tick log lacks ticks {from} to {to}, so the input behind {whence} cannot be cut as it was: restore the log's files from a copy, or accept with --allow-replay that it is read again in new cuts, and {again}"
                    ));
                }
            };
            let suppress_through = through.filter(|_| lacks.is_none());
            return Ok(Choice { load: loaded, suppress_through, publish, anew: lacks.is_some(), condition });
        }
    };
    let through = last.tick.map(|tick| tick.max(wish.published.unwrap_or(tick)));
    let through = through.filter(|through| ticks.start <= first && ticks.end > *through);
    match (through, wish.allow_replay) {
        (Some(through), _) => Ok(Choice {
            load: loaded,
            suppress_through: Some(through),
            publish,
            anew: false,
            condition: format!(
                "{whence} is loaded instead of epoch {newest}; ticks {first} to {through} are replayed in the cuts of the tick log and not published again"
            ),
        }),
        (None, true) => Ok(Choice {
            load: loaded,
            suppress_through: None,
            publish,
            anew: true,
            condition: format!(
                "{whence} is loaded instead of epoch {newest} and the tick log does not reach from one to the other: the input behind it is read again in new cuts, and its rows are published again"
            ),
        }),
        (None, false) => Err(format!(
            "epoch {newest} cannot be loaded, and from {whence} on the tick log (ticks {} to {}) does not reach to it: what was published since cannot be told from what was not; restore the damaged files from a copy, or accept with --allow-replay that rows behind {whence} are published twice",
            ticks.start, ticks.end
        )),
    }
}

/// Entries and epochs that may go: all but the `keep` newest epochs, and the claims before the oldest of them. `published` is
/// the newest epoch that every sink has; what waits for a sink stays.
pub fn garbage(claims: &BTreeSet<u64>, epochs: &BTreeSet<Epoch>, keep: usize, published: Epoch) -> Vec<u64> {
    let oldest = epochs.iter().rev().nth(keep.max(1) - 1).or(epochs.first()).copied();
    let Some(oldest) = oldest.map(|oldest| oldest.min(published)) else { return Vec::new() };
    // The claim of the oldest kept epoch stays: it names the job's life.
    let claim = claims.range(..oldest).next_back().copied().unwrap_or(0);
    let old_epochs = epochs.range(..oldest).copied();
    let mut old: Vec<u64> = claims.range(..claim).copied().chain(old_epochs).collect();
    old.sort_unstable();
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(list: &[(Epoch, Tick, bool)]) -> BTreeMap<Epoch, Committed> {
        list.iter().map(|(n, tick, loadable)| (*n, Committed { tick: Some(*tick), loadable: *loadable })).collect()
    }

    #[test]
    fn the_newest_is_loaded() {
        let log = epochs(&[(1, 9, true), (2, 19, true)]);
        let choice = choose(&log, &(0..25), Wish::default()).expect("there is a way");
        assert_eq!((choice.load, choice.suppress_through, choice.publish), (Some(2), None, vec![1, 2]));
        assert!(choice.condition.contains("5 ticks") && !choice.anew, "{}", choice.condition);
        // Its ticks are gone from the log, and later ones are there.
        let wish = Wish { allow_replay: true, ..Wish::default() };
        assert!(choose(&log, &(22..25), Wish::default()).is_err());
        assert!(choose(&log, &(22..25), wish).expect("it was allowed").anew);
    }

    #[test]
    fn damage_is_passed_by_in_silence_where_the_log_reaches() {
        let log = epochs(&[(1, 9, true), (2, 19, false)]);
        let choice = choose(&log, &(5..25), Wish::default()).expect("there is a way");
        assert_eq!((choice.load, choice.suppress_through), (Some(1), Some(19)));
        // From nothing, if the log has it all.
        let log = epochs(&[(1, 9, false), (2, 19, false)]);
        let choice = choose(&log, &(0..25), Wish::default()).expect("there is a way");
        assert_eq!((choice.load, choice.suppress_through), (None, Some(19)));
    }

    #[test]
    fn what_is_not_exact_needs_a_flag() {
        let log = epochs(&[(1, 9, true), (2, 19, false)]);
        for ticks in [11..25, 0..19, 0..0] {
            let refusal = choose(&log, &ticks, Wish::default()).expect_err("it would not be exact");
            assert!(refusal.contains("--allow-replay"), "{refusal}");
            let wish = Wish { allow_replay: true, ..Wish::default() };
            let choice = choose(&log, &ticks, wish).expect("it was allowed");
            assert_eq!((choice.load, choice.suppress_through, choice.anew), (Some(1), None, true));
        }
        let mut log = log;
        log.insert(3, Committed { tick: None, loadable: false });
        assert!(choose(&log, &(0..99), Wish::default()).is_err(), "a manifest that cannot be read");
    }

    #[test]
    fn an_older_epoch_by_wish() {
        let log = epochs(&[(1, 9, true), (2, 19, true), (3, 29, true)]);
        let wish = |epoch| Wish { epoch: Some(epoch), ..Wish::default() };
        let choice = choose(&log, &(0..40), wish(2)).expect("there is a way");
        assert_eq!((choice.load, choice.suppress_through), (Some(2), Some(29)));
        assert!(choose(&log, &(0..40), wish(7)).expect_err("there is none").contains("1, 2, 3"));
    }

    #[test]
    fn what_was_published_before_damage_is_not_published_again_by_a_second_restart() {
        // Epoch 4 was written by a start that went back to epoch 1 and has not come to tick 29 again.
        let log = epochs(&[(1, 9, true), (2, 29, false), (4, 15, true)]);
        let choice = choose(&log, &(0..40), Wish::default()).expect("there is a way");
        assert_eq!((choice.load, choice.suppress_through), (Some(4), Some(29)));
        // The damaged epoch may have been cleaned away; the claim has not forgotten.
        let log = epochs(&[(4, 15, true)]);
        let wish = Wish { published: Some(29), ..Wish::default() };
        let choice = choose(&log, &(0..40), wish).expect("there is a way");
        assert_eq!((choice.load, choice.suppress_through), (Some(4), Some(29)));
    }

    #[test]
    fn what_is_not_published_again_is_what_the_log_replays() {
        // As above, and the tick log has lost its end: what comes behind tick 19 is cut anew and is in no table.
        let log = epochs(&[(1, 9, true), (2, 29, false), (4, 15, true)]);
        let allowed = Wish { allow_replay: true, ..Wish::default() };
        for ticks in [0..20, 0..29, 0..0] {
            let refusal = choose(&log, &ticks, Wish::default()).expect_err("it would not be exact");
            assert!(refusal.contains("to 29") && refusal.contains("--allow-replay"), "{refusal}");
            let choice = choose(&log, &ticks, allowed).expect("it was allowed");
            assert_eq!((choice.load, choice.suppress_through, choice.anew), (Some(4), None, true));
        }
        // Nor where the newest epoch cannot be loaded either.
        let log = epochs(&[(1, 9, true), (4, 15, false)]);
        let wish = Wish { published: Some(29), ..Wish::default() };
        assert!(choose(&log, &(0..20), wish).is_err());
        assert_eq!(choose(&log, &(0..30), wish).expect("there is a way").suppress_through, Some(29));
    }

    #[test]
    fn a_start_that_cut_anew_and_left_no_epoch_is_gone_on_from() {
        // Claim 3 cut anew from tick 10 on: that epoch 2 had ended with tick 29 means nothing since.
        let log = epochs(&[(1, 9, true), (2, 29, false)]);
        let wish = Wish { anew_since: 3, ..Wish::default() };
        for ticks in [0..15, 0..40] {
            let choice = choose(&log, &ticks, wish).expect("there is a way");
            assert_eq!((choice.load, choice.suppress_through, choice.anew), (Some(1), None, false));
        }
    }

    #[test]
    fn garbage_spares_what_is_needed() {
        let claims = BTreeSet::from([0, 3, 7]);
        let epochs = BTreeSet::from([1, 2, 4, 5, 6, 8, 9]);
        assert_eq!(garbage(&claims, &epochs, 3, 9), [0, 1, 2, 4, 5]);
        assert_eq!(garbage(&claims, &epochs, 3, 5), [0, 1, 2, 4], "epoch 5 waits to be published");
        assert_eq!(garbage(&claims, &epochs, 100, 9), [0; 0]);
        assert_eq!(garbage(&claims, &BTreeSet::new(), 3, 0), [0; 0]);
    }
}
