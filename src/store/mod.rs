//! Online and offline feature values.
