# Sourced by `install`: a program from a Rust crate, checked against the hash that is written down. What it depends on
# is checked against the hashes in the crate's own `Cargo.lock`.

wrkflw_version=0.8.0
wrkflw_sha256=8ac60eb35ed27b1db3392313497026439731adf5e21152236928ee51012bc8ba

wrkflw() {
  local name=wrkflw-$wrkflw_version work=$tools/wrkflw-build archive
  rm -rf "$work"
  mkdir -p "$work"
  # Brings the crate's archive, and builds nothing.
  cargo info "wrkflw@$wrkflw_version"
  archive=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/cache" -name "$name.crate" -print -quit)
  printf '%s  %s\n' "$wrkflw_sha256" "$archive" | sha256sum --check --strict
  tar --extract --gzip --file "$archive" --directory "$work"
  # Compiled quickly rather than to run quickly: it starts other programs.
  CARGO_PROFILE_DEV_DEBUG=false cargo install --path "$work/$name" --locked --no-default-features --debug \
    --root "$tools/wrkflw" --target-dir "$work/target"
  rm -rf "$work"
}
