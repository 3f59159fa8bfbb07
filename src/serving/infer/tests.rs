//! The service whole: what comes of requests that come together, of versions that change, of requests that are wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::datatype::Datatype;
use super::error::InferError;
use super::options::{Options, Settings};
use super::request::{Given, Request};
use super::service::{Infer, Inferred};
use crate::http::{Caller, Scope};
use crate::registry::{By, CHAMPION, Content, Previous, Registration, Registry, Signature};
use crate::score::Model;
use crate::score::tensor::{Data, Tensor};
use crate::serving::FixedJobs;

const NAMES: [&str; 2] = ["lr_binary", "forest_binary"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(format!("{name}.onnx"))
}

struct Place {
    dir: tempfile::TempDir,
    registry: Registry,
}

impl Place {
    /// A registry with these files as versions of `m`, the first one the champion.
    fn new(files: &[&str]) -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let registry = Registry::open(&dir.path().display().to_string()).expect("a registry");
        let place = Place { dir, registry };
        files.iter().for_each(|file| place.register("m", file));
        place.champion(1);
        place
    }

    fn register(&self, name: &str, file: &str) {
        let content = Content::File(golden(file));
        let registration = Registration::new(name, content, Signature::default(), By::new("test", "a test"));
        self.registry.register(registration).expect("it is registered");
    }

    fn champion(&self, number: u32) {
        self.registry.set_alias("m", CHAMPION, number, Previous::Any, &By::new("test", "a test")).expect("it is moved");
    }

    fn infer(&self, settings: Settings, threads: usize) -> Arc<Infer> {
        let options = Options {
            registry: Some(self.dir.path().display().to_string()),
            threads,
            settings,
            refresh: Duration::from_millis(5),
            ..Options::default()
        };
        Infer::start(Arc::new(FixedJobs::new(Vec::new())), options).expect("it starts")
    }
}

fn width(file: &str) -> usize {
    Model::load(golden(file)).expect("loads").inputs()[0].width().expect("a width")
}

fn request(model: &Model, rows: &[Vec<f32>]) -> Request {
    let width = rows[0].len();
    let given = Given {
        name: model.inputs()[0].name.clone(),
        datatype: Datatype::Fp32,
        shape: vec![rows.len(), width],
        data: Data::F32(rows.concat()),
    };
    Request { inputs: vec![given], binary: true, ..Request::default() }
}

fn row(seed: u32, width: usize) -> Vec<f32> {
    (0..width as u32)
        .map(|i| (seed.wrapping_mul(2_654_435_761).wrapping_add(i * 97) % 1000) as f32 / 250.0 - 2.0)
        .collect()
}

fn bits(tensor: &Tensor) -> Vec<u64> {
    match &tensor.data {
        Data::F32(v) => v.iter().map(|x| x.to_bits().into()).collect(),
        Data::F64(v) => v.iter().map(|x| x.to_bits()).collect(),
        Data::I64(v) => v.iter().map(|x| *x as u64).collect(),
        other => panic!("not expected: {other:?}"),
    }
}

/// All outputs of rows that nobody else's rows are scored with.
fn alone(model: &Model, rows: &[Vec<f32>]) -> Vec<Vec<u64>> {
    let mut runner = model.runner().expect("starts");
    runner.input(0).set_f32(&[rows.len(), rows[0].len()]).copy_from_slice(&rows.concat());
    runner.run(rows.len()).expect("runs");
    (0..runner.outputs()).map(|o| bits(runner.output(o))).collect()
}

fn given(inferred: &Inferred) -> Vec<Vec<u64>> {
    inferred.outputs.iter().map(|o| bits(&o.tensor)).collect()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Requests of several sizes for two models, all at once: each gets the scores of its own rows, to the bit, whatever they were scored with.
    #[test]
    fn everybody_gets_their_own_scores(
        sizes in prop::collection::vec((1usize..6, 0usize..2), 1..40), batch_rows in 1usize..12, delay_ms in 0u64..3, threads in 1usize..3,
    ) {
        let place = Place::new(&[NAMES[0]]);
        place.register("other", NAMES[1]);
        let settings = Settings { batch_rows, batch_delay: Duration::from_millis(delay_ms), ..Settings::default() };
        let infer = place.infer(settings, threads);
        let models = NAMES.map(|name| Model::load(golden(name)).expect("loads"));
        let runtime = runtime();
        let asked: Vec<(usize, Vec<Vec<f32>>)> = sizes
            .iter()
            .enumerate()
            .map(|(i, (rows, which))| (*which, (0..*rows).map(|r| row((i * 10 + r) as u32, width(NAMES[*which]))).collect()))
            .collect();
        let answers = runtime.block_on(async {
            let tasks: Vec<_> = asked.iter().map(|(which, rows)| {
                let (infer, request) = (infer.clone(), request(&models[*which], rows));
                let name = ["m", "other"][*which];
                tokio::spawn(async move { infer.infer(name, "", request).await })
            }).collect();
            let mut answers = Vec::new();
            for task in tasks {
                answers.push(task.await.expect("no panic").map(|inferred| given(&inferred)));
            }
            answers
        });
        for ((which, rows), answer) in asked.iter().zip(answers) {
            prop_assert_eq!(answer.expect("it is scored"), alone(&models[*which], rows));
        }
    }
}

