//! `inference.GRPCInferenceService`, on the same port as HTTP.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request as HttpRequest;

use axum::routing::post;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::datatype::{Datatype, from_raw, text, to_raw, whole_numbers};
use super::error::InferError;
use super::json::{patience, refuse};
use super::messages::{self as m, Choice};
use super::request::{Given, Request as Asked, Wanted, shape};
use super::service::{EXTENSIONS, Infer, Inferred, NAME, PLATFORM, TensorMetadata};
use super::stats::{Times, Told};
use crate::http::{Caller, Scope};
use crate::score::tensor::{Data, Kind};

const SERVICE: &str = "/inference.GRPCInferenceService";

/// The service's routes.
pub(super) fn router(infer: &Arc<Infer>) -> Router {
    let open = None;
    let predict = Some(Scope::Predict);
    let router = Router::new();
    let router = unary(router, infer, "ServerLive", open, |_, _: m::Empty| async { Ok(m::Flag { value: true }) });
    let router =
        unary(
            router,
            infer,
            "ServerReady",
            open,
            |infer, _: m::Empty| async move { Ok(m::Flag { value: infer.ready() }) },
        );
    let router = unary(router, infer, "ServerMetadata", open, |_, _: m::Empty| async {
        let extensions = EXTENSIONS.iter().map(|e| (*e).to_owned()).collect();
        Ok(m::ServerMetadataResponse { name: NAME.into(), version: env!("CARGO_PKG_VERSION").into(), extensions })
    });
    let router = unary(router, infer, "ModelReady", predict, |infer, named: m::Named| async move {
        match infer.models.version(&named.name, &named.version).await {
            Err(InferError::Unavailable(_)) => Ok(m::Flag { value: false }),
            other => other.map(|_| m::Flag { value: true }),
        }
    });
    let router = unary(router, infer, "ModelMetadata", predict, metadata);
    let router = unary(router, infer, "ModelConfig", predict, config);
    let router = unary(router, infer, "ModelStatistics", predict, statistics);
    let router =
        unary(router, infer, "RepositoryIndex", predict, |infer, request: m::RepositoryIndexRequest| async move {
            let one = |i: super::service::Indexed| m::ModelIndex {
                name: i.name,
                version: i.version,
                state: i.state.into(),
                reason: i.reason,
            };
            Ok(m::RepositoryIndexResponse { models: infer.index(request.ready).await?.into_iter().map(one).collect() })
        });
    let router =
        unary(router, infer, "ModelInfer", predict, |infer, request| async move { scores(&infer, request).await });
    let shared = infer.clone();
    let stream = move |request: HttpRequest| {
        let infer = shared.clone();
        async move {
            if let Err(status) = admitted(&request, predict) {
                return status.into_http();
            }
            let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(infer.options.request_bytes);
            grpc.streaming(Answers(infer), request).await.map(Body::new)
        }
    };
    router.route(&format!("{SERVICE}/ModelStreamInfer"), post(stream)).route(
        &format!("{SERVICE}/{{method}}"),
        post(|| async { Status::unimplemented("the method is not offered").into_http::<Body>() }),
    )
}

/// Adds a method with one message in and one out.
fn unary<In, Out, F, A>(router: Router, infer: &Arc<Infer>, method: &str, scope: Option<Scope>, f: F) -> Router
where
    In: prost::Message + Default + 'static,
    Out: prost::Message + Default + 'static,
    F: Fn(Arc<Infer>, In) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Out, InferError>> + Send + 'static,
{
    let infer = infer.clone();
    let handler = move |request: HttpRequest| {
        let (infer, f) = (infer.clone(), f.clone());
        async move {
            if let Err(status) = admitted(&request, scope) {
                return status.into_http();
            }
            let codec: ProstCodec<Out, In> = ProstCodec::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(infer.options.request_bytes);
            grpc.unary(Unary { infer, f, _of: std::marker::PhantomData::<fn(In)> }, request).await.map(Body::new)
        }
    };
    router.route(&format!("{SERVICE}/{method}"), post(handler))
}

/// Whether the caller may do this; its token came as metadata, which is a header.
fn admitted(request: &HttpRequest, scope: Option<Scope>) -> Result<(), Status> {
    let Some(scope) = scope else { return Ok(()) };
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.may(scope) => Ok(()),
        Some(caller) => {
            let name = &caller.name;
            Err(Status::permission_denied(format!("`{name}` may not do this: its token needs the scope `{scope}`")))
        }
        None => Err(Status::unauthenticated("send the metadata `authorization: Bearer <token>`")),
    }
}

