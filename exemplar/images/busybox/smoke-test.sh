#!/bin/sh
# Fetches a page once and prints its length. Fails if there is no page.
set -eu

url=${1:?usage: smoke-test.sh URL}
page=$(wget -q -O - "$url") || { echo "smoke test: $url does not answer" >&2; exit 1; }
[ -n "$page" ] || { echo "smoke test: $url is empty" >&2; exit 1; }
echo "smoke test: $url answers with ${#page} characters"
