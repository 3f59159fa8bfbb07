//! What a table looks like: its columns, their types, and how its files are sorted.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::ops::system::{SYSTEM_COLUMNS, system_fields, utc};
use crate::store::StoreError;

/// Position of the partition column `event_date` in a table's schema.
pub(super) const DATE_COLUMN: usize = 1;

/// One payload column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableColumn {
    /// Name in the table, such as `customer__nb_tx_7d`.
    pub name: String,
    /// Name in the engine's batches, such as `customer.nb_tx_7d`.
    pub engine: String,
    /// Type in the table; see [`TableSpec::new`] for how engine types map.
    pub data_type: DataType,
}

/// A table as a job declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    name: String,
    columns: Vec<TableColumn>,
    sort_by: Vec<String>,
    schema: SchemaRef,
    file_schema: SchemaRef,
}

impl TableSpec {
    /// Declares table `name` (`features/customer`) with payload columns `(table name, engine name, engine type)` and the
    /// entity columns (by engine name) that its files are sorted by, before event time.
    ///
    /// Types map to Delta's: unsigned integers to the next wider signed type (`UInt64` to decimal(20,0)), half floats to
    /// float, timestamps of any unit to UTC microseconds, dictionaries and views to their values. Dots in table names
    /// become `__`, characters that Delta refuses become `_`, and a column named like a system column gets a trailing `_`.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when two columns end up with one name (Delta ignores case), or a type has no place in a table.
    pub fn new(
        name: impl Into<String>,
        columns: impl IntoIterator<Item = (String, String, DataType)>,
        entity: &[&str],
    ) -> Result<Self, StoreError> {
        let name = name.into();
        let fault = |reason: String| StoreError::Schema { table: name.clone(), reason };
        let mut seen: HashSet<String> = SYSTEM_COLUMNS.iter().map(|s| s.to_lowercase()).collect();
        let mut list = Vec::new();
        for (wanted, engine, engine_type) in columns {
            let column = column_name(&wanted);
            if !seen.insert(column.to_lowercase()) {
                return Err(fault(format!(
                    "two columns are named `{column}` (tables ignore case); rename one of them"
                )));
            }
            let data_type = table_type(&engine_type).ok_or_else(|| {
                fault(format!(
                    "column `{column}` has type {engine_type}, which tables do not hold; cast it in `derive`"
                ))
            })?;
            list.push(TableColumn { name: column, engine, data_type });
        }
        let sort_by = entity
            .iter()
            .map(|entity| {
                let found = list.iter().find(|c| c.engine == *entity || c.name == *entity);
                found
                    .map(|c| c.name.clone())
                    .ok_or_else(|| fault(format!("entity column `{entity}` is not among its columns")))
            })
            .collect::<Result<_, _>>()?;
        let fields: Vec<Field> = system_fields()
            .into_iter()
            .chain(list.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true)))
            .collect();
        let mut in_file = fields.clone();
        in_file.remove(DATE_COLUMN);
        Ok(TableSpec {
            name,
            columns: list,
            sort_by,
            schema: Arc::new(Schema::new(fields)),
            file_schema: Arc::new(Schema::new(in_file)),
        })
    }

    /// Name, which is also the path below the offline store's root: `features/customer`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The payload columns, in table order.
    pub fn columns(&self) -> &[TableColumn] {
        &self.columns
    }

    /// The table's schema: the system columns, then the payload columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Schema of the Parquet files: the table's without `event_date`, which stands in the path and in the log.
    pub(super) fn file_schema(&self) -> &SchemaRef {
        &self.file_schema
    }

    /// Columns that files are sorted by, before `event_time`.
    pub fn sort_by(&self) -> &[String] {
        &self.sort_by
    }

    /// Columns with smallest and largest values in the Delta log: event time, tick and the entity. Others would only make
    /// the log long.
    pub(super) fn stats_columns(&self) -> Vec<&str> {
        ["event_time", "_tick"].into_iter().chain(self.sort_by.iter().map(String::as_str)).collect()
    }
}

/// Directory of table `name` below the offline store's root.
pub fn table_path(root: &Path, name: &str) -> PathBuf {
    name.split('/').fold(root.to_path_buf(), |path, part| path.join(part))
}

/// The table's name for a wanted column name.
fn column_name(wanted: &str) -> String {
    let mut name: String = wanted.replace('.', "__");
    name = name.chars().map(|c| if " ,;{}()\n\t=".contains(c) { '_' } else { c }).collect();
    while SYSTEM_COLUMNS.iter().any(|system| system.eq_ignore_ascii_case(&name)) {
        name.push('_');
    }
    name
}

/// The type of a table column that holds every value of an engine type.
fn table_type(engine: &DataType) -> Option<DataType> {
    Some(match engine {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => engine.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, _) => utc(),
        DataType::Decimal128(_, scale) if *scale >= 0 => engine.clone(),
        DataType::Dictionary(_, values) => return table_type(values),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(columns: &[(&str, DataType)]) -> Result<TableSpec, StoreError> {
        let columns = columns.iter().map(|(n, t)| (n.to_string(), n.to_string(), t.clone()));
        TableSpec::new("features/customer", columns, &[])
    }

    #[test]
    fn names_are_made_fit_for_tables() {
        let spec =
            spec(&[("customer.nb_tx_7d", DataType::Int64), ("event_time", utc()), ("amount (EUR)", DataType::Float64)])
                .unwrap();
        let names: Vec<_> = spec.columns().iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["customer__nb_tx_7d", "event_time_", "amount__EUR_"]);
        assert_eq!(spec.schema().field(DATE_COLUMN).name(), "event_date");
        assert_eq!(spec.file_schema().fields().len() + 1, spec.schema().fields().len());
    }

    #[test]
    fn columns_that_differ_in_case_only_are_refused() {
        let error = spec(&[("Amount", DataType::Float64), ("amount", DataType::Float64)]).unwrap_err();
        assert!(error.to_string().contains("two columns are named `amount`"), "{error}");
    }

    #[test]
    fn types_without_a_place_are_refused() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        assert!(spec(&[("l", list)]).unwrap_err().to_string().contains("cast it in `derive`"));
        assert_eq!(spec(&[("u", DataType::UInt32)]).unwrap().columns()[0].data_type, DataType::Int64);
    }
}
