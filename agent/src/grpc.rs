//! The messages of `grpc.health.v1.Health`, of which this program asks and answers: so small that they are written and
//! read by hand (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>). No sockets, no HTTP.

/// The method that is answered once.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";
/// The method that is answered at each change.
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// `ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Active.
    Serving = 1,
    /// Not active.
    NotServing = 2,
    /// There is no such service; in answers of Watch alone.
    ServiceUnknown = 3,
}

/// The length-prefixed `HealthCheckRequest { string service = 1; }`.
pub fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a); // field 1, of bytes
        varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX); // a configured name is short
    let mut question = vec![0]; // not compressed
    question.extend_from_slice(&length.to_be_bytes());
    question.extend_from_slice(&message);
    question
}

/// `service` of a length-prefixed `HealthCheckRequest`; other fields are passed over. `None` if it is none.
pub fn service(question: &[u8]) -> Option<&str> {
    let mut fields = Fields(message(question)?);
    let mut service: &[u8] = &[]; // what is not there is empty
    while !fields.0.is_empty() {
        if let (1, Field::Bytes(bytes)) = fields.next()? {
            service = bytes;
        }
    }
    std::str::from_utf8(service).ok()
}

/// The length-prefixed `HealthCheckResponse { ServingStatus status = 1; }`.
pub fn answer(serving: Serving) -> [u8; 7] {
    [0, 0, 0, 0, 2, 0x08, serving as u8]
}

/// `status` of a length-prefixed `HealthCheckResponse`; other fields are passed over. `None` if it is none.
pub fn status(answer: &[u8]) -> Option<u64> {
    let mut fields = Fields(message(answer)?);
    let mut status = 0; // what is not there is zero
    while !fields.0.is_empty() {
        if let (1, Field::Number(number)) = fields.next()? {
            status = number;
        }
    }
    Some(status)
}

/// What is behind the prefix: one whole message, and nothing else.
fn message(framed: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = framed.split_at_checked(5)?;
    let [0, length @ ..] = prefix else {
        return None; // compressed, though nobody said that we understand that
    };
    let length = length
        .iter()
        .fold(0, |n: usize, byte| n << 8 | usize::from(*byte));
    (length == message.len()).then_some(message)
}

fn varint(mut n: usize, into: &mut Vec<u8>) {
    while n >= 0x80 {
        into.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    into.push(n as u8);
}

/// Fields of a protobuf message that are still to be read.
struct Fields<'a>(&'a [u8]);

/// A field's value, as far as these messages have such.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Fields<'a> {
    /// The next field's number and value.
    fn next(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut n = 0;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let name = "x".repeat(256);
        let long = question(&name);
        assert_eq!(long[..8], [0, 0, 0, 1, 3, 0x0a, 0x80, 2]);
        assert_eq!(long.len(), 5 + 3 + 256);
        for name in ["", "ab", &name] {
            assert_eq!(service(&question(name)), Some(name));
        }
    }

    #[test]
    fn only_a_whole_question_has_a_service() {
        for (question, expected) in [
            (&[0, 0, 0, 0, 5, 0x10, 7, 0x0a, 1, b'a'][..], Some("a")),
            (&[1, 0, 0, 0, 0], None),
            (&[0, 0, 0, 0, 3, 0x0a, 2, b'a'], None),
            (&[0, 0, 0, 0, 3, 0x0a, 1, 0xff], None),
            (&[0, 0, 0, 0, 1], None),
            (&[0, 0, 0, 0], None),
        ] {
            assert_eq!(service(question), expected, "{question:?}");
        }
    }

    #[test]
    fn only_a_whole_message_has_a_status() {
        for (answer, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 3, 8, 0x81, 0], Some(1)),
            (&answer(Serving::ServiceUnknown), Some(3)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[0, 0, 0, 0, 2, 8], None),
            (&[0, 0, 0, 0, 2, 8, 0x80], None),
            (&[0, 0, 0, 0, 2, 0x12, 0x7f], None),
            (&[0, 0, 0, 0, 2, 0x0b, 1], None),
            (&[0, 0, 0], None),
            (&[], None),
        ] {
            assert_eq!(status(answer), expected, "{answer:?}");
        }
    }
}
