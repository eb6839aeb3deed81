//! XDR (RFC 4506), bounded and borrowing: nothing is allocated by decoding, and an opaque longer than
//! what the caller allows, or than what is there, is an error before it is anything else.

/// The bytes are no legal encoding of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed XDR")]
pub struct Malformed;

/// Reads XDR items off a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Unsigned integer.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let (head, rest) = self.0.split_first_chunk::<4>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*head))
    }

    /// Unsigned hyper integer.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*head))
    }

    /// Boolean: 0 or 1, nothing else.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Fixed-length opaque data.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.padded(N)?;
        bytes.try_into().map_err(|_| Malformed)
    }

    /// Variable-length opaque data of at most `max` bytes.
    pub fn opaque(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(Malformed);
        }
        self.padded(len)
    }

    /// `len` bytes and the zero to three bytes that pad them.
    fn padded(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let whole = len.checked_next_multiple_of(4).ok_or(Malformed)?;
        if whole > self.0.len() {
            return Err(Malformed);
        }
        let (item, rest) = self.0.split_at(whole);
        self.0 = rest;
        Ok(&item[..len])
    }
}

/// Appends XDR items to a byte vector.
pub trait Write {
    /// Unsigned integer.
    fn put_u32(&mut self, v: u32);
    /// Unsigned hyper integer.
    fn put_u64(&mut self, v: u64);
    /// Boolean.
    fn put_bool(&mut self, v: bool);
    /// Fixed-length opaque data.
    fn put_fixed(&mut self, v: &[u8]);
    /// Variable-length opaque data.
    fn put_opaque(&mut self, v: &[u8]);
}

impl Write for Vec<u8> {
    fn put_u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put_u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put_bool(&mut self, v: bool) {
        self.put_u32(u32::from(v));
    }

    fn put_fixed(&mut self, v: &[u8]) {
        self.extend_from_slice(v);
        self.extend_from_slice(&[0; 3][..padding(v.len())]);
    }

    fn put_opaque(&mut self, v: &[u8]) {
        self.put_u32(u32::try_from(v.len()).expect("replies are far below 4 GiB"));
        self.put_fixed(v);
    }
}

/// How many zero bytes follow `len` bytes of opaque data.
pub fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        bytes.put_u32(1);
        bytes.put_u64(u64::MAX - 1);
        bytes.put_bool(true);
        bytes.put_fixed(b"abcde");
        bytes.put_opaque(b"xyz");
        assert_eq!(bytes.len(), 4 + 8 + 4 + 8 + 8);
        let mut r = Reader::new(&bytes);
        assert_eq!(r.u32(), Ok(1));
        assert_eq!(r.u64(), Ok(u64::MAX - 1));
        assert_eq!(r.bool(), Ok(true));
        assert_eq!(r.fixed::<5>(), Ok(*b"abcde"));
        assert_eq!(r.opaque(3), Ok(&b"xyz"[..]));
        assert_eq!(r.rest(), b"");
    }

    #[test]
    fn a_boolean_is_zero_or_one() {
        assert_eq!(Reader::new(&[0, 0, 0, 2]).bool(), Err(Malformed));
    }

    #[test]
    fn an_opaque_over_its_limit_is_malformed_though_it_is_there() {
        let bytes = [0, 0, 0, 4, 1, 2, 3, 4];
        assert_eq!(Reader::new(&bytes).opaque(4), Ok(&bytes[4..]));
        assert_eq!(Reader::new(&bytes).opaque(3), Err(Malformed));
    }

    #[test]
    fn missing_padding_is_malformed() {
        assert_eq!(Reader::new(&[0, 0, 0, 1, 9, 0, 0]).opaque(10), Err(Malformed));
    }

    #[test]
    fn a_length_near_the_end_of_the_number_range_is_malformed() {
        assert_eq!(Reader::new(&[0xff; 12]).opaque(usize::MAX), Err(Malformed));
    }

    proptest! {
        #[test]
        fn opaques_come_back_at_every_length(items in vec(vec(any::<u8>(), 0..50), 0..10)) {
            let mut bytes = Vec::new();
            items.iter().for_each(|item| bytes.put_opaque(item));
            prop_assert_eq!(bytes.len() % 4, 0);
            let mut r = Reader::new(&bytes);
            for item in &items {
                prop_assert_eq!(r.opaque(50).unwrap(), &item[..]);
            }
            prop_assert!(r.rest().is_empty());
        }

        #[test]
        fn hostile_bytes_never_panic_nor_read_beyond(bytes in vec(any::<u8>(), 0..64), steps in vec(0..5, 0..20)) {
            let mut r = Reader::new(&bytes);
            for step in steps {
                let before = r.rest().len();
                match step {
                    0 => _ = r.u32(),
                    1 => _ = r.u64(),
                    2 => _ = r.bool(),
                    3 => _ = r.fixed::<7>(),
                    _ => prop_assert!(r.opaque(16).map_or(0, <[u8]>::len) <= 16),
                }
                prop_assert!(r.rest().len() <= before);
            }
        }
    }
}
