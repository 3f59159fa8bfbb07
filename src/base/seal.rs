//! Bytes that tell their version and whether they are whole: the version's byte in front, a CRC-32 behind.

/// Ends bytes that begin with their version's byte.
pub fn seal(bytes: &mut Vec<u8>) {
    let crc = crc32fast::hash(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// What stands between the version, which must be this one, and the checksum.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub fn unseal(bytes: &[u8], version: u8) -> Result<&[u8], String> {
    const SHORT: &str = "it is cut short";
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(SHORT)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err("the checksum does not match".to_owned());
    }
    let (found, body) = body.split_first().ok_or(SHORT)?;
    if *found != version {
        return Err(format!("it is of version {found}; this program reads version {version}"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_whole() {
        let mut bytes = vec![3, 1, 2];
        seal(&mut bytes);
        assert_eq!(unseal(&bytes, 3).as_deref(), Ok(&[1, 2][..]));
        assert!(unseal(&bytes, 4).is_err_and(|what| what.contains("version 3")));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&damaged, 3).is_err(), "bit {bit}");
        }
        assert!((0..bytes.len()).all(|length| unseal(&bytes[..length], 3).is_err()));
        let mut nothing = Vec::new();
        seal(&mut nothing);
        assert!(unseal(&nothing, 0).is_err(), "no version");
    }
}
