//! Whole files: the jobs that ship, bad files with every fault they have, the plan in words.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::catalog::{Catalog, ConnectorSpec, SourceSpec};
use super::model::*;
use super::*;
use crate::base::Severity;

/// Knows the files of the tests by their names.
struct Stub;

fn schema_of(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(
        columns
            .iter()
            .map(|(n, t)| Field::new(*n, t.clone(), true))
            .collect::<Vec<_>>(),
    ))
}

impl Catalog for Stub {
    fn event_schema(&self, _: &str, spec: &SourceSpec) -> Result<(SchemaRef, Vec<PathBuf>), String> {
        use DataType::*;
        let ms = || Timestamp(TimeUnit::Millisecond, None);
        let us = || Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let path = match &spec.connector {
            ConnectorSpec::Generator(GeneratorStream::Transactions) => {
                let columns = [
                    ("tx_id", Int64),
                    ("ts", us()),
                    ("customer_id", Int64),
                    ("terminal_id", Int64),
                    ("amount", Float64),
                    ("mcc", Utf8),
                    ("country", Utf8),
                ];
                return Ok((schema_of(&columns), Vec::new()));
            }
            ConnectorSpec::Generator(GeneratorStream::Labels) => {
                let columns = [
                    ("tx_id", Int64),
                    ("known_at", us()),
                    ("is_fraud", Int32),
                    ("scenario", Int32),
                ];
                return Ok((schema_of(&columns), Vec::new()));
            }
            ConnectorSpec::File { path, .. } => path.as_str(),
        };
        let schema = match path.rsplit('/').next().unwrap_or_default() {
            "transactions*.parquet" | "transactions.parquet" => schema_of(&[
                ("TRANSACTION_ID", Int32),
                ("TX_DATETIME", ms()),
                ("CUSTOMER_ID", Int32),
                ("TERMINAL_ID", Int32),
                ("TX_AMOUNT", Float64),
                ("TX_TIME_SECONDS", Int32),
                ("TX_TIME_DAYS", Int16),
                ("TX_FRAUD", Int8),
                ("TX_FRAUD_SCENARIO", Int8),
            ]),
            "flights.parquet" => schema_of(&[
                ("flight_id", Int32),
                ("flight_date", Date32),
                ("sched_dep_utc", ms()),
                ("dep_utc", ms()),
                ("arr_utc", ms()),
                ("carrier", Utf8),
                ("flight", Int32),
                ("tailnum", Utf8),
                ("origin", Utf8),
                ("dest", Utf8),
                ("distance", Int32),
                ("dep_delay", Int16),
                ("arr_delay", Int16),
                ("air_time", Int16),
            ]),
            "weather.parquet" => schema_of(&[
                ("observed_utc", ms()),
                ("origin", Dictionary(Box::new(Int32), Box::new(Utf8))),
                ("temp", Float64),
                ("wind_speed", Float64),
                ("visib", Float64),
                ("tags", List(Arc::new(Field::new("item", Utf8, true)))),
            ]),
            "tx.ndjson" | "tx.csv" | "tx.data" | "mixed" => schema_of(&[
                ("id", Utf8),
                ("ts", us()),
                ("ms", Int64),
                ("text", Utf8),
                ("ok", Boolean),
                ("day", Date32),
                ("amount", Float64),
            ]),
            "weird.parquet" => schema_of(&[("_time", us()), ("ts", us()), ("x.y", Int64), ("amount", Float64)]),
            other => return Err(format!("no file matches `{other}`")),
        };
        let files = match path {
            "mixed" => vec![PathBuf::from("mixed/a.parquet"), PathBuf::from("mixed/b.csv")],
            _ => vec![PathBuf::from(path.replace('*', ""))],
        };
        Ok((schema, files))
    }

    fn check_model(&self, path: &Path, inputs: &[(String, DataType)], _: &[ModelOutput]) -> Vec<String> {
        match path.to_str() {
            Some("models/two.onnx") if inputs.len() != 2 => vec![format!("it takes 2 columns, not {}", inputs.len())],
            Some("models/none.onnx") => vec!["there is no file `models/none.onnx`".into()],
            _ => Vec::new(),
        }
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "DATA" => Some("/data".into()),
        "LAKE" => Some("/lake".into()),
        _ => None,
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn job(name: &str, sets: &[(&str, &str)]) -> Result<(Plan, Vec<crate::base::Fault>), Faults> {
    let sets: Vec<_> = sets.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    load(&root().join("dataflows").join(name), &sets, &env, &Stub)
}

fn good(name: &str) -> Plan {
    let (plan, warnings) = job(name, &[]).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(warnings, []);
    plan
}

#[test]
fn shipped_jobs_compile() {
    for name in ["fraud_handbook.yaml", "flight_delay.yaml", "card_fraud.yaml"] {
        good(name);
    }
}
