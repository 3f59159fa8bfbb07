//! The plan in words, as `check` prints it.

mod accuracy;
mod alerts;
mod retrain;

use std::fmt::Write;

use arrow::datatypes::{DataType, TimeUnit};

use super::chain::chains;
use super::describe_drift::write_drift;
use super::model::*;
use crate::base::{Micros, SLOTS, format_bytes, format_duration, format_time, shown_setting};

impl Plan {
    /// What the job will do: sources, operators in the order in which rows meet them, columns with types, how much state
    /// each operator may hold, and where results go. Several lines, for people.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let clock = match self.clock {
            Clock::Event => "event",
            Clock::Wall => "wall",
        };
        let order = match self.order {
            Order::EventTime => "by event time, behind the watermark",
            Order::Arrival => "by arrival, tick by tick",
        };
        writeln!(out, "job {} version {}", self.job, self.version)?;
        writeln!(out, "  clock {clock}; rows are applied {order}")?;
        let cut = match self.sources.iter().any(|s| s.connector.is_live()) {
            true => format!("{} or ", format_duration(self.ticks.interval)),
            false => String::new(),
        };
        let (rows, bytes) = (self.ticks.rows_max, size(self.ticks.bytes_max as u64));
        writeln!(
            out,
            "  a tick is cut after {cut}{rows} rows or {bytes}; at most {} are in flight",
            self.ticks.in_flight_max
        )?;
        let rows = self.checkpoint.rows.map(|rows| format!(" or {rows} rows")).unwrap_or_default();
        let (interval, keep) = (format_duration(self.checkpoint.interval), self.checkpoint.keep);
        writeln!(out, "  an epoch closes after {interval}{rows}; with a state directory, {keep} are kept")?;
        if let Some(uri) = &self.checkpoint.uri {
            writeln!(out, "  snapshots go to {uri}")?;
        }
        writeln!(out, "  plan {}", &self.fingerprint[..16.min(self.fingerprint.len())])?;
        for source in &self.sources {
            self.write_source(out, source)?;
        }
        writeln!(out, "\noperators")?;
        if self.order == Order::EventTime {
            writeln!(out, "  reorder: holds each source's rows until the watermark passes them")?;
        }
        for join in &self.joins {
            self.write_join(out, join)?;
        }
        for view in &self.views {
            self.write_view(out, view)?;
        }
        let chains = chains(self);
        for (index, set) in self.sets.iter().enumerate() {
            writeln!(out, "\nfeature set {} on {}: one row per event", set.name, self.sources[set.spine].name)?;
            if !set.views.is_empty() {
                let visits = chains.iter().filter(|chain| chain.sets.contains(&index)).flat_map(|chain| &chain.visits);
                let views = visits.filter(|view| set.views.contains(view)).map(|view| self.views[*view].name.as_str());
                writeln!(out, "  visits {}", views.collect::<Vec<_>>().join(", then "))?;
            }
            let columns: Vec<(&str, &DataType)> = set.columns.iter().map(|c| (c.name.as_str(), &c.data_type)).collect();
            write_columns(out, "  ", &columns)?;
        }
        for model in &self.models {
            let set = &self.sets[model.inputs];
            write!(out, "\nmodel {} version {}", model.name, model.version)?;
            if let Some(registered) = &model.registered {
                write!(out, " ({} of registry {})", registered.reference, self.registry)?;
            }
            writeln!(out, ": {}", model.path.display())?;
            writeln!(out, "  inputs: {} columns of {}", set.columns.len(), set.name)?;
            for output in &model.outputs {
                let element = output.element.map(|e| format!("[{e}]")).unwrap_or_default();
                writeln!(out, "  {} = {}{element}", output.name, output.tensor)?;
            }
        }
        for label in &self.labels {
            let (source, model) = (&self.sources[label.from], &self.models[label.model]);
            let column = |i: usize| source.stream_schema.field(i).name().as_str();
            writeln!(
                out,
                "\nlabels of {}: {}.{} by {}, within {}",
                model.name,
                source.name,
                column(label.value),
                column(label.id),
                format_duration(label.within)
            )?;
            let table = format!("labels/{}", model.name);
            let is_kept = |tables: &Option<Vec<String>>| tables.as_ref().is_none_or(|list| list.contains(&table));
            if self.offline.as_ref().is_some_and(|offline| is_kept(&offline.tables)) {
                writeln!(out, "  every row as it arrives in table {table}: id, value, known_at")?;
            }
        }
        for monitor in &self.monitors {
            let window = format_duration(monitor.window);
            writeln!(out, "\nmonitor of {}: windows of {window}", self.models[monitor.model].name)?;
            self.write_accuracy(out, monitor)?;
            if let Some(drift) = &monitor.drift {
                write_drift(out, drift)?;
            }
            monitor.latency.describe(out)?;
            alerts::write_alerts(out, self, monitor)?;
        }
        alerts::write_receivers(out, self)?;
        retrain::write_retrains(out, self)?;
        self.write_sinks(out)
    }

    fn write_source(&self, out: &mut String, source: &SourcePlan) -> std::fmt::Result {
        writeln!(out, "\nsource {}", source.name)?;
        match &source.connector {
            Connector::File(file) => {
                let format = match file.format {
                    FileFormat::Parquet => "Parquet",
                    FileFormat::Ndjson => "NDJSON",
                    FileFormat::Csv => "CSV",
                };
                let count = match file.files.len() {
                    1 => "1 file".to_string(),
                    n => format!("{n} files"),
                };
                writeln!(out, "  {format} {} ({count}), {}", file.path, rate(file.rate))?;
            }
            Connector::Generator(g) => {
                let stream = match g.stream {
                    GeneratorStream::Transactions => "transactions",
                    GeneratorStream::Labels => "labels",
                };
                let length = g.duration.map_or("without end".to_string(), |d| format!("for {}", format_duration(d)));
                write!(
                    out,
                    "  generator of {stream}, seed {}, {} customers, {} terminals, from {} {length}",
                    g.seed,
                    g.customers,
                    g.terminals,
                    format_time(g.start)
                )?;
                if let Some(after) = g.drift_after {
                    write!(out, ", drifts after {}", format_duration(after))?;
                }
                writeln!(out, ", {}", rate(g.rate))?;
            }
            Connector::Kafka(kafka) => write_kafka(out, kafka)?,
        }
        let columns: Vec<(&str, &DataType)> =
            source.schema.fields().iter().map(|f| (f.name().as_str(), f.data_type())).collect();
        write_columns(out, "  ", &columns)?;
        if let Some(filter) = &source.filter {
            writeln!(out, "  where {}", filter.text)?;
        }
        write!(
            out,
            "  event time {}; watermark: highest seen − {}",
            source.event_time.text,
            format_duration(source.disorder)
        )?;
        if let Some(idle) = source.idle_after {
            write!(out, ", idle after {}", format_duration(idle))?;
        }
        let late = match source.on_late {
            OnLate::DeadLetter => "late rows become dead letters",
            OnLate::Drop => "late rows are dropped",
        };
        writeln!(out, "; {late}")?;
        if let Some(id) = source.id {
            write!(out, "  id {}", source.schema.field(id).name())?;
            if let Some(horizon) = source.dedup {
                write!(
                    out,
                    "; duplicates within {} are removed (state: the ids of that time)",
                    format_duration(horizon)
                )?;
            }
            writeln!(out)?;
        }
        for rule in &source.rules {
            let mut checks = Vec::new();
            if rule.required {
                checks.push("required".to_string());
            }
            checks.extend(rule.min.map(|m| format!("≥ {m}")));
            checks.extend(rule.max.map(|m| format!("≤ {m}")));
            checks.extend(rule.allowed.as_ref().map(|list| format!("in {}", list.join(", "))));
            writeln!(
                out,
                "  check {}: {}; else to {}",
                source.schema.field(rule.column).name(),
                checks.join(", "),
                source.rejected_to
            )?;
        }
        for derived in &source.derived {
            writeln!(out, "  {} {} = {}", derived.name, type_name(&derived.expr.data_type), derived.expr.text)?;
        }
        Ok(())
    }

    fn write_join(&self, out: &mut String, join: &JoinPlan) -> std::fmt::Result {
        let (left, right) = (&self.sources[join.left], &self.sources[join.right]);
        let key = left.stream_schema.field(join.left_on).name();
        writeln!(
            out,
            "  stream {}: {} left join {} on {key}, within {}",
            join.name,
            left.name,
            right.name,
            format_duration(join.within)
        )?;
        let told: Vec<&str> =
            join.right_columns.iter().map(|i| right.stream_schema.field(*i).name().as_str()).collect();
        if !told.is_empty() {
            writeln!(out, "    told later: {}", told.join(", "))?;
        }
        let kept = join.within + left.disorder.max(right.disorder);
        writeln!(out, "    state: the rows of both sides of the last {}", format_duration(kept))
    }

    fn write_view(&self, out: &mut String, view: &ViewPlan) -> std::fmt::Result {
        let stream = match view.stream {
            StreamRef::Source(s) => &self.sources[s].name,
            StreamRef::Join(j) => &self.joins[j].name,
        };
        write!(out, "  view {} over {stream} by {}", view.name, view.entity_names.join(", "))?;
        if view.delay > 0 {
            write!(out, ", delayed by {}", format_duration(view.delay))?;
        }
        if !view.include_current {
            write!(out, ", an event does not see itself")?;
        }
        if let Some(ttl) = view.ttl {
            write!(out, ", served for {}", format_duration(ttl))?;
        }
        writeln!(out)?;
        let schema = match view.stream {
            StreamRef::Source(s) => &self.sources[s].stream_schema,
            StreamRef::Join(j) => &self.joins[j].schema,
        };
        for a in &view.aggregates {
            let input = a.input.map_or("*", |i| schema.field(i).name().as_str());
            let window = match (a.window, a.resolution) {
                (Window::Lifetime, _) => "lifetime".to_string(),
                (Window::Trailing(w), None) => format!("({}, t]", bound(view.delay + w)),
                (Window::Trailing(w), Some(r)) => {
                    format!("({} to {}, t]", bound(view.delay + w + r), bound(view.delay + w))
                }
            };
            let window =
                if view.delay > 0 { window.replace(", t]", &format!(", {}]", bound(view.delay))) } else { window };
            write!(
                out,
                "    {} {} = {}({input}) over {window}",
                a.name,
                type_name(&a.output_type),
                function(a.function)
            )?;
            match &a.default {
                Some(value) => writeln!(out, ", else {value}")?,
                None => writeln!(out)?,
            }
        }
        for post in &view.post {
            writeln!(out, "    {} {} = {}", post.name, type_name(&post.expr.data_type), post.expr.text)?;
        }
        writeln!(out, "    state per key, in {SLOTS} slots: {}", state(view))
    }

    fn write_sinks(&self, out: &mut String) -> std::fmt::Result {
        if let Some(online) = &self.online {
            let place = match &online.store {
                OnlinePlace::Embedded(path) => path.display().to_string(),
                OnlinePlace::Redis(redis) => match &redis.layout {
                    RedisLayout::Native => format!("{}, keys {}:VIEW:ENTITY", redis.shown, redis.prefix),
                    RedisLayout::Feast { project } => format!("{}, Feast's layout, project {project}", redis.shown),
                },
            };
            let refresh = format_duration(online.refresh);
            writeln!(out, "\nonline store {place}: a value is rewritten within {refresh} of its change")?;
        }
        if let Some(offline) = &self.offline {
            let tables = offline.tables.as_ref().map_or("all tables".to_string(), |t| t.join(", "));
            writeln!(out, "\noffline store {}: Delta tables, {tables}", offline.uri)?;
            if let Some(maintain) = &offline.maintain {
                writeln!(
                    out,
                    "  every {} files below {} are merged, those replaced {} ago deleted",
                    format_duration(maintain.every),
                    format_bytes(maintain.compact_below),
                    format_duration(maintain.vacuum_after)
                )?;
            }
        }
        for topic in &self.topics {
            let format = match topic.format {
                TopicFormat::Json => "JSON",
                TopicFormat::Avro => "Avro",
                TopicFormat::Original => "the original bytes",
            };
            writeln!(out, "\ntopic {} at {}: {} as {format}", topic.topic, topic.brokers, topic.rows.name())?;
            if let Some(registry) = &topic.registry {
                writeln!(out, "  schema registered at {} as {}-value", registry.url, topic.topic)?;
            }
            let key = match topic.key.as_slice() {
                [] => "no key".to_string(),
                columns => format!("key {}", columns.join(", ")),
            };
            let once = || format!("exactly once, with each checkpoint, {} slots, ledger {}", topic.slots, topic.ledger);
            let least = "at least once, as soon as the tick is durable";
            match topic.delivery {
                Some(Delivery::ExactlyOnce) => writeln!(out, "  {key}; {}", once())?,
                Some(Delivery::AtLeastOnce) => writeln!(out, "  {key}; {least}")?,
                None => writeln!(out, "  {key}; with --state {}; without {least}", once())?,
            }
        }
        if self.online.is_none() && self.offline.is_none() && self.topics.is_empty() {
            writeln!(out, "\nno stores: results are computed and kept nowhere")?;
        }
        Ok(())
    }
}

