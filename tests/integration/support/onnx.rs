//! A model that gives out what it takes in: its scores are columns of the input. Written by hand, as protobuf.

/// Bytes of a field with a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 1 << 14, "two bytes of length are enough");
    let mut out = vec![number << 3 | 2, (bytes.len() & 0x7f) as u8 | 0x80, (bytes.len() >> 7) as u8];
    out.extend_from_slice(bytes);
    out
}

fn number(field: u8, value: u8) -> Vec<u8> {
    assert!(value < 128, "one byte is enough");
    vec![field << 3, value]
}

/// An ONNX file with the input `x` and the output `y`, both of rows of `width` doubles.
pub fn identity(width: u8) -> Vec<u8> {
    let shape = [field(1, &field(2, b"N")), field(1, &number(1, width))].concat();
    let tensor = [number(1, 11), field(2, &shape)].concat();
    let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
    let graph = [field(1, &node), field(2, b"identity"), field(11, &value(b"x")), field(12, &value(b"y"))].concat();
    [number(1, 8), field(7, &graph), field(8, &[field(1, b""), number(2, 17)].concat())].concat()
}
