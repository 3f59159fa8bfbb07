//! The way to a job's online store: with a bound on time, a breaker, and the cache of features before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::body::Bytes;

use super::breaker::{Breaker, Permit};
use super::cache::{Cache, Weight};
use crate::base::EventTime;
use crate::ops::key::{EncodedKeys, KeyBuilder};
use crate::plan::model::OnlinePlace;
use crate::store::StoreError;
use crate::store::online::value::Header;
use crate::store::online::{Ask, EmbeddedLink, Layouts, Packed, RedisLink};

/// How reads are bounded and kept.
#[derive(Clone)]
pub struct Settings {
    /// A store that does not answer by then has failed.
    pub timeout: Duration,
    /// A row in the cache is as good as one in the store for so long.
    pub fresh_for: Duration,
    /// While the store does not answer, rows in the cache may be so old.
    pub stale_for: Duration,
    /// The cache.
    pub cache: Arc<Features>,
}

/// The cache of features.
pub type Features = Cache<RowKey, CachedRow>;

/// Names a row: its link, its view, its entity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// The link.
    pub link: u64,
    /// The view.
    pub view: Arc<str>,
    /// The entity.
    pub entity: Box<[u8]>,
}

impl Weight for RowKey {
    fn bytes(&self) -> usize {
        self.entity.len()
    }
}

/// A row that was read, or that there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedRow(pub Option<Bytes>);

impl Weight for CachedRow {
    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Bytes::len)
    }
}

/// Rows of a view, one for each entity.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The forms that rows may have.
    pub layouts: Arc<Layouts>,
    /// The job's clock.
    pub now: Option<EventTime>,
    /// Packed rows.
    pub rows: Vec<Option<Bytes>>,
    /// Age of the oldest row, where the store did not answer and the cache did.
    pub stale: Option<Duration>,
}

/// Why rows cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// The store does not answer now.
    #[error("the online store of job {job} does not answer: {what}")]
    Away {
        /// The job.
        job: String,
        /// What is known of why.
        what: String,
    },
    /// The store answers, and has no such thing.
    #[error("{0}")]
    Absent(String),
    /// What is in the store makes no sense.
    #[error("{0}")]
    Damaged(String),
}

/// What was last heard of a view: enough to read cached rows.
type Known = std::collections::HashMap<Arc<str>, (Arc<Layouts>, Option<EventTime>)>;

/// The way to a job's store.
pub struct Link {
    number: u64,
    job: String,
    store: Store,
    /// Fails fast while the store does not answer.
    pub breaker: Breaker,
    settings: Settings,
    known: std::sync::RwLock<Known>,
}

enum Store {
    Redis(RedisLink),
    Embedded(EmbeddedLink),
}

