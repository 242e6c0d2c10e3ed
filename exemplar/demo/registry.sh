# Sourced by `run`. Starts the two kinds of registry, and reads from them with programs other than the actions.

ecr_host=000000000000.dkr.ecr.us-east-1.amazonaws.com
ministack_group=
# The environment of an AWS client. Empty without AWS.
aws=()

oci_registry() {
  registry=(REGISTRY="oci:$state/store")
  echo "An OCI image layout for each repository in $state/store"
}

# Starts an AWS on a free port. Its parameter store has the prefix of the images, which the template reads.
ecr_registry() {
  local python=$IMAGE_LIFECYCLE_TOOLS/python/bin/python tries
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  aws=(AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
    AWS_EC2_METADATA_DISABLED=true AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
    AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null)
  registry=(REGISTRY_ENDPOINTS="$ecr_host=http://127.0.0.1:$port")

  mkdir "$state/ministack"
  # In its own session, so that the processes that it starts for functions end with it.
  env -i PATH="$PATH" HOME="$state/ministack" TMPDIR="$state/ministack" STATE_DIR="$state/ministack" LOG_LEVEL=WARNING \
    BIND_HOST=127.0.0.1 GATEWAY_PORT="$port" IOT_MTLS_ENABLED=0 SFTP_ENABLED=0 \
    setpriv --pdeathsig KILL setsid "$IMAGE_LIFECYCLE_TOOLS/bin/ministack" >"$state/ministack/log" 2>&1 </dev/null &
  ministack_group=$!
  for tries in {1..300}; do
    (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "$ministack_group" 2>/dev/null || break
    sleep 0.1
  done
  (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "ministack did not start: $state/ministack/log"
  team prepare "$ecr_host" exemplar-busybox exemplar-nginx
}

stop_registry() {
  if [ -n "$ministack_group" ]; then
    kill -KILL -- "-$ministack_group" 2>/dev/null || true
    wait "$ministack_group" 2>/dev/null || true
  fi
}

# team COMMAND...: runs a command of a platform team, which is not part of the pipeline.
team() {
  env "${aws[@]}" "$IMAGE_LIFECYCLE_TOOLS/python/bin/python" "$top/exemplar/demo/aws.py" "$@"
}

# skopeo_source IMAGE TAG: prints the image's location for skopeo.
skopeo_source() {
  case $store in
    ecr) echo "docker://127.0.0.1:$port/$1:$2" ;;
    oci) echo "oci:$state/store/$1:$2" ;;
  esac
}

# Shows the digest of the three names of each image. Fails if they differ.
compare_digests() {
  local image environment name digest first
  for image in exemplar-busybox exemplar-nginx; do
    first=
    for environment in dev test prod; do
      name=$(skopeo_source "$image" "$environment-$version")
      digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "$name")
      printf '  %-30s %s\n' "$image:$environment-$version" "$digest"
      [ "$digest" = "${first:=$digest}" ] || fail "$image has another digest in $environment than in dev"
    done
  done
}

deploy() {
  team deploy "$top/exemplar" "$state/function" prod "$version" "$(output digests)"
}
