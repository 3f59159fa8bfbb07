//! Reading ONNX's protobuf messages: attributes, tensors, operator-set versions.

use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, TensorProto, tensor_proto};

use super::tensor::{Data, Kind, Tensor};

/// Versions of the operator sets that a model imports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opsets {
    /// `ai.onnx`.
    pub(crate) plain: i64,
    /// `ai.onnx.ml`.
    pub(crate) ml: i64,
}

impl Opsets {
    pub(crate) fn of(model: &ModelProto) -> Opsets {
        let version = |names: &[&str], default| {
            model.opset_import.iter().find(|o| names.contains(&o.domain.as_str())).map_or(default, |o| o.version)
        };
        Opsets { plain: version(&["", "ai.onnx"], 17), ml: version(&["ai.onnx.ml"], 3) }
    }
}

/// A node's attributes by name.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a NodeProto);

impl<'a> Attributes<'a> {
    fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|a| a.name == name)
    }

    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        self.find(name).map(|a| a.f)
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.find(name).map(|a| a.i)
    }

    pub(crate) fn text(&self, name: &str) -> Option<Result<&'a str, String>> {
        self.find(name).map(|a| std::str::from_utf8(&a.s).map_err(|_| format!("attribute {name} is not UTF-8")))
    }

    pub(crate) fn floats(&self, name: &str) -> &'a [f32] {
        self.find(name).map_or(&[], |a| &a.floats)
    }

    pub(crate) fn ints(&self, name: &str) -> &'a [i64] {
        self.find(name).map_or(&[], |a| &a.ints)
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        self.find(name).map_or(Ok(Vec::new()), |a| {
            a.strings
                .iter()
                .map(|s| String::from_utf8(s.clone()).map_err(|_| format!("attribute {name} is not UTF-8")))
                .collect()
        })
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor>, String> {
        match self.find(name).and_then(|a| a.t.as_ref()) {
            Some(t) => tensor(t).map(Some).map_err(|e| format!("attribute {name}: {e}")),
            None => Ok(None),
        }
    }

    /// Floats of an attribute, or of its double-precision twin `<name>_as_tensor`.
    pub(crate) fn floats_or_tensor(&self, name: &str) -> Result<Vec<f64>, String> {
        match self.tensor(&format!("{name}_as_tensor"))? {
            Some(Tensor { data: Data::F64(v), .. }) => Ok(v),
            Some(Tensor { data: Data::F32(v), .. }) => Ok(v.iter().map(|&x| x.into()).collect()),
            Some(t) => Err(format!("attribute {name}_as_tensor holds {}", t.kind().name())),
            None => Ok(self.floats(name).iter().map(|&x| x.into()).collect()),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

/// A tensor out of its message. Data beside the file (`data_location: EXTERNAL`) is refused: a model is one file here, so that its
/// hash names it.
pub(crate) fn tensor(t: &TensorProto) -> Result<Tensor, String> {
    if t.data_location == Some(tensor_proto::DataLocation::External as i32) {
        return Err("keeps its values in another file; save the model as one file".into());
    }
    let kind = Kind::of_onnx(t.data_type)
        .ok_or_else(|| format!("has element type {}, which is not supported", t.data_type))?;
    let dims: Vec<usize> = t
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| format!("has the dimension {d}")))
        .collect::<Result<_, _>>()?;
    let n = dims.iter().try_fold(1usize, |a, &b| a.checked_mul(b)).ok_or("is too large")?;
    let raw = !t.raw_data.is_empty();
    let data = match kind {
        Kind::F32 if raw => Data::F32(little_endian(&t.raw_data, f32::from_le_bytes)),
        Kind::F32 => Data::F32(t.float_data.clone()),
        Kind::F64 if raw => Data::F64(little_endian(&t.raw_data, f64::from_le_bytes)),
        Kind::F64 => Data::F64(t.double_data.clone()),
        Kind::Bool if raw => Data::Bool(t.raw_data.iter().map(|&b| b != 0).collect()),
        Kind::Bool => Data::Bool(t.int32_data.iter().map(|&b| b != 0).collect()),
        Kind::Text => Data::Text(
            t.string_data
                .iter()
                .map(|s| String::from_utf8(s.clone()).map_err(|_| "holds text that is not UTF-8".to_string()))
                .collect::<Result<_, _>>()?,
        ),
        Kind::I64 => Data::I64(match (t.data_type, raw) {
            (2, true) => t.raw_data.iter().map(|&b| b.into()).collect(),
            (3, true) => t.raw_data.iter().map(|&b| (b as i8).into()).collect(),
            (4, true) => little_endian(&t.raw_data, |b| u16::from_le_bytes(b).into()),
            (5, true) => little_endian(&t.raw_data, |b| i16::from_le_bytes(b).into()),
            (6, true) => little_endian(&t.raw_data, |b| i32::from_le_bytes(b).into()),
            (12, true) => little_endian(&t.raw_data, |b| u32::from_le_bytes(b).into()),
            (_, true) => little_endian(&t.raw_data, i64::from_le_bytes),
            (7, false) => t.int64_data.clone(),
            (12 | 13, false) => t.uint64_data.iter().map(|&x| x as i64).collect(),
            (_, false) => t.int32_data.iter().map(|&x| x.into()).collect(),
        }),
    };
    let tensor = Tensor::new(dims, data);
    if tensor.len() != n {
        return Err(format!("holds {} values where its shape {:?} needs {n}", tensor.len(), tensor.dims));
    }
    Ok(tensor)
}

fn little_endian<const B: usize, T>(bytes: &[u8], read: impl Fn([u8; B]) -> T) -> Vec<T> {
    bytes.as_chunks::<B>().0.iter().map(|&c| read(c)).collect()
}
