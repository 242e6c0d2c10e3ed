# Sourced by `install`: Snyk's command line, each package checked against the hash in `package-lock.json`.

# snyk: the last version that is plain JavaScript. What the action installs is a binary, from a host that tests do not reach.
snyk() {
  rm -rf "$tools/snyk"
  mkdir -p "$tools/snyk"
  cp "$here"/snyk/package*.json "$tools/snyk"
  npm ci --prefix "$tools/snyk" --ignore-scripts --no-audit --no-fund
}
