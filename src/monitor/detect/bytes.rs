//! Numbers as bytes, little-endian.

/// Saved bytes are not what was saved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved state of a change detector is damaged: {0}")]
pub struct Damaged(pub &'static str);

/// Reads numbers from the front of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Damaged("it is too short"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next byte.
    ///
    /// # Errors
    /// When there is none.
    pub fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.take::<1>()?[0])
    }

    /// The next integer.
    ///
    /// # Errors
    /// When there is none.
    pub fn u64(&mut self) -> Result<u64, Damaged> {
        self.take().map(u64::from_le_bytes)
    }

    /// The next signed integer.
    ///
    /// # Errors
    /// When there is none.
    pub fn i64(&mut self) -> Result<i64, Damaged> {
        self.take().map(i64::from_le_bytes)
    }

    /// The next float.
    ///
    /// # Errors
    /// When there is none.
    pub fn f64(&mut self) -> Result<f64, Damaged> {
        self.take().map(f64::from_le_bytes)
    }

    /// The next truth value.
    ///
    /// # Errors
    /// When there is none.
    pub fn bool(&mut self) -> Result<bool, Damaged> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged("a truth value is neither")),
        }
    }

    /// The next text, behind its length.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = usize::try_from(self.u64()?).map_err(|_| Damaged("a text is too long"))?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Damaged("it is too short"))?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| Damaged("a text is not UTF-8"))
    }

    /// Whether everything is read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends a float.
pub fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends an integer.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