#[test]
fn what_waits_together_is_scored_together() {
    let place = Place::new(&[NAMES[0]]);
    let settings = Settings { batch_rows: 8, batch_delay: Duration::from_secs(5), ..Settings::default() };
    let infer = place.infer(settings, 1);
    let model = Model::load(golden(NAMES[0])).expect("loads");
    let width = width(NAMES[0]);
    runtime().block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|i| {
                let (infer, request) = (infer.clone(), request(&model, &[row(i, width)]));
                tokio::spawn(async move { infer.infer("m", "", request).await.map(|_| ()) })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic").expect("it is scored");
        }
        let told = infer.statistics("m", "1").await.expect("counters").remove(0).2;
        assert_eq!((told.inference_count, told.execution_count), (8, 1), "a batch is due when it is full");
        assert_eq!((told.batch_stats.len(), told.batch_stats[0].batch_size), (1, 8));
        assert_eq!(told.inference_stats.success.count, 8);
        assert!(told.latency_us.p50 > 0 && told.latency_us.p50 <= told.latency_us.max);
    });
}

#[test]
fn too_many_and_too_slow_are_told() {
    let place = Place::new(&[NAMES[0]]);
    // Nothing is due for as long as the test runs, so that what comes waits.
    let settings = Settings {
        batch_rows: 100,
        batch_delay: Duration::from_secs(600),
        queue: 2,
        timeout: Duration::from_secs(600),
        ..Settings::default()
    };
    let infer = place.infer(settings, 1);
    let model = Model::load(golden(NAMES[0])).expect("loads");
    let width = width(NAMES[0]);
    let runtime = runtime();
    runtime.block_on(async {
        let ask = |patience: Option<Duration>| {
            let request = Request { patience, ..request(&model, &[row(1, width)]) };
            let infer = infer.clone();
            async move { infer.infer("m", "", request).await.map(|_| ()) }
        };
        let late = ask(Some(Duration::from_millis(1))).await.expect_err("it is late");
        assert!(matches!(late, InferError::Late(_)), "{late}");
        assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
        // The late one still has its place, until a scorer finds that nobody waits for it.
        let waiting = tokio::spawn(ask(None));
        while infer.pool.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        let full = ask(None).await.expect_err("it is full");
        assert!(matches!(full, InferError::Full(_)) && full.to_string().contains("2 requests"), "{full}");
        let stats = infer.statistics("m", "1").await.expect("counters").remove(0).2.inference_stats;
        assert_eq!((stats.fail.count, stats.success.count), (2, 0));
        waiting.abort();
    });
    runtime.shutdown_background();
}