impl Link {
    /// A link to a job's store; connects when it is first used.
    ///
    /// # Errors
    /// A sentence, when what the plan says cannot be used.
    pub fn new(job: &str, place: &OnlinePlace, settings: &Settings) -> Result<Link, String> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let store = match place {
            OnlinePlace::Redis(plan) => Store::Redis(RedisLink::new(plan).map_err(|error| error.to_string())?),
            OnlinePlace::Embedded(path) => Store::Embedded(EmbeddedLink::new(path)),
        };
        Ok(Link {
            number: NUMBERS.fetch_add(1, Relaxed),
            job: job.to_owned(),
            store,
            breaker: Breaker::default(),
            settings: settings.clone(),
            known: std::sync::RwLock::default(),
        })
    }

    /// The name of an entity's row in the cache.
    pub fn row_key(&self, view: &Arc<str>, entity: &[u8]) -> RowKey {
        RowKey { link: self.number, view: Arc::clone(view), entity: entity.into() }
    }

    /// Number in the keys of the cache.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads rows of some views.
    ///
    /// # Errors
    /// When the store does not answer and the cache does not know all of them; when the store has no such view.
    pub async fn read(&self, asks: Vec<Ask>) -> Result<Vec<Rows>, LinkError> {
        let started = Instant::now();
        if self.settings.fresh_for > Duration::ZERO {
            return self.read_with_cache(&asks, started).await;
        }
        match self.fetch(&asks, started).await {
            Ok(found) => Ok(self.keep(&asks, found)),
            Err(error) => self.outage(&asks, started, error),
        }
    }

    /// Reads what the cache does not have.
    async fn read_with_cache(&self, asks: &[Ask], now: Instant) -> Result<Vec<Rows>, LinkError> {
        let mut answers: Vec<Option<Rows>> = Vec::with_capacity(asks.len());
        let mut missing: Vec<Ask> = Vec::new();
        let mut places: Vec<(usize, Vec<usize>)> = Vec::new();
        for (at, ask) in asks.iter().enumerate() {
            let known = self.known(&ask.view);
            let mut rows = vec![None; ask.keys.len()];
            let mut lacking = Vec::new();
            for (row, entity) in ask.keys.iter().enumerate() {
                let key = self.row_key(&ask.view, entity);
                let held = known.as_ref().and_then(|_| self.settings.cache.get(&key, self.settings.fresh_for, now));
                match held {
                    Some((CachedRow(held), _)) => rows[row] = held,
                    None => lacking.push(row),
                }
            }
            answers.push(known.map(|(layouts, clock)| Rows { layouts, now: clock, rows, stale: None }));
            if !lacking.is_empty() {
                missing.push(Ask { view: Arc::clone(&ask.view), keys: picked(&ask.keys, &lacking) });
                places.push((at, lacking));
            }
        }
        if !missing.is_empty() {
            let found = match self.fetch(&missing, now).await {
                Ok(found) => self.keep(&missing, found),
                Err(error) => return self.outage(asks, now, error),
            };
            for ((at, places), found) in places.into_iter().zip(found) {
                let count = asks[at].keys.len();
                let answer = answers[at].get_or_insert_with(|| Rows {
                    layouts: Arc::clone(&found.layouts),
                    now: found.now,
                    rows: vec![None; count],
                    stale: None,
                });
                (answer.layouts, answer.now) = (found.layouts, found.now);
                for (row, found) in places.into_iter().zip(found.rows) {
                    answer.rows[row] = found;
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Reads from the store, if the breaker lets it.
    async fn fetch(&self, asks: &[Ask], now: Instant) -> Result<Vec<Packed>, LinkError> {
        if self.breaker.ask(now) == Permit::Refused {
            let what = "it failed some times in a row, and is tried again soon".to_owned();
            return Err(LinkError::Away { job: self.job.clone(), what });
        }
        let outcome = match &self.store {
            Store::Redis(link) => link.fetch(asks, self.settings.timeout).await,
            Store::Embedded(link) => {
                let (link, asks) = (link.clone(), asks.to_vec());
                let work = tokio::task::spawn_blocking(move || link.fetch(&asks));
                match tokio::time::timeout(self.settings.timeout, work).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(error)) => return Err(LinkError::Damaged(format!("reading the online store: {error}"))),
                    Err(_) => {
                        let what = format!("no answer within {} ms", self.settings.timeout.as_millis());
                        self.failed(&what);
                        return Err(LinkError::Away { job: self.job.clone(), what });
                    }
                }
            }
        };
        match outcome {
            Ok(found) => {
                self.breaker.succeeded();
                Ok(found)
            }
            // It answers, and that is what the breaker asks.
            Err(StoreError::Request(what)) => {
                self.breaker.succeeded();
                Err(LinkError::Absent(what))
            }
            Err(error @ (StoreError::RedisDamaged { .. } | StoreError::Damaged { .. } | StoreError::Shape { .. })) => {
                self.breaker.succeeded();
                Err(LinkError::Damaged(error.to_string()))
            }
            Err(error) => {
                let what = error.to_string();
                self.failed(&what);
                Err(LinkError::Away { job: self.job.clone(), what })
            }
        }
    }

    fn failed(&self, what: &str) {
        if self.breaker.failed(Instant::now()) {
            tracing::warn!(job = %self.job, reason = what, "the online store does not answer: requests are turned away until it does");
        }
    }

    /// Keeps rows for later, and makes them what readers take.
    fn keep(&self, asks: &[Ask], found: Vec<Packed>) -> Vec<Rows> {
        let Settings { fresh_for, stale_for, cache, .. } = &self.settings;
        let wanted = (*fresh_for).max(*stale_for) > Duration::ZERO;
        let at = Instant::now();
        let rows = asks.iter().zip(found).map(|(ask, packed)| {
            let rows: Vec<Option<Bytes>> = packed.rows.into_iter().map(|row| row.map(Bytes::from)).collect();
            if wanted {
                for (entity, row) in ask.keys.iter().zip(&rows) {
                    let stamp = |row: &Option<Bytes>| row.as_deref().and_then(Header::read).map(|header| header.stamp);
                    let read = stamp(row);
                    let key = self.row_key(&ask.view, entity);
                    // Of two reads under way the one that began first may end last.
                    cache.put(key, CachedRow(row.clone()), at, |held| stamp(&held.0) > read && read.is_some());
                }
                self.learn(&ask.view, &packed.layouts, packed.now);
            }
            Rows { layouts: packed.layouts, now: packed.now, rows, stale: None }
        });
        rows.collect()
    }

    fn learn(&self, view: &Arc<str>, layouts: &Arc<Layouts>, now: Option<EventTime>) {
        let same =
            |known: &Known| known.get(view).is_some_and(|(held, clock)| Arc::ptr_eq(held, layouts) && *clock == now);
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !same(&known) {
            drop(known);
            let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.insert(Arc::clone(view), (Arc::clone(layouts), now));
        }
    }

    fn known(&self, view: &Arc<str>) -> Option<(Arc<Layouts>, Option<EventTime>)> {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(view).cloned()
    }

    /// Answers from the cache alone, while the store is away.
    fn outage(&self, asks: &[Ask], now: Instant, error: LinkError) -> Result<Vec<Rows>, LinkError> {
        if !matches!(error, LinkError::Away { .. }) || self.settings.stale_for == Duration::ZERO {
            return Err(error);
        }
        let answers = asks.iter().map(|ask| {
            let (layouts, clock) = self.known(&ask.view)?;
            let mut oldest = Duration::ZERO;
            let rows = ask.keys.iter().map(|entity| {
                let key = self.row_key(&ask.view, entity);
                let (CachedRow(row), age) = self.settings.cache.get(&key, self.settings.stale_for, now)?;
                oldest = oldest.max(age);
                Some(row)
            });
            let rows = rows.collect::<Option<Vec<_>>>()?;
            Some(Rows { layouts, now: clock, rows, stale: Some(oldest) })
        });
        answers.collect::<Option<Vec<Rows>>>().ok_or(error)
    }
}

/// The keys of some rows.
fn picked(keys: &EncodedKeys, rows: &[usize]) -> EncodedKeys {
    let mut some = KeyBuilder::with_capacity(rows.len());
    for row in rows {
        some.whole(keys.get(*row));
    }
    some.finish()
}
