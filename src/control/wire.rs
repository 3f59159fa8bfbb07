//! HTTP/1.1 answers as they come over a connection that the server closes.

/// Status and body of an HTTP answer that the end of the connection ends.
pub fn parse(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut body = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        let mut whole = Vec::new();
        loop {
            let line = body.windows(2).position(|w| w == b"\r\n")?;
            let size = std::str::from_utf8(&body[..line]).ok()?.split(';').next()?.trim();
            let size = usize::from_str_radix(size, 16).ok()?;
            body = &body[line + 2..];
            if size == 0 {
                return Some((status, whole));
            }
            whole.extend_from_slice(body.get(..size)?);
            body = body.get(size + 2..)?;
        }
    }
    match header("content-length") {
        Some(length) => Some((status, body.get(..length.parse().ok()?)?.to_vec())),
        None => Some((status, body.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let body = |text: &str| parse(text.as_bytes()).map(|(s, b)| (s, String::from_utf8(b).expect("text")));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), Some((200, "ab".into())));
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab"), None);
        assert_eq!(body("HTTP/1.1 404 Not Found\r\n\r\n"), Some((404, String::new())));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n";
        assert_eq!(body(chunked), Some((200, "abc".into())));
        assert_eq!(body(&chunked[..chunked.len() - 8]), None, "cut short");
        assert_eq!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab"), None);
        assert_eq!(body("nonsense"), None);
    }
}
