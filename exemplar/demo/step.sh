# Sourced by `run`. Runs a step of a workflow like the runner.

# step ACTION NAME=VALUE...: runs the action with these inputs. `output` then reads its outputs.
step() {
  local action=$1 inputs=() input arch commit
  shift
  for input in WORKING_DIRECTORY=exemplar "$@"; do inputs+=("INPUT_$input"); done
  arch=$(uname -m | sed 's/x86_64/X64/; s/aarch64/ARM64/')
  commit=$(git -C "$top" rev-parse --verify --quiet HEAD || printf '%040d' 0)
  outputs=$state/temp/output
  : >"$outputs"
  # Only the variables that a runner would have.
  env -i PATH="$PATH" HOME="$HOME" LANG=C.UTF-8 "${aws[@]}" \
    RUNNER_OS=Linux RUNNER_ARCH="$arch" RUNNER_TEMP="$state/temp" \
    GITHUB_ACTION_PATH="$top/dist/$action" GITHUB_WORKSPACE="$top" GITHUB_OUTPUT="$outputs" \
    GITHUB_STEP_SUMMARY="$state/temp/summary.md" GITHUB_SERVER_URL=https://github.com \
    GITHUB_REPOSITORY=example/exemplar GITHUB_SHA="$commit" GITHUB_RUN_ID=1 GITHUB_ACTOR=demo \
    "${inputs[@]}" "$top/dist/bin/Linux-$arch/action-$action" 2>&1 | readable
}

# output NAME: prints the value of an output of the last step.
output() {
  local line name end
  while IFS= read -r line; do
    name=${line%%<<*}
    end=${line#*<<}
    while IFS= read -r line && [ "$line" != "$end" ]; do
      if [ "$name" = "$1" ]; then printf '%s\n' "$line"; fi
    done
  done <"$outputs"
}

# Formats workflow commands for people. Other lines are passed on unchanged.
readable() {
  local line fence=
  while IFS= read -r line || [ -n "$line" ]; do
    if [ -n "$fence" ]; then
      if [ "$line" = "::$fence::" ]; then fence=; else printf '    %s\n' "$line"; fi
      continue
    fi
    case $line in
      ::stop-commands::*) fence=${line#::stop-commands::} ;;
      ::group::*) printf '  %s\n' "${line#::group::}" ;;
      ::endgroup::* | ::add-mask::* | ::debug::*) ;;
      ::error* | ::warning* | ::notice*) annotation "$line" ;;
      # The output of a builder only matters if it failed.
      "── "*) printf '  %s (log: %s)\n' "${line#── }" "${state#"$top"/}/build.log" ;;
      "   "*) printf '%s\n' "$line" >>"$state/build.log" ;;
      *) printf '  %s\n' "$line" ;;
    esac
  done
}

# annotation "::error file=F,line=L::MESSAGE": prints its level and its message.
annotation() {
  local kind=${1#::} message
  message=${kind#*::}
  kind=${kind%%::*}
  message=${message//%0D/}
  message=${message//%0A/$'\n'    }
  printf '  %s: %s\n' "${kind%% *}" "${message//%25/%}"
}
