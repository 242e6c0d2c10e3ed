# Sourced by `install`: programs from Rust crates, each checked against the hash that is written down. What they depend on
# is checked against the hashes in the crate's own `Cargo.lock`.

wrkflw_version=0.8.0
wrkflw_sha256=8ac60eb35ed27b1db3392313497026439731adf5e21152236928ee51012bc8ba

cargo_fuzz_version=0.13.2
cargo_fuzz_sha256=5acfd01930e49823e58c30dd8012d3338a620377d7c7d4cc140ca4b2169400e2

wrkflw() { crate wrkflw "$wrkflw_version" "$wrkflw_sha256" --no-default-features; }

cargo_fuzz() { crate cargo-fuzz "$cargo_fuzz_version" "$cargo_fuzz_sha256"; }

# crate NAME VERSION SHA256 OPTION...: builds a crate's program into $tools/NAME/bin.
crate() {
  local name=$1 work=$tools/$1-build unpacked=$tools/$1-build/$1-$2 archive
  rm -rf "$work"
  mkdir -p "$work"
  # Brings the crate's archive, and builds nothing.
  cargo info "$1@$2"
  archive=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/cache" -name "$1-$2.crate" -print -quit)
  printf '%s  %s\n' "$3" "$archive" | sha256sum --check --strict
  tar --extract --gzip --file "$archive" --directory "$work"
  shift 3
  # Compiled quickly rather than to run quickly: it starts other programs.
  CARGO_PROFILE_DEV_DEBUG=false cargo install --path "$unpacked" --locked --debug "$@" \
    --root "$tools/$name" --target-dir "$work/target"
  rm -rf "$work"
}
