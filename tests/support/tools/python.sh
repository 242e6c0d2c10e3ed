# Sourced by `install`: programs from Python packages, each file of them checked against the hash that is written down.
# `demo.txt` and `test.txt` are made of `demo.in` and `test.in`: see `requirements`.

# python_environment FILE: a fresh environment with the packages of FILE.
python_environment() {
  rm -rf "$tools/python" "$tools/stamps/python-test"
  python3 -m venv "$tools/python"
  python_packages "$1"
}

# python_packages FILE: more of them.
python_packages() {
  "$tools/python/bin/python" -m pip install --disable-pip-version-check --require-hashes --no-deps \
    --requirement "$here/$1"
}
