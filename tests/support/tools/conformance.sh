# Sourced by `install`, after python.sh: what other projects test themselves with and publish in packages.

# moto_tests: moto's tests of ECR, which only its source package has, and what they need. In a folder of its own.
moto_tests() {
  local python=$tools/python/bin/python folder=$tools/moto
  rm -rf "$folder"
  mkdir -p "$folder"
  "$python" -m pip install --disable-pip-version-check --require-hashes --no-deps --target "$folder/packages" \
    --requirement "$here/conformance.txt"
  # The release that runs here, checked against the same list of hashes.
  sed -n '/^moto==/,/[^\\]$/p' "$here/test.txt" >"$folder/moto.txt"
  "$python" -m pip download --disable-pip-version-check --require-hashes --no-deps --no-binary moto \
    --dest "$folder/source" --requirement "$folder/moto.txt"
  tar --extract --gzip --file "$folder"/source/moto-*.tar.gz --directory "$folder" --strip-components 1 --wildcards \
    '*/tests/__init__.py' '*/tests/conftest.py' '*/tests/test_ecr'
}
