//! What can be asked for: views, feature sets, models and push sources of all jobs, by their names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::link::{Link, Settings};
use super::meter::Meter;
use super::scalar::Scalar;
use crate::base::Micros;
use crate::ops::key::{EncodedKeys, KeyBuilder};
use crate::plan::model::{Plan, StreamRef, ViewPlan};
use crate::serving::ServedJob;
use crate::store::online::{ColumnSchema, ColumnType};

/// A job, as it is served.
pub struct Job {
    /// Name.
    pub name: String,
    /// Plan.
    pub plan: Arc<Plan>,
    /// Its online store, or why it cannot be read.
    pub link: Result<Arc<Link>, String>,
    /// Its views, as in the plan.
    pub views: Vec<View>,
    /// By model, as in the plan.
    pub models: Vec<Arc<Meter>>,
}

/// A view, as it is served.
pub struct View {
    /// Name, as in the plan.
    pub name: Arc<str>,
    /// Key columns; none for one that the online store does not hold.
    pub keys: Vec<ColumnSchema>,
    /// Feature columns, without the view's name.
    pub columns: Vec<String>,
    /// An older value is not served.
    pub ttl: Option<Micros>,
    /// A value is rewritten so long after it would change.
    pub refresh: Micros,
    /// What is counted of it.
    pub meter: Arc<Meter>,
}

/// A thing of a job, by its index in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    /// The job, by its index in the catalogue.
    pub job: usize,
    /// The thing.
    pub index: usize,
}

/// What one name stands for.
#[derive(Clone, Debug)]
enum Named {
    One(At),
    /// Jobs that have it.
    Several(Vec<String>),
}

type Names = HashMap<String, Named>;

/// Everything that can be asked for.
pub struct Catalogue {
    /// What it was made of.
    pub of: Arc<[ServedJob]>,
    /// The jobs.
    pub jobs: Vec<Arc<Job>>,
    views: Names,
    sets: Names,
    models: Names,
    sources: Names,
}

/// Links and meters outlive the catalogues that name them.
#[derive(Default)]
pub struct Kept {
    links: Mutex<HashMap<String, Arc<Link>>>,
    meters: Mutex<HashMap<(&'static str, String, String), Arc<Meter>>>,
}

impl Kept {
    /// The meter of a view or model, made when it is first asked for.
    pub fn meter(&self, kind: &'static str, job: &str, name: &str) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(meters.entry((kind, job.to_owned(), name.to_owned())).or_default())
    }

    /// All meters, by kind, job and name.
    pub fn meters(&self) -> Vec<((&'static str, String, String), Arc<Meter>)> {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.iter().map(|(key, meter)| (key.clone(), Arc::clone(meter))).collect()
    }
}

impl Catalogue {
    /// What these jobs can be asked for.
    pub fn new(of: Arc<[ServedJob]>, kept: &Kept, settings: &Settings) -> Catalogue {
        let mut links = HashMap::new();
        let before = kept.links.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut jobs = Vec::with_capacity(of.len());
        for served in of.iter() {
            let link = match &served.plan.online {
                None => Err(format!("job {} has no online sink, so it has no values to serve", served.job)),
                Some(online) => {
                    let place = format!("{} {:?}", served.job, online.store);
                    let link = match before.get(&place) {
                        Some(link) => Ok(Arc::clone(link)),
                        None => Link::new(&served.job, &online.store, settings).map(Arc::new),
                    };
                    if let Ok(link) = &link {
                        links.insert(place, Arc::clone(link));
                    }
                    link
                }
            };
            jobs.push(Arc::new(Job {
                name: served.job.clone(),
                views: served.plan.views.iter().map(|view| self::view(served, view, kept)).collect(),
                models: served.plan.models.iter().map(|m| kept.meter("model", &served.job, &m.name)).collect(),
                plan: Arc::clone(&served.plan),
                link,
            }));
        }
        *kept.links.lock().unwrap_or_else(PoisonError::into_inner) = links;
        let named = |of: fn(&Plan) -> Vec<&str>| {
            let mut names = Names::new();
            for (job, served) in jobs.iter().enumerate() {
                for (index, name) in of(&served.plan).into_iter().enumerate() {
                    let at = At { job, index };
                    names.insert(format!("{}.{name}", served.name), Named::One(at));
                    let known = names.remove(name);
                    let both = match known {
                        None => Named::One(at),
                        Some(Named::One(other)) => {
                            Named::Several(vec![jobs[other.job].name.clone(), served.name.clone()])
                        }
                        Some(Named::Several(mut jobs)) => {
                            jobs.push(served.name.clone());
                            Named::Several(jobs)
                        }
                    };
                    names.insert(name.to_owned(), both);
                }
            }
            names
        };
        Catalogue {
            views: named(|plan| plan.views.iter().map(|v| v.name.as_str()).collect()),
            sets: named(|plan| plan.sets.iter().map(|s| s.name.as_str()).collect()),
            models: named(|plan| plan.models.iter().map(|m| m.name.as_str()).collect()),
            sources: named(|plan| plan.sources.iter().map(|s| s.name.as_str()).collect()),
            of,
            jobs,
        }
    }

