//! What the decider saves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::control::resumed;
use super::*;
use crate::engine::checkpoint::{Checkpoints, Resumed};
use crate::engine::offsets::Offsets;
use crate::engine::shared::{Shared, StopHandle};
use crate::engine::telemetry::Meters;
use crate::engine::{EngineError, RunOptions, graph, load_text};
use crate::state::{Coordinator, Expected, Hooks, Progress, StateError};

struct Nobody;

impl Hooks for Nobody {
    fn wait_durable(&self, _: crate::base::Tick) -> bool {
        true
    }

    fn publish(&self, _: crate::base::Epoch, _: &BTreeMap<String, Vec<serde_json::Value>>) -> bool {
        true
    }

    fn forget_before(&self, _: crate::base::Tick) {}

    fn published(&self, _: crate::base::Epoch, _: Duration) {}

    fn failed(&self, _: StateError) {}
}

/// A job that is about to start, with a model whose versions are rolled out.
fn shared() -> Arc<Shared> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("dataflows/card_fraud.yaml")).expect("a job of the repository");
    let model = root.join("models/card_fraud.onnx").display().to_string();
    let sets = [
        ("retrain.fraud.rollout.canary", "[5]"),
        ("models.fraud.versions.champion", model.as_str()),
        ("sinks", "null"),
    ];
    let sets = sets.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let (plan, _) = load_text("job", &text, &sets, &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let plan = Arc::new(plan);
    let resources = graph::Resources::open(&plan).expect("resources");
    let progress = Arc::<Progress>::default();
    let expected = Expected { first: 0, parts: 0, sinks: BTreeMap::new() };
    let (coordinator, reporter) =
        Coordinator::start(None, expected, Arc::clone(&progress), Arc::new(Nobody)).expect("a thread");
    let checkpoints =
        Checkpoints::start(Instant::now(), None, Resumed::default(), progress, reporter).expect("checkpoints");
    checkpoints.close();
    coordinator.finish();
    let rollouts = Rollouts::new(Versions::new(&plan, &resources.models), true);
    let watchers = (Meters::new(&plan, 1, &RunOptions::default()), None, StopHandle::new(), None, None);
    let outbox = (String::new(), rollouts);
    Shared::new(plan, None, Arc::default(), checkpoints, Offsets::default(), outbox, watchers)
}

/// A decision that a snapshot holds and no tick is given again by whoever goes on from the snapshot.
#[test]
fn a_decision_on_its_way_is_given_again() -> Result<(), EngineError> {
    let order = Order::decode(r#"{"rollout":{"model":"fraud","id":"7","seq":3,"do":{"step":{"share":500}}}}"#);
    let order = order.map_err(EngineError::Plan)?;
    let next = shared();
    resumed(&shared(), &next, order.clone())?;
    let given: Vec<Order> = next.rollouts.steering.take().iter().filter_map(|text| Order::decode(text).ok()).collect();
    assert_eq!(given, [order]);
    Ok(())
}
