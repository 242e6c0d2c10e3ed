//! Clamps the times of files in a layer: times after the commit become the commit's, because otherwise no two builds would
//! have the same digest.
//!
//! The result is the one of BuildKit's `rewrite-timestamp`, which reads and writes the layer with Go's archive/tar. Layers
//! come from the same package, so that headers need no other change.

use std::io::{self, Read, Write};

/// A block of an archive, in bytes.
const BLOCK: usize = 512;

/// The largest extended header that is read, in bytes; Go's own limit.
const EXTENDED_LIMIT: u64 = 1024 * 1024;

/// Positions of size, time, checksum and type in a header.
const SIZE: std::ops::Range<usize> = 124..136;
const TIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;

/// The key and the value of a record in an extended header.
type ExtendedRecord = (Vec<u8>, Vec<u8>);

/// A tar archive whose times are clamped while it is copied.
pub(super) struct TimestampClamp<R> {
    source: R,
    /// Seconds since 1970.
    epoch: i64,
}

impl<R: Read> TimestampClamp<R> {
    pub(super) fn new(source: R, epoch: i64) -> Self {
        Self { source, epoch }
    }

    /// Copies the archive.
    ///
    /// # Errors
    /// If the source cannot be read or is not a tar archive, or the target cannot be written.
    pub(super) fn copy(mut self, target: &mut impl Write) -> io::Result<()> {
        // The size of the next file, if an extended header has it.
        let mut next_size = None;
        while let Some(mut header) = self.read_block()? {
            if header.iter().all(|byte| *byte == 0) {
                target.write_all(&header)?;
                continue;
            }
            let own_size = parse_number(&header[SIZE]).ok_or_else(|| invalid("a size that is not a number"))?;
            if header[TYPE] == b'x' {
                let mut content = Vec::new();
                let records = self.read_records(own_size, &mut content)?;
                next_size = record_value(&records, b"size").and_then(|size| size.parse().ok());
                if records.iter().any(|record| self.is_later(record)) {
                    self.write_extended(header, &records, target)?;
                } else {
                    target.write_all(&header)?;
                    target.write_all(&content)?;
                }
                continue;
            }
            if parse_number(&header[TIME]).is_some_and(|time| i64::try_from(time).is_ok_and(|time| time > self.epoch)) {
                let epoch = format!("{:011o}\0", self.epoch.max(0));
                header[TIME].copy_from_slice(epoch.as_bytes());
                write_checksum(&mut header);
            }
            target.write_all(&header)?;
            // Links and folders have no content, whatever size the header has.
            let size = match header[TYPE] {
                b'1'..=b'6' => 0,
                _ => next_size.unwrap_or(own_size),
            };
            next_size = None;
            self.copy_content(size, target)?;
        }
        Ok(())
    }

    /// Reads the next block; returns `None` at the end.
    fn read_block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(Some(block))
    }

    fn copy_content(&mut self, size: u64, target: &mut impl Write) -> io::Result<()> {
        let padded = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| invalid("too large a file"))?;
        match io::copy(&mut self.source.by_ref().take(padded), target)? {
            copied if copied == padded => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads the records `length key=value` of an extended header, and copies its content.
    fn read_records(&mut self, size: u64, content: &mut Vec<u8>) -> io::Result<Vec<ExtendedRecord>> {
        if size > EXTENDED_LIMIT {
            return Err(invalid("too large an extended header"));
        }
        self.copy_content(size, content)?;
        let mut records = Vec::new();
        let mut rest = content.get(..usize::try_from(size).unwrap_or_default()).unwrap_or_default();
        while !rest.is_empty() {
            let (length, key, value) = parse_record(rest).ok_or_else(|| invalid("a broken extended header"))?;
            records.push((key.to_vec(), value.to_vec()));
            rest = &rest[length..];
        }
        Ok(records)
    }

    /// Whether a record is a time that is later than the commit's.
    fn is_later(&self, (key, value): &ExtendedRecord) -> bool {
        matches!(key.as_slice(), b"mtime" | b"atime" | b"ctime") && is_after(value, self.epoch)
    }

    /// Writes an extended header with its times clamped. Like Go, it leaves out a header without records.
    fn write_extended(
        &self,
        mut header: [u8; BLOCK],
        records: &[ExtendedRecord],
        target: &mut impl Write,
    ) -> io::Result<()> {
        let mut content = Vec::new();
        for record in records {
            match (self.is_later(record), record.0.as_slice()) {
                // The header itself can hold the commit's time, which has no fractions.
                (true, b"mtime") => {}
                (true, key) => push_record(&mut content, key, self.epoch.to_string().as_bytes()),
                (false, key) => push_record(&mut content, key, &record.1),
            }
        }
        if content.is_empty() {
            return Ok(());
        }
        header[SIZE].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        write_checksum(&mut header);
        content.resize(content.len().next_multiple_of(BLOCK), 0);
        target.write_all(&header)?;
        target.write_all(&content)
    }
}

/// Parses length, key and value of the first record.
fn parse_record(text: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    let inside = text.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = inside.iter().position(|byte| *byte == b'=')?;
    Some((length, &inside[..equals], &inside[equals + 1..]))
}

