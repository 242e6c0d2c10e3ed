# Sourced by `install`: programs that this machine's release lacks or should not run as services, unpacked in a folder
# and never configured. mmdebstrap checks the archive's signature with debian-archive-keyring.

debian_suite=trixie

# debian_root NAME PACKAGE,...: unpacks the packages and all that they depend on in $tools/NAME-root.
debian_root() {
  local root=$tools/$1-root mirror mode=root
  mirror=$(debian_mirror)
  # Nothing is run in there, so root is not needed for it.
  [ "$(id -u)" = 0 ] || mode=chrootless
  rm -rf "$root" "$root.partial"
  # What the package that every Debian system starts with would bring, and mount points.
  mkdir -p "$root.partial"/{proc,sys,run,usr,var/lib/docker}
  ln -s /run "$root.partial/var/run"
  # As an archive, since a folder that an ordinary user makes would be full of files that are not theirs.
  mmdebstrap --mode="$mode" --variant=extract --include="$2" --format=tar "$debian_suite" - ${mirror:+"$mirror"} |
    tar --extract --no-same-owner --exclude='./dev/*' --directory "$root.partial"
  local name
  for name in bin sbin lib lib64; do
    if [ ! -e "$root.partial/$name" ]; then ln -s "usr/$name" "$root.partial/$name"; fi
  done
  mv "$root.partial" "$root"
}

# The archive that this machine's own packages come from. Nothing where it is no Debian: mmdebstrap has a default.
debian_mirror() (
  source /etc/os-release
  [ "$ID" = debian ] || exit 0
  apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$VERSION_CODENAME" '$1 == release && !found++ { print $2 }'
)
