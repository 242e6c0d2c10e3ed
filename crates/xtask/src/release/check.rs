//! Checks binaries and the release tree.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

use super::{Binary, Platform};

/// The largest binary, in bytes. A consumer's runner downloads all binaries before each job.
const BINARY_SIZE: usize = 10_000_000;

/// The largest archive that a runner downloads, in bytes: with binaries for one platform, and for both. The x86-64 ones
/// are the larger ones.
const COMPRESSED_SIZE: [u64; 2] = [13_000_000, 24 * 1024 * 1024];

/// Checks that a binary is for the platform of its folder.
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

/// Checks that a binary may be released: it is for its platform, statically linked, small, and contains no path of the
/// machine that built it.
pub(super) fn released(binary: &Binary, bytes: &[u8], folders: &[PathBuf]) -> anyhow::Result<()> {
    platform(binary, bytes)?;
    let name = format!("{}/{}", binary.platform.folder(), binary.name);
    if let Some(dependency) = dynamic_dependency(bytes).with_context(|| name.clone())? {
        bail!("{name} is not static: it needs {dependency}");
    }
    if bytes.len() > BINARY_SIZE {
        bail!("{name} has {} bytes, more than {BINARY_SIZE}", bytes.len());
    }
    for folder in folders {
        let folder = folder.display().to_string();
        if let Some(place) = position(bytes, folder.as_bytes()) {
            bail!("{name} names {folder}: `{}`", printable(&bytes[place..]));
        }
    }
    Ok(())
}

/// Returns the size of the tree as GitHub sends it: a tar archive, compressed by gzip at its default level.
fn compressed(tree: &Path) -> anyhow::Result<u64> {
    let mut archive = tar::Builder::new(GzEncoder::new(Counter(0), Compression::default()));
    archive.append_dir_all("tree", tree)?;
    Ok(archive.into_inner()?.finish()?.0)
}

/// Checks the compressed size of a tree with binaries for a number of platforms.
pub(super) fn compressed_size(tree: &Path, platforms: usize) -> anyhow::Result<()> {
    let limit = platforms.checked_sub(1).and_then(|last| COMPRESSED_SIZE.get(last)).copied().unwrap_or_default();
    let size = compressed(tree)?;
    println!("{size} bytes compressed, of {limit}");
    if size > limit {
        bail!("the compressed tree has {size} bytes, more than {limit}");
    }
    Ok(())
}

/// A writer that only counts the bytes.
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

/// Returns what a binary needs on a machine to start, or `None` if it is statically linked.
fn dynamic_dependency(bytes: &[u8]) -> anyhow::Result<Option<&'static str>> {
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

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|&place| bytes[place..].starts_with(wanted))
}

/// Returns the printable text at the start of the bytes, which helps to find its origin in the sources.
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

    /// Returns a minimal ELF file: a header, one program header, and the content.
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
    fn an_unfit_program_is_refused() {
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
            refused(&x64(elf::PT_LOAD, &vec![0; BINARY_SIZE]), &[]),
            format!("{name} has {} bytes, more than {BINARY_SIZE}", BINARY_SIZE + 120)
        );
        let named = x64(elf::PT_LOAD, b"at /build/src/main.rs\0more");
        assert_eq!(refused(&named, &["/build".into()]), format!("{name} names /build: `/build/src/main.rs`"));
        assert!(refused(b"#!/bin/sh\n", &[]).starts_with(name));
    }

    #[test]
    fn the_size_of_a_tree_is_that_of_its_archive() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("bin")).unwrap();
        std::fs::write(tree.path().join("bin/zeros"), vec![0; 1 << 20]).unwrap();
        let zeros = compressed(tree.path()).unwrap();
        assert!((1_000..10_000).contains(&zeros), "{zeros}");
        // Digests cannot be compressed.
        let noise: Vec<u8> = (0..1024_u32).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect();
        std::fs::write(tree.path().join("bin/noise"), &noise).unwrap();
        assert!(compressed(tree.path()).unwrap() > zeros + 32_000);

        assert!(compressed_size(tree.path(), 1).is_ok());
        let error = compressed_size(tree.path(), 0).unwrap_err().to_string();
        assert!(error.starts_with("the compressed tree has ") && error.ends_with(" bytes, more than 0"), "{error}");
    }
}
