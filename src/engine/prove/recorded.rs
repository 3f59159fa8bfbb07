//! What a job recorded: the ticks of its committed epochs, its tables, and where a replay can begin.

use std::path::{Path, PathBuf};

use super::ProveOptions;
use crate::base::{Epoch, Tick};
use crate::engine::EngineError;
use crate::engine::monitor::alerts;
use crate::engine::operators::{Changes, operators};
use crate::engine::publish::{OFFLINE, StagedTables};
use crate::engine::recovery::saved_sources;
use crate::engine::tables::{table_names, wanted};
use crate::ingest::aligned::Aligned;
use crate::ingest::ticks::{self, TickRecord};
use crate::monitor::StatKind;
use crate::monitor::alert::table::TABLE;
use crate::plan::chain::chains;
use crate::plan::model::Plan;
use crate::state::manifest::{self, Manifest};
use crate::state::{Store, open_savepoint};
use crate::store::StoreError;
use crate::store::offline::{TableReader, table_path};

/// Where a replay begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first event.
    Beginning,
    /// With the state of a savepoint.
    Savepoint(String),
    /// With the state of an epoch that is kept.
    Epoch(Epoch),
}

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Start::Beginning => f.write_str("the beginning"),
            Start::Savepoint(place) => write!(f, "savepoint {place}"),
            Start::Epoch(epoch) => write!(f, "epoch {epoch}"),
        }
    }
}

/// A table as it stands.
pub struct RecordedTable {
    /// Its name.
    pub name: String,
    /// The table; none that was never written.
    pub reader: Option<TableReader>,
}

/// What is to be proven.
pub struct Recorded {
    /// Where state is kept.
    pub store: Store,
    /// Where the replay begins.
    pub start: Start,
    /// The newest epoch whose rows are in all tables.
    pub epoch: Epoch,
    /// A newer epoch that is committed, and whose rows are not yet.
    pub unpublished: Option<Epoch>,
    /// The ticks to replay, of which the last is the epoch's.
    pub ticks: Vec<TickRecord>,
    /// The tick that follows the log.
    pub log_end: Tick,
    /// The tables that the job writes.
    pub tables: Vec<RecordedTable>,
}

fn refuse<T>(what: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Unprovable(what.into()))
}

impl Recorded {
    /// Finds out what there is, without changing it.
    ///
    /// # Errors
    /// When the state is not there, is another job's, or does not reach back far enough.
    pub fn find(plan: &Plan, options: &ProveOptions) -> Result<Recorded, EngineError> {
        let dir = &options.state;
        if !dir.is_dir() {
            return refuse(format!("there is no state in {}; give the --state that the job ran with", dir.display()));
        }
        let place = plan.checkpoint.place(dir);
        let store = Store::open(&place)?;
        let entries = manifest::read(&store)?;
        let epochs: Vec<(Epoch, Manifest)> =
            manifest::epochs(&entries).map(|(number, manifest)| (number, manifest.clone())).collect();
        let life = manifest::claims(&entries).next_back().map(|(_, claim)| claim);
        let (Some(newest), Some(life)) = (epochs.last(), life) else {
            return refuse(format!(
                "the state in {place} has no committed epoch yet, so the tables hold nothing that could be proven; let the job run on to its next checkpoint"
            ));
        };
        same_job(plan, &newest.1, &place)?;

        // The epochs first, then the tables: these then hold what those say, and perhaps more.
        let tables = open_tables(plan)?;
        let (epoch, manifest, unpublished) = match is_published(plan, &life.instance, newest, &tables)? {
            true => (newest.0, &newest.1, None),
            false => match epochs.len().checked_sub(2).map(|before| &epochs[before]) {
                Some((epoch, manifest)) => (*epoch, manifest, Some(newest.0)),
                None => {
                    return refuse(format!(
                        "epoch {} is committed and its rows are not in the tables yet; run the job again, which publishes them, or wait a moment if it runs",
                        newest.0
                    ));
                }
            },
        };
        if let Ok(state) = saved_sources(manifest) {
            Aligned::same_input(plan, &state)?;
        }
        let mut log = ticks::read(dir)?;
        let log_end = log.next;
        let Some(log_first) = log.records.first().map(|record| record.tick) else {
            return refuse(format!(
                "there is no tick log in {}; give the --state that the job ran with",
                dir.display()
            ));
        };
        if log_end <= manifest.tick {
            return refuse(format!(
                "the tick log in {} ends with tick {}, and the newest epoch with tick {}; restore the log's files from a copy",
                dir.display(),
                log_end.saturating_sub(1),
                manifest.tick
            ));
        }
        let start = start(options.from_epoch, log_first, &epochs, life.savepoint.as_deref(), epoch)?;
        let first = match &start {
            Start::Beginning => 0,
            Start::Savepoint(_) => log_first,
            Start::Epoch(number) => {
                epochs.iter().find(|(n, _)| n == number).map_or(log_first, |(_, manifest)| manifest.tick + 1)
            }
        };
        log.records.retain(|record| record.tick >= first && record.tick <= manifest.tick);
        if log.records.is_empty() {
            return refuse(format!("nothing was recorded behind {start}; give an older epoch"));
        }
        Ok(Recorded { start, epoch, unpublished, ticks: log.records, log_end, tables, store })
    }

    /// The first tick that is proven.
    pub fn first_tick(&self) -> Tick {
        self.ticks.first().map_or(0, |record| record.tick)
    }

    /// The last tick that is proven.
    pub fn last_tick(&self) -> Tick {
        self.ticks.last().map_or(0, |record| record.tick)
    }

    /// The offset behind the last row of a partition that the ticks cover.
    pub fn covered(&self, source: usize, partition: usize) -> u64 {
        let last = self.ticks.last().and_then(|record| record.offsets.get(source)?.get(partition));
        last.copied().unwrap_or(0)
    }
}

