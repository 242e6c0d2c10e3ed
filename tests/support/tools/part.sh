# Sourced by `install`: one thing that is installed once, and again when what describes it has changed.

say() { printf 'tools: %s\n' "$*" >&2; }

# part NAME "WHAT IT IS" FILE... -- COMMAND...
# Runs COMMAND where the FILEs, its words or the architecture differ from those of the last run that succeeded.
part() {
  local name=$1 what=$2 files=() stamp key
  shift 2
  while [ "$1" != -- ]; do files+=("$here/$1") && shift; done
  shift
  stamp=$tools/stamps/$name
  key=$({ cat "${files[@]}" && printf '%s\n' "${@#"$here"/}" "$tools" "$(uname -m)"; } | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$key" ] && return
  rm -f "$stamp"
  quietly "$what" "$@"
  printf '%s\n' "$key" >"$stamp"
}

# quietly "WHAT IT IS" COMMAND...: one line that tells how long it took; what COMMAND printed is shown where it failed.
# COMMAND is a process of its own, so that `set -e` holds inside of it.
quietly() {
  local what=$1 start=$SECONDS status=0
  shift
  say "$what ..."
  set +e
  (set -e && "$@") >"$log" 2>&1 </dev/null
  status=$?
  set -e
  if [ $status != 0 ]; then
    tail -n 40 "$log" | sed 's/^/  /' >&2
    say "failed: $what (the whole output: $log)"
    exit 1
  fi
  say "$what: done in $((SECONDS - start)) s"
}

# link FOLDER NAME...: programs of a part that belong on PATH.
link() {
  local folder=$1 name
  shift
  for name in "$@"; do ln -sfn "../$folder/$name" "$tools/bin/$name"; done
}
