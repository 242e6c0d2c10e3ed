# Sourced by `install`, after debian.sh: programs that Debian's stable release lacks or has an older version of.

# testing_root NAME PACKAGE,...: as debian_root, from the release after this one. A mirror of it may be frozen, and the
# date on its index in the past.
testing_root() {
  debian_suite=forky
  mmdebstrap() { command mmdebstrap --aptopt='Acquire::Check-Valid-Until "false"' "$@"; }
  debian_root "$@"
}
