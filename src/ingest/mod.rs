//! Sources, decoding, checks, dead letters.
