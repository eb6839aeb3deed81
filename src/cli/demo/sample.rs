//! The sample bucket: a small web site with pictures, a film, a deep tree and a large directory.

use bytes::Bytes;

use crate::s3server::{Bucket, generated};

pub(super) const PAGE: &str = "index.html";
pub(super) const FILM: &str = "films/film.mp4";
pub(super) const FILM_BYTES: u64 = 64 << 20;
pub(super) const PICTURES: usize = 12;
pub(super) const MANY: usize = 3000;
const FILM_SEED: u64 = 42;
const DEPTH: usize = 12;

/// What is in the bucket, as far as the story asks for it.
pub(super) struct Keys {
    pub(super) count: usize,
    pub(super) pictures: Vec<String>,
    /// Bytes of all pictures together.
    pub(super) picture_bytes: usize,
}

pub(super) fn fill(bucket: &Bucket) -> Keys {
    bucket.put_as(PAGE, page("first"), Some("text/html"), &[]);
    bucket.put_as("robots.txt", "User-agent: *\nDisallow:\n", Some("text/plain"), &[]);
    bucket.put_generated(FILM, FILM_BYTES, FILM_SEED);

    let mut keys = Keys { count: 0, pictures: Vec::new(), picture_bytes: 0 };
    for i in 0..PICTURES {
        let (key, png) = (format!("pictures/{i:02}.png"), png(i as u8));
        keys.picture_bytes += png.len();
        bucket.put_as(&key, png, Some("image/png"), &[]);
        keys.pictures.push(key);
    }
    let mut path = "deep".to_owned();
    for level in 1..=DEPTH {
        path.push_str(&format!("/level-{level}"));
        bucket.put(&format!("{path}/note.txt"), format!("{level} levels down\n"), &[]);
    }
    for i in 0..MANY {
        bucket.put(&format!("many/{i:05}.txt"), format!("number {i}\n"), &[]);
    }
    keys.count = bucket.len();
    keys
}

/// The front page, in its `edition`.
pub(super) fn page(edition: &str) -> String {
    let pictures: String = (0..PICTURES).map(|i| format!("    <img src=\"pictures/{i:02}.png\" alt=\"\">\n")).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><title>fasts3</title></head>\n<body>\n    <h1>The {edition} edition</h1>\n    \
         <video src=\"{FILM}\"></video>\n{pictures}</body>\n</html>\n"
    )
}

/// Whether these are the film's bytes from `offset` on.
pub(super) fn is_film(offset: u64, bytes: &[u8]) -> bool {
    generated(FILM_SEED, offset..offset + bytes.len() as u64) == bytes
}

const WIDTH: u32 = 160;
const HEIGHT: u32 = 100;

/// A picture, not compressed: a gradient whose colour depends on `hue`.
fn png(hue: u8) -> Bytes {
    let mut pixels = Vec::with_capacity((HEIGHT * (WIDTH * 3 + 1)) as usize);
    for y in 0..HEIGHT {
        pixels.push(0); // this line is not filtered
        for x in 0..WIDTH {
            pixels.extend([(x * 255 / WIDTH) as u8, (y * 255 / HEIGHT) as u8, hue.wrapping_mul(20)]);
        }
    }
    let mut header = Vec::new();
    header.extend(WIDTH.to_be_bytes());
    header.extend(HEIGHT.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]); // 8 bits a sample, RGB
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &zlib_stored(&pixels));
    chunk(&mut file, b"IEND", &[]);
    file.into()
}

/// Appends a PNG chunk: length, name, data, CRC of name and data.
fn chunk(file: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(name);
    file.extend(data);
    let crc = crc32(&file[start..]);
    file.extend(crc.to_be_bytes());
}

/// RFC 1950 around stored blocks of RFC 1951.
fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = data.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let len = block.len() as u16;
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend(len.to_le_bytes());
        stream.extend((!len).to_le_bytes());
        stream.extend(block);
    }
    stream.extend(adler32(data).to_be_bytes());
    stream
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn adler32(data: &[u8]) -> u32 {
    let (a, b) = data.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(crc32(b"IEND"), 0xae42_6082);
    }

    #[test]
    fn a_picture_has_its_parts_in_order() {
        let png = png(3);
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\xa0\0\0\0\x64"));
        assert!(png.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
    }

    #[test]
    fn editions_differ_and_are_as_long() {
        assert_ne!(page("first"), page("second"));
        assert!(page("first").ends_with("</html>\n"));
    }
}
