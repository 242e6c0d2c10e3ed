#!/usr/bin/env bash
# Asks a deployed API for the deployed version and digests, and fails if they differ from the arguments.
#
#   verify.sh ENVIRONMENT VERSION [DIGESTS]
#
# Takes the AWS credentials and the region from the environment variables. Needs aws, curl and jq.
set -euo pipefail

environment=${1:?usage: verify.sh ENVIRONMENT VERSION [DIGESTS]}
version=${2:?usage: verify.sh ENVIRONMENT VERSION [DIGESTS]}
digests=${3:-"{}"}
region=${AWS_REGION:-${AWS_DEFAULT_REGION:?set AWS_REGION}}

url=$(aws cloudformation describe-stacks --stack-name "exemplar-$environment" --region "$region" \
  --query "Stacks[0].Outputs[?OutputKey=='ApiUrl'].OutputValue" --output text)

# Through standard input, so that no credential is in the arguments, which every process can read.
credentials() {
  echo "user = \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\""
  if [[ -n ${AWS_SESSION_TOKEN:-} ]]; then
    echo "header = \"x-amz-security-token: $AWS_SESSION_TOKEN\""
  fi
}

# A new stage needs several seconds before it responds.
answer=$(credentials | curl --config - --silent --show-error --fail --max-time 10 \
  --retry 6 --retry-delay 5 --retry-all-errors --aws-sigv4 "aws:amz:$region:execute-api" "$url/images")

expected=$(jq --null-input --sort-keys --arg environment "$environment" --arg version "$version" \
  --argjson digests "$digests" '{$environment, $version, $digests}')
actual=$(jq --sort-keys \
  '{environment, version, digests: (.images | map(select(.digest) | {(.name): .digest}) | add // {})}' <<<"$answer")

if [[ $actual != "$expected" ]]; then
  echo "verify: $url/images does not tell what was deployed (< expected, > answered)" >&2
  diff <(echo "$expected") <(echo "$actual") >&2 || true
  exit 1
fi
jq --raw-output '.images[] | "\(.reference)  \(.digest // "no digest")"' <<<"$answer"
