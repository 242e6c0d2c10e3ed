# Sourced by `install`: programs from npm packages, each of them checked against the hash in `package-lock.json`.

# prism: Prism, and GitHub's description of its API as far as it is needed.
prism() {
  rm -rf "$tools/prism"
  mkdir -p "$tools/prism"
  cp "$here"/prism/package*.json "$tools/prism"
  npm ci --prefix "$tools/prism" --ignore-scripts --no-audit --no-fund
  local openapi=$tools/prism/node_modules/@octokit/openapi
  node "$here/prism/excerpt.mjs" "$openapi/generated/api.github.com.json" "$tools/prism/github.json"
  # Half a gigabyte, of which nothing more is needed.
  rm -rf "$openapi"
}
