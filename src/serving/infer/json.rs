//! The protocol's JSON, with tensors in bytes behind it where a request or an answer has such.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::datatype::{Datatype, InJson, Scalars, from_json, from_raw, to_raw};
use super::error::InferError;
use super::request::{Given, Request, Wanted, shape};
use super::service::{Inferred, Output};

/// Parameters, of requests and of tensors.
type Parameters = BTreeMap<String, Value>;

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: Parameters,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<RequestedOutput>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    data: Option<Scalars>,
}

#[derive(Deserialize)]
struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Parameters of the protocol and its extensions that are not offered here, and why not.
const REFUSED: [(&str, &str); 7] = [
    ("classification", "classes of outputs are not ranked here; take the output as it is"),
    ("shared_memory_region", "tensors in shared memory are not offered; send them in the request"),
    ("shared_memory_byte_size", "tensors in shared memory are not offered; send them in the request"),
    ("shared_memory_offset", "tensors in shared memory are not offered; send them in the request"),
    ("sequence_id", "models here keep nothing from request to request"),
    ("sequence_start", "models here keep nothing from request to request"),
    ("priority", "requests are scored in the order of their arrival"),
];

/// Refuses what is not offered, by name.
///
/// # Errors
/// The first such name.
pub(super) fn refuse<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), InferError> {
    for name in names {
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(InferError::Invalid(format!("parameter {name:?}: {why}")));
        }
    }
    Ok(())
}

/// How long a client would wait, from its parameter in microseconds; 0 is as long as the server does.
pub(super) fn patience(micros: i64) -> Result<Option<Duration>, InferError> {
    let micros = u64::try_from(micros).map_err(|_| {
        InferError::Invalid(format!("parameter \"timeout\" is {micros}; it is in microseconds and not negative"))
    })?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, InferError> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(InferError::Invalid(format!("parameter {name:?} is {other}; it is true or false"))),
    }
}

/// Reads a request. Of a body with tensors in bytes, `header` bytes are JSON and the bytes follow, in the order of the inputs.
///
/// # Errors
/// What is wrong with it, by name.
pub(super) fn read(body: &[u8], header: Option<usize>) -> Result<Request, InferError> {
    let invalid = |why: String| InferError::Invalid(why);
    let (json, mut raw) = match header {
        None => (body, &[][..]),
        Some(length) if length <= body.len() => body.split_at(length),
        Some(length) => {
            let has = body.len();
            return Err(invalid(format!("Inference-Header-Content-Length is {length}, and the body has {has} bytes")));
        }
    };
    let body: Body =
        serde_json::from_slice(json).map_err(|error| invalid(format!("the request is not understood: {error}")))?;
    refuse(body.parameters.keys().map(String::as_str))?;
    let patience = match body.parameters.get("timeout") {
        None => None,
        Some(value) => patience(value.as_i64().unwrap_or(-1))?,
    };
    let binary = flag(&body.parameters, "binary_data_output")?.unwrap_or(false);
    let mut inputs = Vec::with_capacity(body.inputs.len());
    for input in body.inputs {
        let name = input.name;
        let wrong = |why: String| InferError::Invalid(format!("input {name:?} {why}"));
        refuse(input.parameters.keys().map(String::as_str))?;
        let datatype = Datatype::parse(&input.datatype).map_err(|why| wrong(format!("is not understood: {why}")))?;
        let (dims, count) = shape(&name, &input.shape)?;
        let data = match (input.parameters.get("binary_data_size"), input.data) {
            (Some(_), Some(_)) => {
                return Err(wrong("has its data in JSON and in bytes; one of the two is right".into()));
            }
            (None, None) => return Err(wrong("has no data".into())),
            (None, Some(values)) => from_json(datatype, values, count).map_err(wrong)?,
            (Some(size), None) => {
                let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
                let Some(size) = size.filter(|size| *size <= raw.len()) else {
                    let announced = &input.parameters["binary_data_size"];
                    return Err(wrong(format!(
                        "announces {announced} bytes, and {} are left behind the JSON",
                        raw.len()
                    )));
                };
                let (own, rest) = raw.split_at(size);
                raw = rest;
                from_raw(datatype, own, count).map_err(wrong)?
            }
        };
        inputs.push(Given { name, datatype, shape: dims, data });
    }
    if !raw.is_empty() {
        return Err(invalid(format!("{} bytes behind the JSON belong to no input", raw.len())));
    }
    let mut outputs = Vec::with_capacity(body.outputs.len());
    for output in body.outputs {
        refuse(output.parameters.keys().map(String::as_str))?;
        let binary = flag(&output.parameters, "binary_data")?.unwrap_or(binary);
        outputs.push(Wanted { name: output.name, binary });
    }
    let outputs = (!outputs.is_empty()).then_some(outputs);
    Ok(Request { id: body.id, inputs, outputs, binary, patience })
}

