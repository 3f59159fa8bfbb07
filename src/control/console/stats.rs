//! How a job's models do, from its tables: accuracy, drift, quality and alerts as the report has them, and what was done
//! about versions.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, RawQuery};
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::wire::Query;
use super::{Console, in_path, json_text, parameter, plan_of, reads};
use crate::base::{EventTime, parse_time};
use crate::http::{Api, Place, Problem, schema_of};
use crate::monitor::StatKind;
use crate::plan::model::Plan;
use crate::report::{self, ReportError, ReportOptions};
use crate::rollout::record::TABLE as ROLLOUTS;
use crate::rollout::records_of;
use crate::store::StoreError;
use crate::store::offline::{TableReader, table_path};

/// Table of alerts.
const ALERTS: &str = "stats/alerts";
/// Newest deeds about versions that are told.
const RECORDS_MAX: usize = 2_000;

struct Asked {
    model: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

pub(super) fn api(console: &Arc<Console>) -> Api {
    let told = json!({
        "type": "object",
        "required": ["models"],
        "properties": {
            "models": {"type": "array", "description": "What `tidemill report` tells of each model, as data.", "items": {"type": "object"}},
            "missing": {"type": ["string", "null"], "description": "Why there is nothing to tell."},
            "root": {"type": "string", "description": "Directory of the tables."},
            "tables": {"type": "array", "description": "Tables that were read: name, version.", "items": {"type": "array"}},
        },
    });
    let mut stats =
        reads("/api/v1/jobs/{id}/stats", "job_stats", "statistics", "How a job's models do, by window.", told);
    let text = schema_of::<String>;
    stats.parameters = vec![
        in_path("id", "The job."),
        parameter("model", Place::Query, "This model alone; else all that are monitored.", text()),
        parameter("from", Place::Query, "Only windows that start at this time or later.", text()),
        parameter("to", Place::Query, "Only windows that start before this time.", text()),
    ];
    stats.problems = vec![400, 404, 422];
    let told = json!({
        "type": "object",
        "required": ["records"],
        "properties": {"records": {"type": "array", "description": "Rows of the table stats/rollout, oldest first.", "items": {"type": "object"}}},
    });
    let mut rollouts = reads(
        "/api/v1/jobs/{id}/rollouts",
        "job_rollouts",
        "statistics",
        "What was done about a job's versions, and by which numbers.",
        told,
    );
    rollouts.parameters = vec![in_path("id", "The job.")];
    rollouts.problems = vec![404, 422];
    let (for_stats, for_rollouts) = (Arc::clone(console), Arc::clone(console));
    Api::default()
        .with(
            stats,
            get(async move |Path(id): Path<String>, RawQuery(query): RawQuery| -> Result<Response, Problem> {
                let query = Query::of(query.as_deref());
                let one = |name| query.one(name);
                let asked = Asked { model: one("model"), from: one("from"), to: one("to") };
                for_stats.read(move |console| console.stats(&id, &asked)).await.map(json_text)
            }),
        )
        .with(
            rollouts,
            get(async move |Path(id): Path<String>| -> Result<Response, Problem> {
                for_rollouts.read(move |console| console.rollouts(&id)).await.map(json_text)
            }),
        )
}

fn time(name: &str, text: Option<&str>) -> Result<Option<EventTime>, Problem> {
    let read = |text| parse_time(text).map_err(|what| Problem::bad_request(format!("`{name}`: {what}")));
    text.map(read).transpose()
}

fn root(plan: &Plan) -> Option<PathBuf> {
    plan.offline.as_ref().map(|offline| PathBuf::from(&offline.uri))
}

/// What a table cannot be read for, as it is told.
pub(super) fn unread(error: &StoreError) -> Problem {
    Problem::unavailable(error.to_string())
}

fn told<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| Problem::internal(error.to_string()))
}

impl Console {
    fn stats(&self, id: &str, asked: &Asked) -> Result<Arc<[u8]>, Problem> {
        let job = self.job(id)?;
        let plan = plan_of(&job)?;
        let options = ReportOptions {
            tables: None,
            from: time("from", asked.from.as_deref())?,
            to: time("to", asked.to.as_deref())?,
            model: asked.model.clone(),
        };
        let nothing = |why: String| told(&json!({"models": [], "missing": why}));
        let Some(root) = root(plan) else {
            return Ok(nothing(ReportError::NoSink(plan.job.clone()).to_string())?.into());
        };
        if plan.monitors.is_empty() {
            return Ok(nothing(format!("job `{}` watches no model: its file has no `monitors`", plan.job))?.into());
        }
        let predictions = plan.models.iter().map(|model| format!("predictions/{}", model.name));
        let tables: Vec<String> = StatKind::ALL
            .iter()
            .map(|kind| kind.table().to_owned())
            .chain([ALERTS.to_owned()])
            .chain(predictions)
            .collect();
        let key = format!("stats {id} {} {:?} {:?} {:?}", plan.fingerprint, options.model, options.from, options.to);
        self.tables.get(key, &root, &tables, || match report::page(plan, &options) {
            Ok(page) => told(&json!({
                "models": page.models, "missing": null, "root": page.root, "tables": page.tables,
            })),
            Err(error @ (ReportError::NoDirectory(_) | ReportError::NoStatistics(..))) => nothing(error.to_string()),
            Err(error @ ReportError::Model(_)) => Err(Problem::not_found(error.to_string())),
            Err(error) => Err(Problem::unavailable(error.to_string())),
        })
    }

    fn rollouts(&self, id: &str) -> Result<Arc<[u8]>, Problem> {
        let job = self.job(id)?;
        let plan = plan_of(&job)?;
        let Some(root) = root(plan) else { return Ok(told(&json!({"records": []}))?.into()) };
        let key = format!("rollouts {id} {}", root.display());
        self.tables.get(key, &root, &[ROLLOUTS.to_owned()], || {
            let table = match TableReader::open(&table_path(&root, ROLLOUTS), None) {
                Ok(table) => table,
                Err(StoreError::NoTable(_)) => return told(&json!({"records": []})),
                Err(error) => return Err(unread(&error)),
            };
            let mut records = Vec::new();
            for batch in table.read(None).map_err(|error| unread(&error))? {
                records.extend(
                    records_of(&batch).map_err(|what| Problem::unavailable(format!("table {ROLLOUTS}: {what}")))?,
                );
            }
            records.sort_by_key(|record| (record.at, record.tick, record.sequence));
            records.drain(..records.len().saturating_sub(RECORDS_MAX));
            told(&json!({"records": records}))
        })
    }
}