fn same_job(plan: &Plan, newest: &Manifest, place: &str) -> Result<(), EngineError> {
    if newest.job != plan.job {
        return refuse(format!("{place} holds the state of job `{}`, not of `{}`", newest.job, plan.job));
    }
    if newest.job_version != plan.version {
        return refuse(format!(
            "version {} of the job wrote the newest epoch, and the file is of version {}; give the file that the job ran with",
            newest.job_version, plan.version
        ));
    }
    let changes = Changes::between(&newest.operators, &operators(plan, &chains(plan)));
    if !changes.lost.is_empty() || !changes.gained.is_empty() {
        return refuse(format!(
            "the file means another job than the one that ran; give the file, and the --set, that it ran with:\n{}",
            changes.text()
        ));
    }
    Ok(())
}

/// Opens the tables that a plan writes, but for those that no replay repeats.
///
/// # Errors
/// When one cannot be read.
pub fn open_tables(plan: &Plan) -> Result<Vec<RecordedTable>, EngineError> {
    let Some(offline) = &plan.offline else { return Ok(Vec::new()) };
    let is_exact = |name: &String| StatKind::ALL.iter().all(|kind| kind.is_exact() || kind.table() != name);
    let is_exact = |name: &String| is_exact(name) && (name != TABLE || alerts::is_exact(plan));
    let names = table_names(plan).into_iter().filter(|name| wanted(offline, name) && is_exact(name));
    names.map(|name| Ok(RecordedTable { reader: open(Path::new(&offline.uri), &name)?, name })).collect()
}

/// Opens a table, if there is one.
///
/// # Errors
/// When it cannot be read.
pub fn open(root: &Path, name: &str) -> Result<Option<TableReader>, EngineError> {
    let directory: PathBuf = table_path(root, name);
    match TableReader::open(&directory, None) {
        Ok(reader) => Ok(Some(reader)),
        Err(StoreError::NoTable(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether all tables have the rows that an epoch staged for them.
fn is_published(
    plan: &Plan,
    instance: &str,
    (epoch, manifest): &(Epoch, Manifest),
    tables: &[RecordedTable],
) -> Result<bool, EngineError> {
    for staged in manifest.outboxes.get(OFFLINE).into_iter().flatten() {
        let staged: StagedTables =
            serde_json::from_value(staged.clone()).map_err(|e| EngineError::defect(e.to_string()))?;
        for name in staged.tables.keys() {
            let Some(table) = tables.iter().find(|table| table.name == *name) else { continue };
            let application = format!("{}/{instance}/{name}", plan.job);
            let newest = table.reader.as_ref().map(|reader| reader.newest_epoch(&application)).transpose()?.flatten();
            if newest.is_none_or(|newest| newest < *epoch) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Where the replay begins: as asked; else with the first event, where the tick log has it all; else with the oldest state
/// that it reaches back to.
fn start(
    asked: Option<Epoch>,
    log_first: Tick,
    epochs: &[(Epoch, Manifest)],
    savepoint: Option<&str>,
    proven: Epoch,
) -> Result<Start, EngineError> {
    let kept = || {
        let list: Vec<String> = epochs
            .iter()
            .filter(|(number, manifest)| *number < proven && manifest.tick + 1 >= log_first)
            .map(|(number, _)| number.to_string())
            .collect();
        if list.is_empty() { "none".to_owned() } else { list.join(", ") }
    };
    if let Some(wanted) = asked {
        return match epochs.iter().find(|(number, _)| *number == wanted) {
            Some((_, manifest)) if wanted < proven && manifest.tick + 1 >= log_first => Ok(Start::Epoch(wanted)),
            _ => refuse(format!(
                "a replay cannot begin with epoch {wanted}: its state is gone, the tick log does not reach back to it, or nothing was published behind it; there are: {}",
                kept()
            )),
        };
    }
    if log_first == 0 {
        return Ok(Start::Beginning);
    }
    if let Some(place) = savepoint
        && open_savepoint(place).is_ok_and(|loaded| loaded.manifest.tick + 1 == log_first)
    {
        return Ok(Start::Savepoint(place.to_owned()));
    }
    let oldest = epochs.iter().find(|(number, manifest)| *number < proven && manifest.tick + 1 >= log_first);
    match oldest {
        Some((number, _)) => Ok(Start::Epoch(*number)),
        None => refuse(format!(
            "the tick log begins with tick {log_first}, and there is no state to begin with: no epoch before the newest is kept that it reaches back to{}; keep more epochs (checkpoint.keep), or put the savepoint back",
            savepoint.map(|place| format!(", and savepoint {place} is not there or is another")).unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(tick: Tick) -> Manifest {
        Manifest { tick, ..Manifest::empty() }
    }

    #[test]
    fn a_replay_begins_where_it_can() {
        let epochs = [(1, manifest(9)), (2, manifest(19)), (4, manifest(29))];
        let found = |asked, log_first| start(asked, log_first, &epochs, None, 4);
        assert_eq!(found(None, 0).unwrap(), Start::Beginning);
        assert_eq!(found(None, 10).unwrap(), Start::Epoch(1));
        assert_eq!(found(None, 11).unwrap(), Start::Epoch(2));
        assert_eq!(found(Some(2), 0).unwrap(), Start::Epoch(2));
        let error = found(None, 21).unwrap_err().to_string();
        assert!(error.contains("begins with tick 21") && error.contains("checkpoint.keep"), "{error}");
        for asked in [3, 4] {
            let error = found(Some(asked), 11).unwrap_err().to_string();
            assert!(error.contains(&format!("epoch {asked}")) && error.ends_with("there are: 2"), "{error}");
        }
    }
}