fn write_kafka(out: &mut String, kafka: &KafkaConnector) -> std::fmt::Result {
    let format = match &kafka.format {
        MessageFormat::Json => "JSON".to_string(),
        MessageFormat::Avro(avro) => match &avro.writer {
            AvroWriter::Schema(_) => "Avro".to_string(),
            AvroWriter::Registry(registry) => format!("Avro with schemas of the registry at {}", registry.url),
        },
    };
    let start = match kafka.start {
        KafkaStart::Earliest => "the oldest message".to_string(),
        KafkaStart::Latest => "what comes from now on".to_string(),
        KafkaStart::At(time) => format!("messages of {}", format_time(time)),
    };
    let every = format_duration(kafka.discover_every);
    writeln!(
        out,
        "  Kafka topic {} at {}, {format}, from {start}; new partitions every {every}",
        kafka.topic, kafka.brokers
    )?;
    if let Some(group) = &kafka.group {
        writeln!(out, "  offsets are committed to group {group}, to be watched")?;
    }
    let mut taken: Vec<String> = kafka.key.iter().map(|column| format!("{column} = the key")).collect();
    taken.extend(kafka.timestamp.iter().map(|column| format!("{column} = the timestamp")));
    taken.extend(kafka.headers.iter().map(|(column, header)| format!("{column} = header {header}")));
    if !taken.is_empty() {
        writeln!(out, "  of each message: {}", taken.join(", "))?;
    }
    for (name, text) in &kafka.properties.0 {
        writeln!(out, "  {name} = {}", shown_setting(name, text))?;
    }
    Ok(())
}