#[derive(Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    outputs: Vec<AnswerOutput<'a>>,
}

#[derive(Serialize)]
struct AnswerOutput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<InJson<'a>>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

/// Writes an answer, and how many of its bytes are JSON if tensors in bytes follow.
///
/// # Errors
/// None that data could cause.
pub(super) fn write(inferred: &Inferred) -> Result<(Vec<u8>, Option<usize>), InferError> {
    let mut raw = Vec::new();
    let mut outputs = Vec::with_capacity(inferred.outputs.len());
    let mut any = false;
    for Output { name, datatype, tensor, binary } in &inferred.outputs {
        let before = raw.len();
        let (parameters, data) = if *binary {
            any = true;
            to_raw(*datatype, &tensor.data, &mut raw);
            (Some(BinarySize { binary_data_size: raw.len() - before }), None)
        } else {
            (None, Some(InJson(tensor)))
        };
        outputs.push(AnswerOutput { name, datatype: datatype.name(), shape: &tensor.dims, parameters, data });
    }
    let version = &inferred.version;
    let answer = Answer { model_name: &version.name, model_version: &version.label, id: &inferred.id, outputs };
    let mut body = serde_json::to_vec(&answer).map_err(|error| InferError::Internal(error.to_string()))?;
    let header = any.then_some(body.len());
    body.append(&mut raw);
    Ok((body, header))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::score::tensor::Data;

    const PLAIN: &str = r#"{"id":"7","inputs":[{"name":"X","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4.5]]}],
        "outputs":[{"name":"p","parameters":{"binary_data":true}}],"parameters":{"timeout":5000,"mine":"x"}}"#;

    fn binary() -> (Vec<u8>, usize) {
        let json = r#"{"inputs":[{"name":"X","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}"#;
        let mut body = json.as_bytes().to_vec();
        body.extend(1.0f32.to_le_bytes());
        body.extend(2.0f32.to_le_bytes());
        (body, json.len())
    }

    #[test]
    fn requests_are_read() {
        let request = read(PLAIN.as_bytes(), None).expect("a request");
        assert_eq!(request.inputs[0].data, Data::F32(vec![1.0, 2.0, 3.0, 4.5]));
        assert_eq!(request.outputs, Some(vec![Wanted { name: "p".into(), binary: true }]));
        assert_eq!((request.id.as_str(), request.patience), ("7", Some(Duration::from_millis(5))));
        let (body, header) = binary();
        let request = read(&body, Some(header)).expect("a request");
        assert_eq!((request.inputs[0].data.clone(), request.binary), (Data::F32(vec![1.0, 2.0]), true));
    }

    #[test]
    fn faults_are_named() {
        let (body, header) = binary();
        for (body, header, part) in [
            (&body[..], Some(header + 9), "the body has"),
            (&body[..body.len() - 1], Some(header), "announces 8 bytes, and 7 are left"),
            (&[&body[..], b"x"].concat()[..], Some(header), "1 bytes behind the JSON"),
            (&body[..], None, "not understood"),
            (br#"{"inputs":[{"name":"X","shape":[-1],"datatype":"FP32","data":[1]}]}"#, None, "negative"),
            (
                br#"{"inputs":[{"name":"X","shape":[9223372036854775807,9],"datatype":"FP32","data":[1]}]}"#,
                None,
                "more values",
            ),
            (br#"{"inputs":[{"name":"X","shape":[1],"datatype":"FP8","data":[1]}]}"#, None, "FP8"),
            (br#"{"inputs":[{"name":"X","shape":[1],"datatype":"FP32"}]}"#, None, "no data"),
            (br#"{"inputs":[],"parameters":{"sequence_id":3}}"#, None, "sequence_id"),
            (br#"{"inputs":[],"parameters":{"timeout":-3}}"#, None, "timeout"),
            (br#"{"inputs":[],"outputs":[{"name":"p","parameters":{"classification":2}}]}"#, None, "classification"),
        ] {
            let error = read(body, header).expect_err(part);
            assert!(matches!(error, InferError::Invalid(_)) && error.to_string().contains(part), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Requests with bytes changed, lost and added are read or refused; nothing else happens.
        #[test]
        fn damaged_requests_do_no_harm(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(), shorten in any::<bool>(), header in prop_oneof![Just(None), (0usize..400).prop_map(Some)],
            own in any::<bool>(),
        ) {
            let (mut body, length) = binary();
            for (at, byte) in changes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if shorten {
                body.truncate(cut.index(body.len()));
            }
            let _ = read(&body, if own { Some(length) } else { header });
        }

        #[test]
        fn noise_does_no_harm(body in prop::collection::vec(any::<u8>(), 0..200), header in prop::option::of(0usize..220)) {
            let _ = read(&body, header);
        }
    }
}