    /// A view by its name.
    ///
    /// # Errors
    /// A sentence.
    pub fn view(&self, name: &str) -> Result<At, String> {
        find("feature view", &self.views, name)
    }

    /// A feature set by its name.
    ///
    /// # Errors
    /// A sentence.
    pub fn set(&self, name: &str) -> Result<At, String> {
        find("feature set", &self.sets, name)
    }

    /// A model by its name.
    ///
    /// # Errors
    /// A sentence.
    pub fn model(&self, name: &str) -> Result<At, String> {
        find("model", &self.models, name)
    }

    /// A source by its name.
    ///
    /// # Errors
    /// A sentence.
    pub fn source(&self, name: &str) -> Result<At, String> {
        find("source", &self.sources, name)
    }

    /// A view's place.
    pub fn at(&self, at: At) -> (&Arc<Job>, &View) {
        (&self.jobs[at.job], &self.jobs[at.job].views[at.index])
    }
}

fn find(what: &str, names: &Names, name: &str) -> Result<At, String> {
    match names.get(name) {
        Some(Named::One(at)) => Ok(*at),
        Some(Named::Several(jobs)) => {
            let full: Vec<String> = jobs.iter().map(|job| format!("`{job}.{name}`")).collect();
            Err(format!("several jobs have a {what} `{name}`; write {}", full.join(" or ")))
        }
        None => {
            let near = crate::plan::nearest(name, names.keys().map(String::as_str));
            let hint = match near {
                Some(near) => format!("; did you mean `{near}`?"),
                None => {
                    let mut known: Vec<&str> = names.keys().filter(|n| !n.contains('.')).map(String::as_str).collect();
                    known.sort_unstable();
                    known.truncate(20);
                    if known.is_empty() {
                        "; there is none".to_owned()
                    } else {
                        format!("; there is {}", known.join(", "))
                    }
                }
            };
            Err(format!("there is no {what} `{name}`{hint}"))
        }
    }
}

fn view(served: &ServedJob, view: &ViewPlan, kept: &Kept) -> View {
    let plan = &served.plan;
    let stream = match view.stream {
        StreamRef::Source(source) => &plan.sources[source].stream_schema,
        StreamRef::Join(join) => &plan.joins[join].schema,
    };
    let keys = view.entity.iter().zip(&view.entity_names);
    let keys = keys.filter_map(|(&index, name)| ColumnSchema::new(name, stream.field(index).data_type())).collect();
    let prefix = format!("{}.", view.name);
    View {
        name: view.name.as_str().into(),
        keys,
        columns: view.aggregates.iter().map(|a| a.name.strip_prefix(&prefix).unwrap_or(&a.name).to_owned()).collect(),
        ttl: view.ttl,
        refresh: plan.online.as_ref().map_or(0, |online| online.refresh),
        meter: kept.meter("view", &served.job, &view.name),
    }
}

/// Keys of a view from columns of values, and the rows in which a part of the key is null.
///
/// # Errors
/// A sentence, where a column is missing or a value is none of its type.
pub fn keys<'a>(
    view: &View,
    rows: usize,
    column: impl Fn(&str) -> Option<&'a [Scalar<'a>]>,
) -> Result<(EncodedKeys, Vec<usize>), String> {
    let mut columns: Vec<(&str, ColumnType, &[Scalar<'_>])> = Vec::with_capacity(view.keys.len());
    for key in &view.keys {
        let values = column(&key.name).ok_or_else(|| {
            let wanted: Vec<&str> = view.keys.iter().map(|key| key.name.as_str()).collect();
            format!(
                "`{}` is missing among the entities; view `{}` is keyed by {}",
                key.name,
                view.name,
                wanted.join(", ")
            )
        })?;
        columns.push((&key.name, key.column_type, values));
    }
    let mut keys = KeyBuilder::with_capacity(rows);
    let mut nulls = Vec::new();
    for row in 0..rows {
        let mut null = false;
        for (name, column_type, values) in &columns {
            match &values[row] {
                Scalar::Null => {
                    null = true;
                    keys.null();
                }
                value => value
                    .key(name, *column_type, &mut keys)
                    .map_err(|what| if rows > 1 { format!("row {row}: {what}") } else { what })?,
            }
        }
        keys.end();
        if null {
            nulls.push(row);
        }
    }
    Ok((keys.finish(), nulls))
}