fn bound(back: Micros) -> String {
    format!("t − {}", format_duration(back))
}

/// What a view holds for one key: an upper bound, in the words of the operator that holds it.
fn state(view: &ViewPlan) -> String {
    let mut parts = Vec::new();
    let exact = view.aggregates.iter().filter(|a| a.resolution.is_none());
    let longest = exact
        .filter_map(|a| match a.window {
            Window::Trailing(w) => Some(w),
            Window::Lifetime => None,
        })
        .max();
    if let Some(longest) = longest {
        parts.push(format!("its rows of the last {}", format_duration(longest + view.delay + view.disorder)));
    }
    let mut tiles: Vec<(Micros, Micros)> = view
        .aggregates
        .iter()
        .filter_map(|a| match (a.window, a.resolution) {
            (Window::Trailing(w), Some(r)) => Some((r, w)),
            _ => None,
        })
        .collect();
    // Windows of one resolution share their tiles.
    tiles.sort_unstable();
    for i in 0..tiles.len() {
        let (width, window) = tiles[i];
        if tiles.get(i + 1).is_none_or(|next| next.0 != width) {
            let span = window + view.delay + view.disorder;
            let count = (span + width - 1) / width + 1;
            parts.push(format!("at most {count} tiles of {}", format_duration(width)));
        }
    }
    if view.aggregates.iter().any(|a| a.window == Window::Lifetime) {
        parts.push("one row of lifetime values, kept for ever".to_string());
    }
    if parts.is_empty() { "none".to_string() } else { parts.join("; ") }
}

