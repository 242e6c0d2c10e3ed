#!/usr/bin/env bash
# Tests set-version.sh. Each test has its own git repository.
set -euo pipefail

script=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/set-version.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The machine's git settings must not have any effect.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.com GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.com
unset GIT_DIR GIT_WORK_TREE GITHUB_OUTPUT

passed=0 failed=0 count=0

repository() {
  count=$((count + 1))
  git init --quiet --initial-branch=main "$scratch/$count"
  cd "$scratch/$count"
}

# Each argument is a commit message, or a tag if it starts with `@`.
history() {
  local step
  for step in "$@"; do
    case $step in
      @*) git tag "${step#@}" ;;
      *) git commit --quiet --allow-empty --cleanup=verbatim --message "$step" ;;
    esac
  done
}

check() {
  local what=$1 actual=$2 expected=$3
  if [[ $actual == "$expected" ]]; then
    passed=$((passed + 1))
    echo "ok - $what"
  else
    failed=$((failed + 1))
    printf 'not ok - %s\n  expected: %q\n  actual:   %q\n' "$what" "$expected" "$actual"
  fi
}

# Prints the version for a history.
gives() {
  local what=$1 expected=$2
  shift 2
  repository
  history "$@"
  check "$what" "$("$script" 2>&1 | sed 's/: .*//')" "$expected"
}

# Prints stderr and the exit code of a run in the current folder.
refuses() {
  local what=$1 expected=$2 code=0 said
  said=$("$script" 2>&1) || code=$?
  check "$what" "$code ${said:0:${#expected}}" "1 $expected"
}

gives "the first version" 1.0.0 "feat: begin"
gives "only foreign tags" 1.0.0 begin @v1 @v1.2 @v2.0.0-rc.1 @release-7 @v01.2.3 @w1.2.3 more
gives "a tag on this very commit" 1.2.3 begin @v1.2.3
gives "the highest tag on this very commit" 1.10.0 begin @v1.9.0 @v1.10.0
gives "a fix" 1.2.4 begin @v1.2.3 "fix: one"
gives "no convention at all" 1.2.4 begin @v1.2.3 "Update the page"
gives "a feature" 1.3.0 begin @v1.2.3 "feat: one" "fix: two"
gives "a feature with a scope" 1.3.0 begin @v1.2.3 "feat(api): one"
gives "a feature in capitals" 1.3.0 begin @v1.2.3 "Feat: one"
gives "a word that only begins so" 1.2.4 begin @v1.2.3 "feature: one" "feat one"
gives "a breaking mark" 2.0.0 begin @v1.2.3 "refactor!: one" "feat: two"
gives "a breaking mark after a scope" 2.0.0 begin @v1.2.3 "fix(api)!: one"
gives "a breaking footer" 2.0.0 begin @v1.2.3 $'fix: one\n\nText.\n\nBREAKING CHANGE: no more'
gives "a breaking footer with a hyphen" 2.0.0 begin @v1.2.3 $'fix: one\n\nBREAKING-CHANGE: no more'
gives "a footer's words in the subject" 1.2.4 begin @v1.2.3 "docs: what BREAKING CHANGE: means"
gives "a breaking change before 1.0.0" 0.3.0 begin @v0.2.3 "feat!: one"
gives "versions are numbers" 1.10.1 begin @v1.9.0 more @v1.10.0 "fix: one"
gives "commits before the tag do not count" 1.2.4 "feat!: begin" @v1.2.3 "fix: one"

repository
history begin @v1.2.3 "feat: one"
hash=$(git log -1 --format=%h)
check "the reason" "$("$script")" "1.3.0: a minor step above v1.2.3 (commits since: 1), for $hash feat: one"

repository
history begin @v1.2.3 "fix: ##[error]one"$'\e'"[31m"
check "no command and no control character in the reason" "$("$script" | grep -c -e '##\[' -e $'\e' || true)" 0

repository
history begin @v1.0.0 @exemplar-v3.1.4 "fix: one"
check "a prefix of its own" "$("$script" exemplar-v | sed 's/: .*//')" 3.1.5

repository
history begin @v1.2.3
git switch --quiet --create other
history "feat: theirs" @v1.9.0
git switch --quiet main
history "fix: ours"
check "a tag of another branch" "$("$script" | sed 's/: .*//')" 1.2.4
git merge --quiet --no-ff --message "Merge other" other
check "a tag that was merged" "$("$script" | sed 's/: .*//')" 1.9.1

repository
history begin @v1.2.3
git switch --quiet --create other
history "fix: theirs" @v1.2.4
git switch --quiet main
history "fix: ours"
refuses "a version that another branch took" "set-version: the tag v1.2.4 exists on another branch"

# The format that the runner reads: name, delimiter, value, delimiter.
repository
history begin @v1.2.3 "fix: one"
GITHUB_OUTPUT=$scratch/output "$script" >/dev/null
GITHUB_OUTPUT=$scratch/output2 "$script" >/dev/null
delimiter=$(sed -n 's/^version<<//p' "$scratch/output")
check "the outputs" "$(cat "$scratch/output")" \
  "$(printf 'version<<%s\n1.2.4\n%s\ntag<<%s\nv1.2.4\n%s' "$delimiter" "$delimiter" "$delimiter" "$delimiter")"
check "a fresh delimiter" "$(sort -u <(head -n 1 "$scratch/output") <(head -n 1 "$scratch/output2") | wc -l)" 2

history "fix: two"
git clone --quiet --depth 1 "file://$PWD" "$scratch/shallow"
cd "$scratch/shallow"
refuses "a shallow clone" "set-version: the clone is shallow, so tags and commits are missing; check out with \`fetch-depth: 0\`"
repository
refuses "no commit" "set-version: there is no commit yet"
mkdir "$scratch/none"
cd "$scratch/none"
GIT_CEILING_DIRECTORIES=$scratch refuses "no repository" "set-version: this is not a git repository"

echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
