//! ONNX models and prediction records.
