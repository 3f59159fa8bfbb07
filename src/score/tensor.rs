//! Tensors: a shape and values, laid out row by row.

/// Values of one element type.
///
/// Every integer type of ONNX is held as `i64`: models use them for labels, indices and shapes only.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F64,
    I64,
    Bool,
    Text,
}

impl Kind {
    /// ONNX's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::F32 => "float",
            Kind::F64 => "double",
            Kind::I64 => "int64",
            Kind::Bool => "bool",
            Kind::Text => "string",
        }
    }

    /// From `TensorProto.DataType`; `None` for types that no model of ours needs.
    pub(crate) fn of_onnx(code: i32) -> Option<Kind> {
        match code {
            1 => Some(Kind::F32),
            11 => Some(Kind::F64),
            2..=7 | 12 | 13 => Some(Kind::I64),
            9 => Some(Kind::Bool),
            8 => Some(Kind::Text),
            _ => None,
        }
    }
}

/// A dense tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dims: Vec<usize>,
    pub(crate) data: Data,
}

impl Default for Tensor {
    fn default() -> Self {
        Tensor { dims: Vec::new(), data: Data::F32(Vec::new()) }
    }
}

macro_rules! accessors {
    ($get:ident, $set:ident, $variant:ident, $type:ty) => {
        /// The values, if they are of this type.
        pub(crate) fn $get(&self) -> Option<&[$type]> {
            match &self.data {
                Data::$variant(v) => Some(v),
                _ => None,
            }
        }

        /// Becomes a tensor of this type and shape and gives its values, unspecified, to be written.
        /// Keeps the allocation of an earlier run.
        pub(crate) fn $set(&mut self, dims: &[usize]) -> &mut [$type] {
            self.dims.clear();
            self.dims.extend_from_slice(dims);
            let n = dims.iter().product();
            if !matches!(self.data, Data::$variant(_)) {
                self.data = Data::$variant(Vec::new());
            }
            let Data::$variant(v) = &mut self.data else { unreachable!() };
            v.resize(n, <$type>::default());
            v
        }
    };
}

impl Tensor {
    pub(crate) fn new(dims: Vec<usize>, data: Data) -> Tensor {
        Tensor { dims, data }
    }

    pub(crate) fn kind(&self) -> Kind {
        match &self.data {
            Data::F32(_) => Kind::F32,
            Data::F64(_) => Kind::F64,
            Data::I64(_) => Kind::I64,
            Data::Bool(_) => Kind::Bool,
            Data::Text(_) => Kind::Text,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I64(v) => v.len(),
            Data::Bool(v) => v.len(),
            Data::Text(v) => v.len(),
        }
    }

    /// The shape as rows and row length, as the ai.onnx.ml operators see it: a vector is one row.
    pub(crate) fn rows(&self) -> (usize, usize) {
        match self.dims.as_slice() {
            [] => (1, 1),
            [k] => (1, *k),
            [n, rest @ ..] => (*n, rest.iter().product()),
        }
    }

    /// Values per index of the first axis.
    pub(crate) fn width(&self) -> usize {
        self.dims.iter().skip(1).product()
    }

    accessors!(f32s, set_f32, F32, f32);
    accessors!(f64s, set_f64, F64, f64);
    accessors!(i64s, set_i64, I64, i64);
    accessors!(bools, set_bool, Bool, bool);
    accessors!(texts, set_text, Text, String);

    /// The values as floats, whatever number they are.
    pub(crate) fn to_f32(&self) -> Option<std::borrow::Cow<'_, [f32]>> {
        use std::borrow::Cow;
        match &self.data {
            Data::F32(v) => Some(Cow::Borrowed(v)),
            Data::F64(v) => Some(Cow::Owned(v.iter().map(|&x| x as f32).collect())),
            Data::I64(v) => Some(Cow::Owned(v.iter().map(|&x| x as f32).collect())),
            Data::Bool(v) => Some(Cow::Owned(v.iter().map(|&x| x as u8 as f32).collect())),
            Data::Text(_) => None,
        }
    }

    /// Becomes a copy of `from` with another shape of equally many values.
    pub(crate) fn copy(&mut self, from: &Tensor, dims: &[usize]) {
        match &from.data {
            Data::F32(v) => self.set_f32(dims).copy_from_slice(v),
            Data::F64(v) => self.set_f64(dims).copy_from_slice(v),
            Data::I64(v) => self.set_i64(dims).copy_from_slice(v),
            Data::Bool(v) => self.set_bool(dims).copy_from_slice(v),
            Data::Text(v) => self.set_text(dims).clone_from_slice(v),
        }
    }
}
