# Sourced by `install`: programs from Python packages, each file of them checked against the hash that is written down.
# `demo.txt`, `test.txt` and `e2e.txt` are made of the files `.in`: see `requirements`.

# python_environment NAME FILE: a fresh environment with the packages of FILE, and none of what was added to it later.
python_environment() {
  rm -rf "${tools:?}/$1" "$tools/stamps/$1-test"
  python3 -m venv "$tools/$1"
  python_packages "$@"
}

# python_packages NAME FILE: more of them.
python_packages() {
  "$tools/$1/bin/python" -m pip install --disable-pip-version-check --require-hashes --no-deps \
    --requirement "$here/$2"
}
