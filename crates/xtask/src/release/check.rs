//! What a binary must be before it goes into the tree.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

use super::{Binary, Platform};

/// Bytes; a consumer's runner downloads all binaries before each job.
const SIZE: usize = 8_000_000;

/// Bytes of the archive that a runner downloads, with binaries for one platform and for both: 18 MiB. An x86-64 weighs
/// more.
const WEIGHT: [u64; 2] = [10_000_000, 18 * 1024 * 1024];

/// A program for its folder's platform.
pub(super) fn platform(binary: &Binary, bytes: &[u8]) -> anyhow::Result<()> {
    let name = format!("{}/{}", binary.platform.folder(), binary.name);
    let header = FileHeader64::<Endianness>::parse(bytes).with_context(|| name.clone())?;
    let expected = match binary.platform {
        Platform::X64 => elf::EM_X86_64,
        Platform::Arm64 => elf::EM_AARCH64,
    };
    if header.e_machine(header.endian()?) != expected {
        bail!("{name} is for another architecture");
    }
    Ok(())
}

/// That, and fit for any Linux: static, small, and without a trace of the machine that built it.
pub(super) fn released(binary: &Binary, bytes: &[u8], folders: &[PathBuf]) -> anyhow::Result<()> {
    platform(binary, bytes)?;
    let name = format!("{}/{}", binary.platform.folder(), binary.name);
    if let Some(need) = needs(bytes).with_context(|| name.clone())? {
        bail!("{name} is not static: it needs {need}");
    }
    if bytes.len() > SIZE {
        bail!("{name} has {} bytes, more than {SIZE}", bytes.len());
    }
    for folder in folders {
        let folder = folder.display().to_string();
        if let Some(place) = find(bytes, folder.as_bytes()) {
            bail!("{name} names {folder}: `{}`", printable(&bytes[place..]));
        }
    }
    Ok(())
}

/// The bytes of the tree as GitHub sends it: a tar file, by gzip as it is without options.
fn compressed(tree: &Path) -> anyhow::Result<u64> {
    let mut archive = tar::Builder::new(GzEncoder::new(Counter(0), Compression::default()));
    archive.append_dir_all("tree", tree)?;
    Ok(archive.into_inner()?.finish()?.0)
}

/// Whether a tree with binaries for so many platforms is no more than that.
pub(super) fn weight(tree: &Path, platforms: usize) -> anyhow::Result<()> {
    let limit = platforms.checked_sub(1).and_then(|last| WEIGHT.get(last)).copied().unwrap_or_default();
    let size = compressed(tree)?;
    println!("{size} bytes compressed, of {limit}");
    if size > limit {
        bail!("the compressed tree has {size} bytes, more than {limit}");
    }
    Ok(())
}

/// Counts what is written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The first thing that has to be on a machine for this to start; none where it is static.
fn needs(bytes: &[u8]) -> anyhow::Result<Option<&'static str>> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, bytes)? {
        if segment.p_type(endian) == elf::PT_INTERP {
            return Ok(Some("an interpreter"));
        }
        let dynamic = segment.dynamic(endian, bytes)?.unwrap_or_default();
        if dynamic.iter().any(|entry| entry.tag(endian) == elf::DT_NEEDED) {
            return Ok(Some("a shared library"));
        }
    }
    Ok(None)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|&place| bytes[place..].starts_with(wanted))
}

/// The text at the start of the bytes, so that it can be searched for in the sources.
fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(200)
        .map_while(|&byte| (byte.is_ascii_graphic() || byte == b' ').then_some(byte as char))
        .collect()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// The smallest file that can be read: a header, one program header, and what is put behind them.
    fn program(machine: u16, segment: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend(elf::ET_EXEC.0.to_le_bytes());
        bytes.extend(machine.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        for word in [0_u64, 64, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 64, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(segment.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        let size = content.len() as u64;
        for word in [120_u64, 0, 0, size, size, 8] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(content);
        bytes
    }

    fn refused(bytes: &[u8], folders: &[PathBuf]) -> String {
        let binary = Binary { platform: Platform::X64, name: "action-build".into(), path: "unused".into() };
        released(&binary, bytes, folders).map_or_else(|error| format!("{error:#}"), |()| "no".into())
    }

    #[test]
    fn a_static_program_passes() {
        assert_eq!(refused(&program(elf::EM_X86_64.0, elf::PT_LOAD.0, b"text"), &["/build".into()]), "no");
    }

    #[test]
    fn what_a_program_must_not_be() {
        let x64 = |segment: elf::ProgramType, content: &[u8]| program(elf::EM_X86_64.0, segment.0, content);
        let name = "Linux-X64/action-build";
        assert_eq!(
            refused(&program(elf::EM_AARCH64.0, elf::PT_LOAD.0, b""), &[]),
            format!("{name} is for another architecture")
        );
        assert_eq!(
            refused(&x64(elf::PT_INTERP, b"/lib/ld.so\0"), &[]),
            format!("{name} is not static: it needs an interpreter")
        );
        let needed = [1_u64, 0, 0, 0].map(u64::to_le_bytes).concat();
        assert_eq!(
            refused(&x64(elf::PT_DYNAMIC, &needed), &[]),
            format!("{name} is not static: it needs a shared library")
        );
        assert_eq!(
            refused(&x64(elf::PT_LOAD, &vec![0; SIZE]), &[]),
            format!("{name} has 8000120 bytes, more than {SIZE}")
        );
        let named = x64(elf::PT_LOAD, b"at /build/src/main.rs\0more");
        assert_eq!(refused(&named, &["/build".into()]), format!("{name} names /build: `/build/src/main.rs`"));
        assert!(refused(b"#!/bin/sh\n", &[]).starts_with(name));
    }

    #[test]
    #[expect(clippy::unwrap_used, reason = "test code: a broken fixture is a failed test")]
    fn a_tree_is_weighed_as_it_is_sent() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("bin")).unwrap();
        std::fs::write(tree.path().join("bin/zeros"), vec![0; 1 << 20]).unwrap();
        let zeros = compressed(tree.path()).unwrap();
        assert!((1_000..10_000).contains(&zeros), "{zeros}");
        // What can't be compressed: digests.
        let noise: Vec<u8> = (0..1024_u32).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect();
        std::fs::write(tree.path().join("bin/noise"), &noise).unwrap();
        assert!(compressed(tree.path()).unwrap() > zeros + 32_000);

        assert!(weight(tree.path(), 1).is_ok());
        let error = weight(tree.path(), 0).unwrap_err().to_string();
        assert!(error.starts_with("the compressed tree has ") && error.ends_with(" bytes, more than 0"), "{error}");
    }
}
