# Sourced by `run`. Runs the promoted images as containers, without a daemon.

buildah=(buildah --root "$state/storage" --runroot "$state/storage-run" --storage-driver vfs)
network=
server=

# Runs the web server and the program that fetches its page once in an isolated network, as in an ECS task.
run_containers() {
  local page='' tries
  network_of_its_own
  container exemplar-nginx
  # The image's user opens it again.
  install -m 666 /dev/null "$state/nginx.log"
  (inside "${command[@]}") >"$state/nginx.log" 2>&1 </dev/null &
  server=$!
  container exemplar-busybox
  for tries in {1..50}; do
    page=$(inside "${command[@]}" 2>"$state/busybox.log") && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  if [ -z "$page" ]; then
    sed 's/^/  /' "$state/nginx.log" "$state/busybox.log" >&2
    fail "the web server's page could not be fetched in $tries tries"
  fi
  sed 's/^/  nginx:   /' "$state/nginx.log"
  printf '  busybox: %s\n' "$page"
  stop_containers
  rm -rf "$state"/storage*
}

# Starts a process that keeps a network namespace with only a loopback device.
network_of_its_own() {
  setpriv --pdeathsig KILL unshare --net sleep infinity &
  network=$!
  until [ "$(readlink "/proc/$network/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
  nsenter --net --target "$network" "$IMAGE_LIFECYCLE_TOOLS/images-root/usr/bin/busybox" ip link set lo up
}

# container IMAGE: unpacks the image in prod. Sets `root`, and `user`, `variables` and `command` from its configuration.
container() {
  local name read='
import json, sys
config = json.load(sys.stdin)["config"]
print(config["User"], *config["Env"], "--", *(config.get("Entrypoint") or []), *(config.get("Cmd") or []), sep="\0", end="\0")'
  skopeo copy --quiet --src-tls-verify=false "$(skopeo_source "$1" "prod-$version")" \
    "containers-storage:[vfs@$state/storage+$state/storage-run]localhost/$1:prod"
  name=$("${buildah[@]}" from --pull-never "localhost/$1:prod")
  root=$("${buildah[@]}" mount "$name")
  mapfile -d '' command < <(skopeo inspect --tls-verify=false --config "$(skopeo_source "$1" "prod-$version")" |
    "$IMAGE_LIFECYCLE_TOOLS/python/bin/python" -c "$read")
  user=${command[0]}
  variables=()
  until [ "${command[1]}" = -- ]; do
    variables+=("${command[1]}")
    command=("$user" "${command[@]:2}")
  done
  command=("${command[@]:2}")
}

# inside COMMAND...: in the last container, with processes and mounts of its own. Takes the place of this shell. The
# bash in there is the first of those processes: it is killed with its parent, and the others with it.
inside() {
  exec nsenter --net --target "$network" setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
    bash -c 'cd "$1" && mkdir -p dev proc && mount --rbind /dev dev && mount -t proc proc proc && "${@:2}"; exit $?' \
    bash "$root" env -i "${variables[@]}" chroot --userspec="$user" "$root" "$@"
}

stop_containers() {
  local process
  for process in $server $network; do
    kill -KILL "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
  server=
  network=
}
