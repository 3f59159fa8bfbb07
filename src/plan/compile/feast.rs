//! What Feast's layout of the online store cannot hold.

use std::collections::HashMap;

use arrow::datatypes::DataType;

use super::Compiler;
use crate::plan::faults::Path;
use crate::plan::feast::{FeastType, field_of};
use crate::plan::model::{JoinPlan, OnlinePlace, OnlinePlan, RedisLayout, SourcePlan, StreamRef, ViewPlan};

impl Compiler<'_> {
    /// Reports what of the views Feast's layout does not hold, where the online store has it.
    pub(super) fn feast(
        &mut self,
        online: Option<&OnlinePlan>,
        sources: &[SourcePlan],
        joins: &[JoinPlan],
        views: &[ViewPlan],
    ) {
        let Some(OnlinePlace::Redis(redis)) = online.map(|online| &online.store) else { return };
        if redis.layout == RedisLayout::Native {
            return;
        }
        let mut keys: HashMap<&str, (&str, FeastType)> = HashMap::new();
        let mut fields: HashMap<[u8; 4], String> = HashMap::new();
        for view in views {
            let path = Path::of(&["features", &view.name]);
            let schema = match view.stream {
                StreamRef::Source(source) => &sources[source].stream_schema,
                StreamRef::Join(join) => &joins[join].schema,
            };
            for (i, (&column, name)) in view.entity.iter().zip(&view.entity_names).enumerate() {
                let place = path.key("entity").item(i);
                let data_type = schema.field(column).data_type();
                match FeastType::of_key(data_type) {
                    None => {
                        let what = format!("Feast's keys hold no columns of type {data_type} (`{name}`)");
                        self.error(&place, what, key_mend(data_type));
                    }
                    Some(held) => {
                        let (other, first) = *keys.entry(name).or_insert((&view.name, held));
                        if first != held {
                            let what = format!(
                                "`{name}` is {} here and {} in view `{other}`: Feast has one type for it",
                                held.value_type(),
                                first.value_type()
                            );
                            self.error(&place, what, "give the columns one type in the sources' schemas");
                        }
                    }
                }
            }
            let prefix = format!("{}.", view.name);
            for aggregate in &view.aggregates {
                let place = path.key("aggregates");
                let name = aggregate.name.strip_prefix(&prefix).unwrap_or(&aggregate.name);
                if FeastType::of_feature(&aggregate.output_type).is_none() {
                    let what = format!("Feast has no type for {} (`{name}`)", aggregate.output_type);
                    self.error(&place, what, "derive a column of a smaller type with `cast(… as bigint)`, or `double`");
                }
                if view.entity_names.iter().any(|entity| entity == name) {
                    let what = format!("Feast would take the feature `{name}` for the entity of the same name");
                    self.error(&place, what, "rename the feature");
                }
                let full = format!("{}:{name}", view.name);
                if let Some(other) = fields.insert(field_of(&view.name, name), full.clone()) {
                    let what = format!("Feast gives `{full}` and `{other}` one field");
                    self.error(&place, what, "rename one of them");
                }
            }
        }
    }
}

fn key_mend(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Timestamp(_, _) => "they hold whole seconds; use a column of integers or text",
        _ => "use a column of integers or text",
    }
}