fn rate(rate: Rate) -> String {
    match rate {
        Rate::Max => "as fast as it goes".to_string(),
        Rate::RealTime => "at the pace of event time".to_string(),
        Rate::PerSecond(n) => format!("{n} events/s"),
    }
}

fn function(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Mean => "mean",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
        AggregateFunction::Variance => "variance",
        AggregateFunction::Stddev => "stddev",
        AggregateFunction::VarianceSample => "variance_sample",
        AggregateFunction::StddevSample => "stddev_sample",
        AggregateFunction::Last => "last",
    }
}

/// Columns and types, folded at 110 characters.
fn write_columns(out: &mut String, indent: &str, columns: &[(&str, &DataType)]) -> std::fmt::Result {
    let mut line = String::new();
    for (i, (name, data_type)) in columns.iter().enumerate() {
        let comma = if i + 1 < columns.len() { ", " } else { "" };
        let piece = format!("{name} {}{comma}", type_name(data_type));
        if !line.is_empty() && line.chars().count() + piece.chars().count() > 110 {
            writeln!(out, "{indent}{}", line.trim_end())?;
            line.clear();
        }
        line.push_str(&piece);
    }
    if !line.is_empty() {
        writeln!(out, "{indent}{line}")?;
    }
    Ok(())
}

/// A type as SQL and Arrow users know it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, _) => "timestamp".to_string(),
        DataType::Date32 => "date".to_string(),
        DataType::Utf8 => "text".to_string(),
        other => other.to_string().to_lowercase(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b % (1 << 10) == 0 => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}
