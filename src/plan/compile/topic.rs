//! Topics that rows are published to.

use super::Compiler;
use super::connector::DEFAULT_BROKERS;
use super::notify::topic_of;
use super::source::Source;
use crate::plan::config::{DeliveryConfig, JobConfig, ToConfig, TopicFormatConfig};
use crate::plan::faults::Path;
use crate::plan::model::{Connector, Delivery, KafkaConnector, Properties, TopicFormat, TopicPlan, TopicRows};

/// Transactions that rows are spread over when the file does not say.
const SLOTS: u32 = 4;

/// Settings that the sink needs as they are: name, and why.
const OURS: &[(&str, &str)] = &[
    ("enable.idempotence", "messages must not change their order when they are sent again"),
    ("acks", "a message counts as delivered when all replicas in step have it"),
    ("request.required.acks", "a message counts as delivered when all replicas in step have it"),
    ("transactional.id", "`delivery: exactly_once` names its transactions itself"),
    (
        "transaction.timeout.ms",
        "`delivery: exactly_once` keeps its transactions far shorter than the time it gives them",
    ),
    ("delivery.report.only.error", "deliveries are counted"),
];

impl Compiler<'_> {
    pub(super) fn topics(&mut self, config: &JobConfig, sources: &[Source]) -> Vec<TopicPlan> {
        let kafka = |source: &Source| match &source.connector {
            Connector::Kafka(kafka) => Some((**kafka).clone()),
            _ => None,
        };
        let sources: Vec<KafkaConnector> = sources.iter().filter_map(kafka).collect();
        let mut asked: Vec<(Path, TopicRows, &ToConfig)> = Vec::new();
        let table = |section: &str, name: &str| TopicRows::Table(format!("{section}/{name}"));
        for (name, view) in &config.features.0 {
            asked.extend(view.to.iter().map(|to| (Path::of(&["features", name]), table("features", name), to)));
        }
        for (name, set) in &config.feature_sets.0 {
            asked.extend(set.to.iter().map(|to| (Path::of(&["feature_sets", name]), table("feature_sets", name), to)));
        }
        for (name, model) in &config.models.0 {
            asked.extend(model.to.iter().map(|to| (Path::of(&["models", name]), table("predictions", name), to)));
        }
        for (name, monitor) in &config.monitors.0 {
            let rows = TopicRows::Statistics(name.clone());
            asked.extend(monitor.to.iter().map(|to| (Path::of(&["monitors", name]), rows.clone(), to)));
        }
        let mut topics: Vec<TopicPlan> =
            asked.into_iter().map(|(path, rows, to)| self.topic(&path.key("to"), rows, to, &sources)).collect();
        if config.monitors.0.iter().any(|(_, monitor)| !monitor.alerts.is_empty()) {
            for (name, to) in config.notify.0.iter().filter_map(|(name, c)| Some((name, topic_of(c)?))) {
                topics.push(self.topic(&Path::of(&["notify", name]), TopicRows::Alerts(name.clone()), &to, &sources));
            }
        }
        if let Some(to) = &config.sinks.dead_letters {
            topics.push(self.topic(&Path::of(&["sinks", "dead_letters"]), TopicRows::DeadLetters, to, &sources));
        }
        topics
    }

    fn topic(&mut self, path: &Path, rows: TopicRows, to: &ToConfig, sources: &[KafkaConnector]) -> TopicPlan {
        let (delivery, ledger) = self.delivery(path, to);
        let (path, kafka) = (path.key("kafka"), &to.kafka);
        let letters = rows == TopicRows::DeadLetters;
        let format = match kafka.format {
            None if letters => TopicFormat::Original,
            None | Some(TopicFormatConfig::Json) => TopicFormat::Json,
            Some(TopicFormatConfig::Avro) => TopicFormat::Avro,
            Some(TopicFormatConfig::Original) => TopicFormat::Original,
        };
        if kafka.registry.is_some() && format != TopicFormat::Avro {
            let mend = "add `format: avro`, or remove it";
            self.error_at_key(&path.key("registry"), "a registry is for messages in Avro", mend);
        }
        if format == TopicFormat::Original && !letters {
            let mend = "write `json` or `avro`";
            self.error(&path.key("format"), "`original` is for dead letters: these rows were computed", mend);
        }
        self.kafka_topic(&path.key("topic"), &kafka.topic.0);
        let properties = self.kafka_properties(&path.key("properties"), &kafka.properties, OURS);
        // Brokers are named once in most jobs: where the events come from.
        let brokers = match &kafka.brokers {
            Some(brokers) => brokers.0.as_str(),
            None => sources.first().map_or(DEFAULT_BROKERS, |kafka| kafka.brokers.as_str()),
        };
        if kafka.brokers.is_none() && sources.iter().any(|kafka| kafka.brokers != brokers) {
            let mend = "add `brokers: HOST:PORT`";
            self.error_at_key(&path, "the sources are on several brokers; the topic does not say where it is", mend);
        }
        self.kafka_brokers(&path.key("brokers"), brokers);
        let registry = kafka.registry.as_ref().map(|registry| self.registry(&path.key("registry"), registry));
        TopicPlan {
            rows,
            registry,
            brokers: brokers.to_owned(),
            topic: kafka.topic.0.clone(),
            format,
            key: kafka.key.iter().flat_map(|key| key.0.clone()).collect(),
            properties: Properties(properties),
            delivery,
            // The schema allows no more than 64.
            slots: to.slots.unwrap_or(SLOTS) as u16,
            ledger,
        }
    }

    fn delivery(&mut self, path: &Path, to: &ToConfig) -> (Option<Delivery>, String) {
        let delivery = to.delivery.map(|delivery| match delivery {
            DeliveryConfig::ExactlyOnce => Delivery::ExactlyOnce,
            DeliveryConfig::AtLeastOnce => Delivery::AtLeastOnce,
        });
        let given = [("slots", to.slots.is_some()), ("ledger", to.ledger.is_some())];
        for (key, _) in given.into_iter().filter(|(_, given)| *given && delivery == Some(Delivery::AtLeastOnce)) {
            let mend = "write `delivery: exactly_once`, or remove it";
            self.error_at_key(
                &path.key(key),
                format!("`{key}` is for transactions: nothing here is written in one"),
                mend,
            );
        }
        let ledger = match &to.ledger {
            Some(ledger) => {
                self.kafka_topic(&path.key("ledger"), &ledger.0);
                if ledger.0 == to.kafka.topic.0 {
                    let mend = "give the ledger a topic of its own";
                    self.error(&path.key("ledger"), "rows and their ledger are in one topic", mend);
                }
                ledger.0.clone()
            }
            None => format!("tidemill.{}.ledger", self.job),
        };
        (delivery, ledger)
    }
}
