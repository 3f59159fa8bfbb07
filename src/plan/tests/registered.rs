//! Models that are registered.

use super::*;

#[test]
fn a_registered_model() {
    let text = r#"
        job: j
        registry: {uri: "${LAKE}/models"}
        sources: {tx: {file: {path: transactions.parquet}, event_time: TX_DATETIME}}
        features: {by_id: {from: tx, entity: [CUSTOMER_ID], aggregates: {n: {count: "*", over: 1h}}}}
        feature_sets: {s: {on: tx, take: [TX_AMOUNT, by_id.n_1h]}}
        models: {fraud: {registry: scores@champion, inputs: s, outputs: {score: "p[1]"}}}
        sinks: {offline: {delta: {uri: lake}}}
    "#;
    let (plan, _) = compile("j", text, Path::new(""), &[], &env, &Stub).unwrap_or_else(|f| panic!("{f}"));
    let model = &plan.models[0];
    assert_eq!((model.version.as_str(), model.path.to_str()), ("3", Some("models/two.onnx")));
    let registered = model.registered.as_ref().expect("it is registered");
    assert_eq!((registered.reference.to_string().as_str(), registered.number), ("scores@champion", 3));
    assert_eq!(plan.registry, "/lake/models");
    let described = plan.describe();
    let told = "model fraud version 3 (scores@champion of registry /lake/models): models/two.onnx";
    assert!(described.contains(told), "{described}");
    // What the model cannot take is told of the version.
    let narrow = text.replace("[TX_AMOUNT, by_id.n_1h]", "[TX_AMOUNT]");
    let faults = compile("j", &narrow, Path::new(""), &[], &env, &Stub).expect_err("one column is lacking").to_string();
    assert!(faults.contains("models.fraud.registry: version 3 of `scores`: it takes 2 columns, not 1"), "{faults}");
}