#[test]
fn the_default_goes_where_the_champion_goes() {
    let place = Place::new(&[NAMES[0], NAMES[0]]);
    place.register("m", "lr_scaler");
    let infer = place.infer(Settings::default(), 1);
    let model = Model::load(golden(NAMES[0])).expect("loads");
    let width = width(NAMES[0]);
    runtime().block_on(async {
        let by = |version: &'static str| {
            let (infer, request) = (infer.clone(), request(&model, &[row(3, width)]));
            async move { infer.infer("m", version, request).await.map(|i| (i.version.label.clone(), given(&i))) }
        };
        let first = by("").await.expect("scored");
        assert_eq!(first.0, "1");
        assert_eq!(by("2").await.expect("scored"), ("2".to_owned(), first.1.clone()), "the same file");
        assert_eq!(by("latest").await.expect("scored").0, "3");
        assert_ne!(by("3").await.expect("scored").1, first.1);
        place.champion(3);
        let mut label = String::new();
        while label != "3" {
            tokio::time::sleep(Duration::from_millis(2)).await;
            label = by("").await.expect("it is scored while it changes").0;
        }
        assert_eq!(by("champion").await.expect("scored").0, "3");
        let error = by("9").await.expect_err("there is none");
        assert!(matches!(error, InferError::NotFound(_)) && error.to_string().contains("1, 2, 3"), "{error}");
        let index = infer.index(false).await.expect("an index");
        assert_eq!(index.iter().map(|i| i.version.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        // A new model is there without a start.
        place.register("new", NAMES[1]);
        while infer.metadata("new", "").await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
}

#[test]
fn kept_answers_are_those_of_the_inputs() {
    let place = Place::new(&[NAMES[0]]);
    let settings = Settings { cache_ttl: Some(Duration::from_secs(600)), ..Settings::default() };
    let infer = place.infer(settings, 1);
    let model = Model::load(golden(NAMES[0])).expect("loads");
    let width = width(NAMES[0]);
    runtime().block_on(async {
        for seed in [1, 2, 1, 1, 2, 3] {
            let rows = [row(seed, width)];
            let inferred = infer.infer("m", "", request(&model, &rows)).await.expect("scored");
            assert_eq!(given(&inferred), alone(&model, &rows));
        }
        let told = infer.statistics("m", "1").await.expect("counters").remove(0).2;
        let stats = &told.inference_stats;
        assert_eq!((stats.cache_hit.count, stats.cache_miss.count, told.execution_count), (3, 3, 3));
    });
}

/// A model of one whole number that knows 0, 1, 2 and 3, and refuses a row with another.
fn picky() -> Vec<u8> {
    use prost::Message;
    use tract_onnx::pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
        ValueInfoProto, tensor_shape_proto, type_proto,
    };
    let value = |name: &str, elem_type, width| {
        use tensor_shape_proto::{Dimension, dimension::Value};
        let rows = Dimension { value: Some(Value::DimParam("N".into())), ..Default::default() };
        let width = Dimension { value: Some(Value::DimValue(width)), ..Default::default() };
        let tensor = type_proto::Tensor { elem_type, shape: Some(TensorShapeProto { dim: vec![rows, width] }) };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
    };
    let encoder = NodeProto {
        domain: "ai.onnx.ml".into(),
        op_type: "OneHotEncoder".into(),
        input: vec!["C".into()],
        output: vec!["Y".into()],
        attribute: vec![
            AttributeProto { name: "cats_int64s".into(), ints: vec![0, 1, 2, 3], r#type: 7, ..Default::default() },
            AttributeProto { name: "zeros".into(), i: 0, r#type: 2, ..Default::default() },
        ],
        ..Default::default()
    };
    let graph = GraphProto {
        name: "g".into(),
        node: vec![encoder],
        input: vec![value("C", 7, 1)],
        output: vec![value("Y", 1, 4)],
        ..Default::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let opset_import = vec![opset("", 12), opset("ai.onnx.ml", 3)];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

#[test]
fn one_bad_request_spoils_no_others() {
    let place = Place::new(&[NAMES[0]]);
    let by = By::new("test", "a test");
    let registration = Registration::new("picky", Content::Bytes(picky()), Signature::default(), by);
    place.registry.register(registration).expect("it is registered");
    // Due when all five requests are there, so that they are one batch.
    let settings = Settings { batch_rows: 8, batch_delay: Duration::from_secs(600), ..Settings::default() };
    let infer = place.infer(settings, 1);
    runtime().block_on(async {
        let ask = |values: &[i64]| {
            let data = Data::I64(values.to_vec());
            let given = Given { name: "C".into(), datatype: Datatype::Int64, shape: vec![values.len(), 1], data };
            let (infer, request) = (infer.clone(), Request { inputs: vec![given], ..Request::default() });
            tokio::spawn(async move { infer.infer("picky", "", request).await.map(|i| given_floats(&i)) })
        };
        let tasks = [ask(&[0]), ask(&[1, 2, 9]), ask(&[3]), ask(&[7]), ask(&[2, 2])];
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.expect("no panic"));
        }
        assert_eq!(answers[0], Ok(vec![1.0, 0.0, 0.0, 0.0]));
        assert_eq!(answers[2], Ok(vec![0.0, 0.0, 0.0, 1.0]));
        assert_eq!(answers[4], Ok([0.0, 0.0, 1.0, 0.0].repeat(2)));
        for (at, row, value) in [(1, "row 2 ", "9"), (3, "row 0 ", "7")] {
            let error = answers[at].clone().expect_err("it is refused");
            let text = error.to_string();
            assert!(matches!(error, InferError::Invalid(_)) && text.contains(row) && text.contains(value), "{text}");
        }
        let told = infer.statistics("picky", "1").await.expect("counters").remove(0).2;
        assert_eq!((told.execution_count, told.inference_count), (1, 8), "they were one batch");
    });
}

fn given_floats(inferred: &Inferred) -> Vec<f32> {
    inferred.outputs[0].tensor.f32s().expect("floats").to_vec()
}

fn router(place: &Place) -> axum::Router {
    let registry = crate::telemetry::Registry::default();
    super::api_of(&place.infer(Settings::default(), 1), &registry).into_router()
}

async fn ask(
    router: &axum::Router,
    caller: Option<&[Scope]>,
    path: &str,
    body: impl Into<Body>,
    headers: &[(&str, &str)],
) -> (StatusCode, Value) {
    let mut request = HttpRequest::builder().method(if path.ends_with("infer") { "POST" } else { "GET" }).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(body.into()).expect("a request");
    if let Some(scopes) = caller {
        request.extensions_mut().insert(Caller { name: "test".to_owned(), scopes: scopes.to_vec() });
    }
    let response = router.clone().oneshot(request).await.expect("an answer");
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[test]
fn errors_have_the_protocols_shape_and_the_right_status() {
    let place = Place::new(&[NAMES[0]]);
    let width = width(NAMES[0]);
    let name = Model::load(golden(NAMES[0])).expect("loads").inputs()[0].name.clone();
    let body = |datatype: &str, shape: Value, data: Value| {
        json!({"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}).to_string()
    };
    let row = vec![0.5; width];
    let fine = body("FP32", json!([1, width]), json!(row));
    runtime().block_on(async {
        let router = router(&place);
        let predict = Some(&[Scope::Predict][..]);
        let path = "/v2/models/m/infer";
        let (status, answer) = ask(&router, predict, path, fine.clone(), &[]).await;
        assert_eq!((status, &answer["model_version"]), (StatusCode::OK, &json!("1")), "{answer}");
        let deflated = |plain: &[u8]| {
            use std::io::Write;
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(plain).and_then(|()| encoder.finish()).expect("it is compressed")
        };
        let zipped = deflated(fine.as_bytes());
        let (status, same) = ask(&router, predict, path, zipped, &[("content-encoding", "deflate")]).await;
        assert_eq!((status, &same), (StatusCode::OK, &answer));
        // A little that becomes too much.
        let bomb = deflated(&vec![b' '; Options::default().request_bytes + 1]);
        let (status, _) = ask(&router, predict, path, bomb, &[("content-encoding", "deflate")]).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        let other = name.clone() + "x";
        for (path, body, headers, status, part) in [
            ("/v2/models/n/infer", fine.clone(), &[][..], 404, "no model \"n\"; there are m"),
            ("/v2/models/m/versions/7/infer", fine.clone(), &[], 404, "no version \"7\""),
            (path, "{".to_owned(), &[], 400, "not understood"),
            (path, fine.replace(&name, &other), &[], 400, "no input"),
            (path, body("FP64", json!([1, width]), json!(row)), &[], 400, "FP64"),
            (path, body("FP32", json!([1, width + 1]), json!(vec![0.5; width + 1])), &[], 400, "takes [N, "),
            (path, body("FP32", json!([2, width]), json!(row)), &[], 400, "values where its shape"),
            (path, body("FP32", json!([0, width]), json!([])), &[], 400, "no rows"),
            (path, r#"{"inputs":[]}"#.to_owned(), &[], 400, "needs"),
            (path, fine.clone(), &[("content-encoding", "br")], 415, "br"),
            (path, fine.clone(), &[("content-encoding", "gzip")], 400, "decompressed"),
            (path, fine.clone(), &[("inference-header-content-length", "x")], 400, "number of bytes"),
            (path, fine.clone(), &[("inference-header-content-length", "99999")], 400, "the body has"),
        ] {
            let (found, answer) = ask(&router, predict, path, body, headers).await;
            let error = answer["error"].as_str().unwrap_or_default();
            assert!(found.as_u16() == status && error.contains(part), "{found} {answer}, expected {status} {part}");
        }
        assert_eq!(ask(&router, None, path, fine.clone(), &[]).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&router, Some(&[Scope::ReadFeatures]), path, fine, &[]).await.0, StatusCode::FORBIDDEN);
        assert_eq!(ask(&router, None, "/v2/health/ready", "", &[]).await.0, StatusCode::OK);
        let (status, metadata) = ask(&router, predict, "/v2/models/m", "", &[]).await;
        assert_eq!((status, &metadata["inputs"][0]["shape"]), (StatusCode::OK, &json!([-1, width])), "{metadata}");
        let (_, config) = ask(&router, predict, "/v2/models/m/config", "", &[]).await;
        assert_eq!(config["input"][0]["data_type"], json!("TYPE_FP32"), "{config}");
    });
}
