#!/usr/bin/env bash
# Computes the next semantic version from the git tags and the conventional commit messages since the newest tag.
#
#   set-version.sh [TAG_PREFIX]        (default: v)
#
# Prints the version with its reason. In a workflow, it sets the outputs `version` and `tag`.
#   - HEAD already has a version tag: that version, so that it stays the same when a workflow runs again
#   - no version tag in HEAD's history: 1.0.0
#   - otherwise the highest version, raised according to the commits: a breaking change raises the major number (the
#     minor number while the major is 0), `feat` raises the minor number, everything else the patch number
set -euo pipefail

fail() {
  echo "set-version: $1" >&2
  exit 1
}

prefix=${1-v}
# No leading zeros, and few enough digits for shell arithmetic.
number='(0|[1-9][0-9]{0,8})'
breaking_subject='^[[:alpha:]]+(\([^()]*\))?!:'
breaking_footer=$'\n''BREAKING[ -]CHANGE: '
feature_subject='^[Ff][Ee][Aa][Tt](\([^()]*\))?:'

git rev-parse --git-dir >/dev/null 2>&1 || fail "this is not a git repository"
git rev-parse --verify --quiet HEAD >/dev/null || fail "there is no commit yet"
[[ $(git rev-parse --is-shallow-repository) == false ]] ||
  fail "the clone is shallow, so tags and commits are missing; check out with \`fetch-depth: 0\`"

# Reads tags and prints the highest version among them. Other tags (v1, v1.2.3-rc.1, release-7) are ignored.
highest() {
  local tag
  while IFS= read -r tag; do
    if [[ $tag == "$prefix"* && ${tag#"$prefix"} =~ ^$number\.$number\.$number$ ]]; then
      echo "${tag#"$prefix"}"
    fi
  done | sort --version-sort | tail -n 1
}

# Prints a commit's subject for the log, without control characters and workflow commands.
printable() {
  local text=${1//[[:cntrl:]]/ }
  echo "${text//\#\#\[/## [}"
}

publish() {
  local version=$1 reason=$2
  echo "$version: $reason"
  [[ -n ${GITHUB_OUTPUT:-} ]] || return 0
  local delimiter
  delimiter=$(git hash-object --stdin < <(head -c 32 /dev/urandom))
  printf '%s<<%s\n%s\n%s\n' version "$delimiter" "$version" "$delimiter" \
    tag "$delimiter" "$prefix$version" "$delimiter" >>"$GITHUB_OUTPUT"
}

current=$(git tag --points-at HEAD | highest)
if [[ -n $current ]]; then
  publish "$current" "this commit is $prefix$current already"
  exit
fi

previous=$(git tag --merged HEAD | highest)
if [[ -z $previous ]]; then
  publish 1.0.0 "the first version, no tag ${prefix}X.Y.Z is in this history"
  exit
fi

commits=0 level="patch" cause=""
while IFS= read -r -d '' record; do
  commits=$((commits + 1))
  message=${record#*$'\n'}
  subject=${message%%$'\n'*}
  if [[ $subject =~ $breaking_subject || $message =~ $breaking_footer ]]; then
    found="major"
  elif [[ $subject =~ $feature_subject ]]; then
    found="minor"
  else
    found="patch"
  fi
  # The reason is the newest commit that raises the version most.
  if [[ -z $cause || $found == major && $level != major || $found == minor && $level == patch ]]; then
    level=$found
    cause="${record%%$'\n'*} $(printable "$subject")"
  fi
done < <(git log -z --no-merges --format='%h%n%B' "refs/tags/$prefix$previous..HEAD")

IFS=. read -r major minor patch <<<"$previous"
[[ $level == major && $major == 0 ]] && level="minor"
case $level in
  major) next=$((major + 1)).0.0 ;;
  minor) next=$major.$((minor + 1)).0 ;;
  patch) next=$major.$minor.$((patch + 1)) ;;
esac

if git rev-parse --verify --quiet "refs/tags/$prefix$next" >/dev/null; then
  fail "the tag $prefix$next exists on another branch; merge it, or tag this branch with a version of its own"
fi
publish "$next" "a $level step above $prefix$previous (commits since: $commits)${cause:+, for $cause}"
