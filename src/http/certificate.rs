//! What the server needs to know of an X.509 certificate: its names, and when it ends.
//!
//! Read from DER by hand, for that is all that is needed: signatures and validity are checked by rustls before.

use std::path::Path;

use tokio_rustls::rustls::pki_types::CertificateDer;

/// What a certificate says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// DNS names, addresses and URIs of the subject's alternative names; its common names where there are none of these.
    pub names: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub ends: Option<i64>,
}

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// Reads one. What is not understood is left out.
pub(super) fn facts(certificate: &CertificateDer<'_>) -> Facts {
    let mut facts = Facts::default();
    // A certificate that ends too early is told as far as it goes.
    let _ = read(certificate, &mut facts);
    facts
}

/// When the first certificate of a PEM file ends, in seconds since 1970.
pub(super) fn ends(path: &Path) -> Option<i64> {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    facts(&CertificateDer::from_pem_file(path).ok()?).ends
}

fn read(der: &[u8], facts: &mut Facts) -> Option<()> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    let mut next = || {
        let (tag, content, after) = element(rest)?;
        rest = after;
        Some((tag, content))
    };
    // The version is optional; then number, algorithm and issuer.
    if next()?.0 == 0xa0 {
        next()?;
    }
    next()?;
    next()?;
    let (_, validity) = next()?;
    let (_, _, after) = element(validity)?;
    let (tag, ends, _) = element(after)?;
    facts.ends = time(tag, ends);
    let (_, subject) = next()?;
    next()?;
    while let Some((tag, content)) = next() {
        if tag == 0xa3 {
            let (_, list, _) = element(content)?;
            each(list, |_, extension| alternative_names(extension, &mut facts.names));
        }
    }
    if facts.names.is_empty() {
        // A list of sets of pairs.
        each(subject, |_, set| {
            each(set, |_, pair| {
                if let Some((OID, COMMON_NAME, value)) = element(pair)
                    && let Some((_, text, _)) = element(value)
                {
                    facts.names.extend(std::str::from_utf8(text).ok().map(str::to_owned));
                }
            });
        });
    }
    Some(())
}

fn alternative_names(extension: &[u8], names: &mut Vec<String>) {
    let Some((OID, ALTERNATIVE_NAMES, mut rest)) = element(extension) else { return };
    // Whether it is critical may stand in between.
    while let Some((tag, content, after)) = element(rest) {
        rest = after;
        if tag == 0x04
            && let Some((SEQUENCE, list, _)) = element(content)
        {
            each(list, |tag, name| {
                // An address of mail, a DNS name, a URI.
                if matches!(tag, 0x81 | 0x82 | 0x86) {
                    names.extend(std::str::from_utf8(name).ok().map(str::to_owned));
                }
            });
        }
    }
}

fn each(mut list: &[u8], mut what: impl FnMut(u8, &[u8])) {
    while let Some((tag, content, rest)) = element(list) {
        what(tag, content);
        list = rest;
    }
}

/// The first element: its tag, its content, and what is behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if digits.is_empty() || digits.len() > 4 {
                return None;
            }
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A time in UTC: `YYMMDDHHMMSSZ`, or with four digits for the year.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let year: i64 = text.get(..2)?.parse().ok()?;
            (year + if year < 50 { 2000 } else { 1900 }, text.get(2..)?)
        }
        0x18 => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2);
    let text = format!("{year:04}-{}-{}T{}:{}:{}Z", two(0)?, two(2)?, two(4)?, two(6)?, two(8)?);
    crate::base::parse_time(&text).ok().map(|time| time / 1_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut der = vec![tag, 0x82];
        der.extend((content.len() as u16).to_be_bytes());
        der.extend(content);
        der
    }

    fn certificate(alternative: &[(u8, &str)]) -> Vec<u8> {
        let pair = put(SEQUENCE, &[put(OID, COMMON_NAME), put(0x0c, b"common")].concat());
        let subject = put(SEQUENCE, &put(0x31, &pair));
        let names: Vec<u8> = alternative.iter().flat_map(|(tag, name)| put(*tag, name.as_bytes())).collect();
        let extension = [put(OID, ALTERNATIVE_NAMES), put(0x01, &[0xff]), put(0x04, &put(SEQUENCE, &names))].concat();
        let extensions = put(0xa3, &put(SEQUENCE, &put(SEQUENCE, &extension)));
        let validity = [put(0x17, b"260101000000Z"), put(0x18, b"20510203040506Z")].concat();
        let parts = [
            put(0xa0, &put(0x02, &[2])),
            put(0x02, &[1]),
            put(SEQUENCE, b""),
            put(SEQUENCE, b""),
            put(SEQUENCE, &validity),
            subject,
            put(SEQUENCE, b"key"),
            if alternative.is_empty() { Vec::new() } else { extensions },
        ];
        put(SEQUENCE, &put(SEQUENCE, &parts.concat()))
    }

    #[test]
    fn names_and_the_end_are_read() {
        let read = |der: Vec<u8>| facts(&CertificateDer::from(der));
        let plain = read(certificate(&[]));
        assert_eq!(plain, Facts { names: vec!["common".to_owned()], ends: Some(2_559_009_906) });
        let more = read(certificate(&[(0x82, "a.example.com"), (0x87, "\u{1}"), (0x86, "spiffe://x/y")]));
        assert_eq!(more.names, ["a.example.com", "spiffe://x/y"], "the common name does not count then");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            facts(&CertificateDer::from(bytes));
            let mut der = certificate(&[(0x82, "a.example.com")]);
            let at = at.index(der.len());
            der[at] = byte;
            facts(&CertificateDer::from(der.clone()));
            der.truncate(at);
            facts(&CertificateDer::from(der));
        }
    }
}