struct Unary<F, In> {
    infer: Arc<Infer>,
    f: F,
    _of: std::marker::PhantomData<fn(In)>,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

impl<In, Out, F, A> UnaryService<In> for Unary<F, In>
where
    Out: 'static,
    F: Fn(Arc<Infer>, In) -> A,
    A: Future<Output = Result<Out, InferError>> + Send + 'static,
{
    type Response = Out;
    type Future = Answer<Out>;

    fn call(&mut self, request: Request<In>) -> Answer<Out> {
        let answer = (self.f)(self.infer.clone(), request.into_inner());
        Box::pin(async move { answer.await.map(Response::new).map_err(Status::from) })
    }
}

/// Requests one after the other, each answered before the next is read: a stream is as fast as its reader.
struct Answers(Arc<Infer>);

impl StreamingService<m::ModelInferRequest> for Answers {
    type Response = m::ModelStreamInferResponse;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<m::ModelStreamInferResponse, Status>> + Send>>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<m::ModelInferRequest>>) -> Self::Future {
        let infer = self.0.clone();
        let answers = request.into_inner().then(move |request| {
            let infer = infer.clone();
            async move {
                let request = request?;
                let id = request.id.clone();
                // A client that asks for it is told which answer is a request's last; here each is.
                let marked = request.parameters.contains_key("triton_enable_empty_final_response");
                Ok(match scores(&infer, request).await {
                    Ok(mut response) => {
                        if marked {
                            let last = m::InferParameter { choice: Some(Choice::Bool(true)) };
                            response.parameters.insert("triton_final_response".to_owned(), last);
                        }
                        m::ModelStreamInferResponse { error: String::new(), response: Some(response) }
                    }
                    Err(error) => {
                        let response = Some(m::ModelInferResponse { id, ..Default::default() });
                        m::ModelStreamInferResponse { error: error.to_string(), response }
                    }
                })
            }
        });
        Box::pin(async move { Ok(Response::new(Box::pin(answers) as Self::ResponseStream)) })
    }
}

async fn metadata(infer: Arc<Infer>, named: m::Named) -> Result<m::ModelMetadataResponse, InferError> {
    let told = infer.metadata(&named.name, &named.version).await?;
    let tensors = |all: Vec<TensorMetadata>| {
        all.into_iter()
            .map(|t| m::TensorMetadata { name: t.name, datatype: t.datatype.into(), shape: t.shape })
            .collect()
    };
    Ok(m::ModelMetadataResponse {
        name: told.name,
        versions: told.versions,
        platform: told.platform.into(),
        inputs: tensors(told.inputs),
        outputs: tensors(told.outputs),
    })
}

async fn config(infer: Arc<Infer>, named: m::Named) -> Result<m::ModelConfigResponse, InferError> {
    let (version, inputs, outputs) = infer.config(&named.name, &named.version).await?;
    let settings = &version.settings;
    let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let policy = m::QueuePolicy {
        default_timeout_microseconds: micros(settings.timeout),
        allow_timeout_override: true,
        max_queue_size: u32::try_from(settings.queue).unwrap_or(u32::MAX),
    };
    let hash = m::ConfigParameter { string_value: version.model.hash().to_owned() };
    let config = m::ModelConfig {
        name: version.name.clone(),
        platform: PLATFORM.into(),
        max_batch_size: i32::try_from(settings.batch_rows).unwrap_or(i32::MAX),
        input: inputs
            .into_iter()
            .map(|t| m::ConfigInput { name: t.name, data_type: t.datatype.0, dims: t.dims })
            .collect(),
        output: outputs
            .into_iter()
            .map(|t| m::ConfigOutput { name: t.name, data_type: t.datatype.0, dims: t.dims })
            .collect(),
        dynamic_batching: Some(m::DynamicBatching {
            max_queue_delay_microseconds: micros(settings.batch_delay),
            default_queue_policy: Some(policy),
        }),
        parameters: [("sha256".to_owned(), hash)].into(),
        backend: NAME.into(),
        response_cache: Some(m::ResponseCache { enable: settings.cache_ttl.is_some() }),
    };
    Ok(m::ModelConfigResponse { config: Some(config) })
}

