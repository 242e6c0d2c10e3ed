#!/usr/bin/env bash
# deploy.sh ENVIRONMENT VERSION
set -euo pipefail
aws cloudformation deploy --template-file template.yaml --stack-name "hello-$1" \
  --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --parameter-overrides "Environment=$1" "DeploymentVersion=$2"
