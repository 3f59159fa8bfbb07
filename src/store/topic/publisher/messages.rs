//! Encoded messages on their way to a producer, in one buffer.

/// Messages to one topic, in their order.
#[derive(Debug, Default)]
pub struct Messages {
    /// Headers of every message.
    common: Vec<(&'static str, Vec<u8>)>,
    /// Of each message its key, its payload and the values of its own headers.
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// Names of messages' own headers, and where their values end.
    headers: Vec<(&'static str, usize)>,
}

#[derive(Debug)]
struct Row {
    keyed: bool,
    key_end: usize,
    payload_end: usize,
    headers: u16,
}

/// A message as it goes to the producer.
pub(super) struct Message<'a> {
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
    /// Names and values.
    pub headers: Vec<(&'static str, &'a [u8])>,
}

impl Messages {
    /// None yet; each will have these headers, by name and value, before its own.
    pub fn new(common: Vec<(&'static str, Vec<u8>)>) -> Messages {
        Messages { common, ..Messages::default() }
    }

    /// Adds a message: `key` appends its key and says whether it has one, `payload` appends its payload.
    pub fn push(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>) -> bool,
        payload: impl FnOnce(&mut Vec<u8>),
        headers: &[(&'static str, &[u8])],
    ) {
        let keyed = key(&mut self.bytes);
        let key_end = self.bytes.len();
        payload(&mut self.bytes);
        let payload_end = self.bytes.len();
        for (name, value) in headers {
            self.bytes.extend_from_slice(value);
            self.headers.push((name, self.bytes.len()));
        }
        self.rows.push(Row { keyed, key_end, payload_end, headers: headers.len() as u16 });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of keys, payloads and own headers.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether messages have no headers but their own.
    pub(super) fn is_plain(&self) -> bool {
        self.common.is_empty()
    }

    /// Gives the messages to `take`, one by one, until it returns false.
    pub(super) fn each(&self, mut take: impl FnMut(&Message<'_>) -> bool) {
        let common = self.common.iter().map(|(name, value)| (*name, value.as_slice()));
        let mut message = Message { key: None, payload: &[], headers: common.collect() };
        let (mut start, mut own) = (0, self.headers.iter());
        for row in &self.rows {
            message.key = row.keyed.then(|| &self.bytes[start..row.key_end]);
            message.payload = &self.bytes[row.key_end..row.payload_end];
            start = row.payload_end;
            message.headers.truncate(self.common.len());
            for (name, end) in own.by_ref().take(usize::from(row.headers)) {
                message.headers.push((name, &self.bytes[start..*end]));
                start = *end;
            }
            if !take(&message) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_put_in() {
        let mut messages = Messages::new(vec![("job", b"j".to_vec())]);
        let put = |text: &'static [u8]| move |out: &mut Vec<u8>| out.extend_from_slice(text);
        let key = |text: &'static [u8]| {
            move |out: &mut Vec<u8>| {
                out.extend_from_slice(text);
                true
            }
        };
        messages.push(key(b"k1"), put(b"one"), &[]);
        messages.push(|_| false, put(b"two"), &[("kind", b"late"), ("none", b"")]);
        messages.push(key(b""), put(b""), &[]);
        messages.push(|_| false, put(b"four"), &[("kind", b"bad")]);
        let mut found = Vec::new();
        messages.each(|message| {
            let headers: Vec<_> = message.headers.iter().map(|(name, value)| (*name, value.to_vec())).collect();
            found.push((message.key.map(<[u8]>::to_vec), message.payload.to_vec(), headers));
            true
        });
        let job = ("job", b"j".to_vec());
        let expected = vec![
            (Some(b"k1".to_vec()), b"one".to_vec(), vec![job.clone()]),
            (None, b"two".to_vec(), vec![job.clone(), ("kind", b"late".to_vec()), ("none", Vec::new())]),
            (Some(Vec::new()), Vec::new(), vec![job.clone()]),
            (None, b"four".to_vec(), vec![job, ("kind", b"bad".to_vec())]),
        ];
        assert_eq!(found, expected);
        assert_eq!((messages.len(), messages.bytes()), (4, 2 + 3 + 3 + 4 + 4 + 3));
    }

    #[test]
    fn it_ends_where_the_taker_says() {
        let mut messages = Messages::default();
        (0..5).for_each(|n| messages.push(|_| false, |out| out.push(n), &[]));
        let mut seen = 0;
        messages.each(|message| {
            seen += 1;
            message.payload[0] < 2
        });
        assert_eq!(seen, 3);
    }
}