async fn statistics(infer: Arc<Infer>, named: m::Named) -> Result<m::ModelStatisticsResponse, InferError> {
    let duration = |t: Times| Some(m::Duration { count: t.count, ns: t.ns });
    let one = |(name, version, told): (String, String, Told)| {
        let s = &told.inference_stats;
        let batch = |b: &super::stats::Batch| m::BatchStatistics {
            batch_size: b.batch_size,
            compute_input: duration(b.compute_input),
            compute_infer: duration(b.compute_infer),
            compute_output: duration(b.compute_output),
        };
        m::ModelStatistics {
            name,
            version,
            last_inference: told.last_inference,
            inference_count: told.inference_count,
            execution_count: told.execution_count,
            inference_stats: Some(m::InferStatistics {
                success: duration(s.success),
                fail: duration(s.fail),
                queue: duration(s.queue),
                compute_input: duration(s.compute_input),
                compute_infer: duration(s.compute_infer),
                compute_output: duration(s.compute_output),
                cache_hit: duration(s.cache_hit),
                cache_miss: duration(s.cache_miss),
            }),
            batch_stats: told.batch_stats.iter().map(batch).collect(),
        }
    };
    let all = infer.statistics(&named.name, &named.version).await?;
    Ok(m::ModelStatisticsResponse { model_stats: all.into_iter().map(one).collect() })
}

async fn scores(infer: &Infer, request: m::ModelInferRequest) -> Result<m::ModelInferResponse, InferError> {
    let (name, version) = (request.model_name.clone(), request.model_version.clone());
    let inferred = infer.infer(&name, &version, read(request)?).await?;
    Ok(write(inferred))
}

/// Reads a request: tensors as bytes, one for each input, or as typed lists.
///
/// # Errors
/// What is wrong with it, by name.
fn read(request: m::ModelInferRequest) -> Result<Asked, InferError> {
    refuse(request.parameters.keys().map(String::as_str))?;
    let patience = match request.parameters.get("timeout").and_then(|p| p.choice.as_ref()) {
        None => None,
        Some(Choice::Int64(micros)) => patience(*micros)?,
        Some(Choice::Uint64(micros)) => patience(i64::try_from(*micros).unwrap_or(i64::MAX))?,
        Some(_) => return Err(InferError::Invalid("parameter \"timeout\" is a whole number of microseconds".into())),
    };
    let (has, raws) = (request.inputs.len(), request.raw.len());
    if raws != 0 && raws != has {
        return Err(InferError::Invalid(format!(
            "there are {raws} raw_input_contents for {has} inputs; there is one for each, or none"
        )));
    }
    let mut raw = request.raw.into_iter();
    let mut inputs = Vec::with_capacity(has);
    for input in request.inputs {
        let name = input.name;
        let wrong = |why: String| InferError::Invalid(format!("input {name:?} {why}"));
        refuse(input.parameters.keys().map(String::as_str))?;
        let datatype = Datatype::parse(&input.datatype).map_err(|why| wrong(format!("is not understood: {why}")))?;
        let (dims, count) = shape(&name, &input.shape)?;
        let data = match (raw.next(), input.contents) {
            (Some(_), Some(_)) => {
                return Err(wrong("has its data as bytes and as a list; one of the two is right".into()));
            }
            (None, None) => return Err(wrong("has no data".into())),
            (Some(raw), None) => from_raw(datatype, &raw, count).map_err(wrong)?,
            (None, Some(contents)) => from_contents(datatype, contents, count).map_err(wrong)?,
        };
        inputs.push(Given { name, datatype, shape: dims, data });
    }
    let mut outputs = Vec::with_capacity(request.outputs.len());
    for output in request.outputs {
        refuse(output.parameters.keys().map(String::as_str))?;
        outputs.push(Wanted { name: output.name, binary: true });
    }
    let outputs = (!outputs.is_empty()).then_some(outputs);
    Ok(Asked { id: request.id, inputs, outputs, binary: true, patience })
}