/// Appends a record. Its length counts its own digits too.
fn push_record(content: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    content.extend(format!("{length} ").bytes());
    content.extend(key.iter().chain(b"=").chain(value).chain(b"\n"));
}

fn record_value<'r>(records: &'r [ExtendedRecord], key: &[u8]) -> Option<&'r str> {
    let record = records.iter().find(|(name, _)| name == key)?;
    std::str::from_utf8(&record.1).ok()
}

/// Whether a time, seconds with a fraction, is later than whole seconds.
fn is_after(time: &[u8], epoch: i64) -> bool {
    let Ok(text) = std::str::from_utf8(time) else { return false };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Ok(seconds) = seconds.parse::<i64>() else { return false };
    seconds > epoch || (seconds == epoch && fraction.bytes().any(|digit| digit != b'0'))
}

/// Parses a number of a header: octal, or binary if the first bit is set.
fn parse_number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let high = field[..field.len() - 8].iter().skip(1).all(|byte| *byte == 0) && field[0] == 0x80;
        let low = field[field.len() - 8..].try_into().ok().map(u64::from_be_bytes);
        return low.filter(|_| high);
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Writes the checksum of a header.
fn write_checksum(header: &mut [u8; BLOCK]) {
    header[CHECKSUM].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a layer has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: i64 = 1_700_000_000;

    fn clamped(archive: &[u8]) -> Vec<u8> {
        let mut target = Vec::new();
        TimestampClamp::new(archive, EPOCH).copy(&mut target).unwrap();
        target
    }

    fn header(name: &str, mtime: u64, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_mode(0o644);
        header.set_mtime(mtime);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn times(archive: &[u8]) -> Vec<(String, u64)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|e| (e.path().unwrap().display().to_string(), e.header().mtime().unwrap())).collect()
    }

    #[test]
    fn only_later_times_change() {
        let mut archive = tar::Builder::new(Vec::new());
        let later = EPOCH as u64 + 5;
        for (name, mtime) in [("old", 1), ("commit", EPOCH as u64), ("later", later)] {
            archive.append(&header(name, mtime, 700), [7; 700].as_slice()).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        let result = clamped(&archive);
        let expected = [("old", 1), ("commit", EPOCH as u64), ("later", EPOCH as u64)];
        assert_eq!(times(&result), expected.map(|(name, time)| (name.to_owned(), time)));
        assert_eq!(result.len(), archive.len());
        assert_eq!(clamped(&result), result);
        assert_ne!(result, archive);
        let changed = archive.iter().zip(&result).filter(|(a, b)| a != b).count();
        assert!(changed < 24, "a time and a checksum: {changed}");
    }

    #[test]
    fn extended_headers_keep_other_records() {
        let mut archive = tar::Builder::new(Vec::new());
        let later = b"1700000009.5".as_slice();
        archive.append_pax_extensions([("mtime", later), ("SCHILY.xattr.a", b"b=c"), ("ctime", later)]).unwrap();
        archive.append(&header("both", EPOCH as u64 + 9, 0), io::empty()).unwrap();
        archive.append_pax_extensions([("mtime", later)]).unwrap();
        archive.append(&header("alone", EPOCH as u64 + 9, 0), io::empty()).unwrap();
        archive.append_pax_extensions([("mtime", b"1.5".as_slice())]).unwrap();
        archive.append(&header("old", 1, 0), io::empty()).unwrap();
        let result = clamped(&archive.into_inner().unwrap());
        let mut read = tar::Archive::new(result.as_slice());
        let mut records = Vec::new();
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let time = entry.header().mtime().unwrap();
            for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
                let extension = extension.unwrap();
                records.push(format!("{name} {time} {}={}", extension.key().unwrap(), extension.value().unwrap()));
            }
        }
        let both = |text: &str| format!("both {EPOCH} {text}");
        assert_eq!(
            records,
            [both("SCHILY.xattr.a=b=c"), both(&format!("ctime={EPOCH}")), "old 1 mtime=1.5".to_owned()]
        );
        assert!(times(&result).contains(&("alone".to_owned(), EPOCH as u64)));
    }

    #[test]
    fn sizes_in_extended_headers_and_binary_numbers_are_read() {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_pax_extensions([("size", b"513".as_slice())]).unwrap();
        archive.append(&header("large", 1, 0), io::empty()).unwrap();
        let mut bytes = archive.into_inner().unwrap();
        bytes.truncate(bytes.len() - 2 * BLOCK);
        bytes.extend([1; 2 * BLOCK]);
        assert_eq!(clamped(&bytes), bytes);
        assert_eq!(parse_number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]), Some(0x2_0000_0001));
        assert_eq!(parse_number(&[0xff; 12]), None);
        let mut cut = Vec::new();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header("cut", 1, 700), [7; 700].as_slice()).unwrap();
        let bytes = archive.into_inner().unwrap();
        assert!(TimestampClamp::new(&bytes[..900], EPOCH).copy(&mut cut).is_err());
    }
}
