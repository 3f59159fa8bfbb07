//! A controller as bytes.

use super::Controller;
use crate::base::{seal, unseal};

/// Version of the bytes; raise it when [`Controller`] changes.
const VERSION: u8 = 1;

/// Why saved bytes are no controller.
#[derive(Debug, thiserror::Error)]
#[error("the saved state of a rollout cannot be read: {0}; restore from an older checkpoint")]
pub struct SavedError(String);

impl Controller {
    /// Its state: the version, the state as JSON, a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        // Maps have numbers and names as keys, and writing to memory cannot fail.
        serde_json::to_writer(&mut bytes, self).expect("a controller is JSON");
        seal(&mut bytes);
        bytes
    }

    /// The controller that was encoded.
    ///
    /// # Errors
    /// When the bytes are damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Controller, SavedError> {
        let body = unseal(bytes, VERSION).map_err(SavedError)?;
        serde_json::from_slice(body).map_err(|e| SavedError(e.to_string()))
    }
}