fn from_contents(datatype: Datatype, contents: m::Contents, count: usize) -> Result<Data, String> {
    use Datatype as D;
    let m::Contents { bools, ints, int64s, uints, uint64s, fp32s, fp64s, bytes } = contents;
    let lists =
        [bools.len(), ints.len(), int64s.len(), uints.len(), uint64s.len(), fp32s.len(), fp64s.len(), bytes.len()];
    let (name, at, data) = match datatype {
        D::Bool => ("bool_contents", 0, Data::Bool(bools)),
        D::Int8 | D::Int16 | D::Int32 => {
            ("int_contents", 1, whole_numbers(datatype, ints.into_iter().map(i128::from))?)
        }
        D::Int64 => ("int64_contents", 2, Data::I64(int64s)),
        D::Uint8 | D::Uint16 | D::Uint32 => {
            ("uint_contents", 3, whole_numbers(datatype, uints.into_iter().map(i128::from))?)
        }
        D::Uint64 => ("uint64_contents", 4, whole_numbers(datatype, uint64s.into_iter().map(i128::from))?),
        D::Fp32 => ("fp32_contents", 5, Data::F32(fp32s)),
        D::Fp64 => ("fp64_contents", 6, Data::F64(fp64s)),
        D::Fp16 => return Err("is FP16, which has no typed list; send raw_input_contents".to_owned()),
        D::Bytes => {
            let all = bytes.iter().enumerate().map(|(i, b)| text(b, i)).collect::<Result<_, _>>()?;
            ("bytes_contents", 7, Data::Text(all))
        }
    };
    if lists.iter().enumerate().any(|(i, n)| i != at && *n > 0) {
        return Err(format!("is {}, whose values belong into {name}", datatype.name()));
    }
    match lists[at] == count {
        true => Ok(data),
        false => Err(format!("has {} values in {name} where its shape has {count}", lists[at])),
    }
}

fn write(inferred: Inferred) -> m::ModelInferResponse {
    let mut response = m::ModelInferResponse {
        model_name: inferred.version.name.clone(),
        model_version: inferred.version.label.clone(),
        id: inferred.id,
        ..Default::default()
    };
    for output in inferred.outputs {
        let mut raw = Vec::with_capacity(output.datatype.size().unwrap_or(8) * output.tensor.len());
        to_raw(output.datatype, &output.tensor.data, &mut raw);
        debug_assert!(output.tensor.kind() == output.datatype.kind() || output.datatype.kind() == Kind::I64);
        response.raw.push(raw);
        response.outputs.push(m::Tensor {
            name: output.name,
            datatype: output.datatype.name().into(),
            shape: output.tensor.dims.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect(),
            ..Default::default()
        });
    }
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn request() -> m::ModelInferRequest {
        let input = m::Tensor { name: "X".into(), datatype: "FP32".into(), shape: vec![1, 2], ..Default::default() };
        let raw = vec![vec![0u8; 8].into()];
        m::ModelInferRequest { model_name: "m".into(), inputs: vec![input], raw, ..Default::default() }
    }

    #[test]
    fn bytes_and_typed_lists_are_read() {
        assert_eq!(read(request()).expect("a request").inputs[0].data, Data::F32(vec![0.0; 2]));
        let with = |datatype: &str, contents: m::Contents| {
            let mut request = request();
            request.raw.clear();
            request.inputs[0].datatype = datatype.into();
            request.inputs[0].contents = Some(contents);
            read(request).map(|asked| asked.inputs[0].data.clone())
        };
        let floats = m::Contents { fp32s: vec![1.0, 2.0], ..Default::default() };
        assert_eq!(with("FP32", floats.clone()).expect("floats"), Data::F32(vec![1.0, 2.0]));
        let texts = m::Contents { bytes: vec![b"a".to_vec(), b"b".to_vec()], ..Default::default() };
        assert_eq!(with("BYTES", texts).expect("texts"), Data::Text(vec!["a".into(), "b".into()]));
        for (datatype, contents, part) in [
            ("INT64", floats.clone(), "int64_contents"),
            ("FP16", floats, "FP16"),
            ("INT8", m::Contents { ints: vec![1, 300], ..Default::default() }, "300"),
            ("FP64", m::Contents { fp64s: vec![1.0], ..Default::default() }, "1 values"),
        ] {
            let error = with(datatype, contents).expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
        }
        let mut twice = request();
        twice.raw.push(Vec::new().into());
        assert!(read(twice).expect_err("too many").to_string().contains("2 raw_input_contents for 1 inputs"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn damaged_messages_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = request().encode_to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(request) = m::ModelInferRequest::decode(&bytes[..]) {
                let _ = read(request);
            }
        }
    }
}
