//! Writes pixels as PNG through plotters' encoder, and adds what it leaves out: the resolution, so that the figure has
//! its printed size everywhere, and its title and description.

use std::path::Path;

use plotters::backend::{BitMapBackend, DrawingBackend};

use super::raster::Bitmap;
use super::theme;

/// Encodes the bitmap and returns the bytes of the file. `scratch` names a file, ending in `.png`, that is written on
/// the way and removed. Errors are the encoder's own words.
pub fn encode(bitmap: &Bitmap, title: &str, description: &str, scratch: &Path) -> Result<Vec<u8>, String> {
    let size = (bitmap.width as u32, bitmap.height as u32);
    let encoded = encode_with_plotters(bitmap, size, scratch);
    let bytes = encoded.and_then(|()| std::fs::read(scratch).map_err(|error| error.to_string()));
    // Left behind only if the folder has just become unwritable, which the caller's own write will report.
    let _ = std::fs::remove_file(scratch);
    let pixels_per_metre = (theme::DPI / 0.0254).round() as u32;
    let mut resolution = [pixels_per_metre.to_be_bytes(), pixels_per_metre.to_be_bytes()].concat();
    resolution.push(1); // the unit is the metre
    let chunks = [
        chunk(b"pHYs", &resolution),
        chunk(b"iTXt", &international_text("Title", title)),
        chunk(b"iTXt", &international_text("Description", description)),
    ];
    insert_after_header(bytes?, &chunks.concat())
}

fn encode_with_plotters(bitmap: &Bitmap, size: (u32, u32), scratch: &Path) -> Result<(), String> {
    let mut backend = BitMapBackend::new(scratch, size);
    backend.blit_bitmap((0, 0), size, &bitmap.pixels).map_err(|error| error.to_string())?;
    backend.present().map_err(|error| error.to_string())
}

/// Puts chunks right behind the header, where the standard wants `pHYs`.
fn insert_after_header(bytes: Vec<u8>, chunks: &[u8]) -> Result<Vec<u8>, String> {
    // Signature 8 bytes, then IHDR: length 4, name 4, data 13, checksum 4.
    const HEADER_END: usize = 8 + 4 + 4 + 13 + 4;
    if bytes.len() < HEADER_END || &bytes[12..16] != b"IHDR" {
        return Err("the encoder did not write a PNG file".to_owned());
    }
    let (header, rest) = bytes.split_at(HEADER_END);
    Ok([header, chunks, rest].concat())
}

/// Body of an uncompressed UTF-8 text chunk: keyword, no compression, no language.
fn international_text(keyword: &str, text: &str) -> Vec<u8> {
    [keyword.as_bytes(), &[0, 0, 0, 0, 0], text.as_bytes()].concat()
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let named = [name, data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &named, &crc32(&named).to_be_bytes()].concat()
}

/// CRC-32 as PNG uses it (ISO 3309), bit by bit: a few hundred bytes a figure need no table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_the_published_check_value() {
        // The check value of CRC-32/ISO-HDLC over the nine digits.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        // Every PNG file ends in this chunk.
        assert_eq!(chunk(b"IEND", &[]), [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82]);
    }

    #[test]
    fn the_file_has_its_size_its_resolution_and_its_title() {
        let folder = tempfile::tempdir().unwrap();
        let bitmap = Bitmap { width: 3, height: 2, pixels: vec![200; 18] };
        let bytes = encode(&bitmap, "title ±", "what it shows", &folder.path().join("scratch.png")).unwrap();
        assert_eq!(&bytes[16..24], [0, 0, 0, 3, 0, 0, 0, 2]);
        assert_eq!(&bytes[37..41], b"pHYs");
        // 300 dpi are 11811 pixels a metre.
        assert_eq!(&bytes[41..45], 11811u32.to_be_bytes());
        assert!(bytes.windows("title ±".len()).any(|window| window == "title ±".as_bytes()));
        assert_eq!(&bytes[bytes.len() - 8..bytes.len() - 4], b"IEND");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
