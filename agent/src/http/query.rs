//! The query part of an address: pairs, percent-decoding, and its opposite for the redirect.

use std::borrow::Cow;

/// The pairs of a query, decoded. A part without `=` has an empty value.
pub(super) fn pairs(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        })
}

/// `%41` and `+` to what they stand for; a stray `%` stands for itself, and what is not UTF-8 is replaced.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(nibble(*high) << 4 | nibble(*low));
                rest = after;
            }
            (other, _) => out.push(*other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        other => (other | 0x20) - b'a' + 10,
    }
}

/// A path and query as they may stand in a `Location` header: whatever is not visible ASCII is percent-encoded.
pub(super) fn encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' => {
                out.push_str(&format!("%{byte:02X}"));
            }
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_nothing_in_them_panics() {
        let all = |q| {
            pairs(Some(q))
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join("|")
        };
        assert_eq!(all("a=1&b=%2Fx%20y+z&c"), "a=1|b=/x y z|c=");
        assert_eq!(all("&&a=%"), "a=%");
        assert_eq!(all("a=%4&b=%zz&c=%4a"), "a=%4|b=%zz|c=J");
        assert_eq!(all("%ff=%c3%a4"), "\u{fffd}=ä");
        assert_eq!(pairs(None).count(), 0);
    }

    #[test]
    fn a_path_cannot_break_out_of_its_header() {
        assert_eq!(encode_path("/a?b=c\r\nX: y ä"), "/a?b=c%0D%0AX:%20y%20%C3%A4");
    }
}
