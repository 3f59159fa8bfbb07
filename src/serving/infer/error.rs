//! What can go wrong with a request for scores, as HTTP and as gRPC tell it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tonic::{Code, Status};

/// An error of a request for scores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The request is not one that the model can take.
    #[error("{0}")]
    Invalid(String),
    /// There is no such model or version.
    #[error("{0}")]
    NotFound(String),
    /// The request is longer than it may be.
    #[error("{0}")]
    TooLarge(String),
    /// The body is compressed in a way that is not understood.
    #[error("{0}")]
    Encoding(String),
    /// Too much is waiting already.
    #[error("{0}")]
    Full(String),
    /// It took too long.
    #[error("{0}")]
    Late(String),
    /// The model cannot be had now.
    #[error("{0}")]
    Unavailable(String),
    /// A defect of ours.
    #[error("{0}")]
    Internal(String),
}

impl InferError {
    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            InferError::Invalid(_) => StatusCode::BAD_REQUEST,
            InferError::NotFound(_) => StatusCode::NOT_FOUND,
            InferError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            InferError::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            InferError::Full(_) | InferError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            InferError::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            InferError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<InferError> for Status {
    fn from(error: InferError) -> Status {
        let code = match &error {
            InferError::Invalid(_) => Code::InvalidArgument,
            InferError::NotFound(_) => Code::NotFound,
            InferError::TooLarge(_) => Code::OutOfRange,
            InferError::Encoding(_) => Code::Unimplemented,
            InferError::Full(_) => Code::ResourceExhausted,
            InferError::Unavailable(_) => Code::Unavailable,
            InferError::Late(_) => Code::DeadlineExceeded,
            InferError::Internal(_) => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

impl IntoResponse for InferError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": self.to_string()}).to_string();
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status(), [(header::CONTENT_TYPE, json)], body).into_response();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
