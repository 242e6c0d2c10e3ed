#!/usr/bin/env bash
# Deploys a version to an environment: the result of `npm run build`, and the small stack in `per-environment`.
#
#   deploy.sh ENVIRONMENT VERSION [DIGESTS]
#
# VERSION and DIGESTS are the outputs of publish and promote. DIGESTS is a JSON object from image to digest. More
# parameters of the template, as NAME=VALUE words, are taken from $EXEMPLAR_PARAMETERS.
set -euo pipefail

environment=${1:?usage: deploy.sh ENVIRONMENT VERSION [DIGESTS]}
version=${2:?usage: deploy.sh ENVIRONMENT VERSION [DIGESTS]}
digests=${3:-"{}"}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# sam reads each word as NAME="VALUE" and requires quotes in the value to be escaped.
parameters=("Environment=$environment" "DeploymentVersion=$version" "ImageDigests=\"${digests//\"/\\\"}\"")
read -ra more <<<"${EXEMPLAR_PARAMETERS:-}"

sam deploy --config-env "$environment" --parameter-overrides "${parameters[@]}" "${more[@]}"
sam deploy --config-env "$environment" --template-file per-environment/template.yaml \
  --stack-name "exemplar-per-environment-$environment" --parameter-overrides "${parameters[@]:0:2}"
