# Sourced by `install`, after debian.sh: programs that Debian's stable release lacks or has an older version of.

# testing_root NAME PACKAGE,...: as debian_root, from the release after this one. A mirror of it may be frozen, and the
# date on its index in the past.
testing_root() {
  debian_suite=forky
  mmdebstrap() { command mmdebstrap --aptopt='Acquire::Check-Valid-Until "false"' "$@"; }
  debian_root "$@"
}

# newest_programs: builders and copy tools, as programs of a machine of an older release. Three of them need a newer C
# library, or libraries that this machine lacks, so they are told where theirs are. They start themselves again, and
# would lose a loader in front of them.
newest_programs() {
  testing_root newest buildah,netavark,crun,skopeo,oras,crane,docker.io,docker-cli,docker-buildx
  local root=$tools/newest-root newest=$tools/newest program loader libraries
  loader=$(patchelf --print-interpreter "$root/usr/bin/buildah")
  libraries=$(dirname "$(find "$root/usr/lib" -name 'libgpgme.so.*' -print -quit)")
  rm -rf "$newest"
  mkdir -p "$newest"/{bin,programs}
  for program in buildah crun skopeo; do
    cp "$root/usr/bin/$program" "$newest/programs"
    patchelf --set-interpreter "$root/usr/${loader#/}" --force-rpath --set-rpath "$libraries" "$newest/programs/$program"
  done
  for program in crun skopeo; do ln -s "../programs/$program" "$newest/bin"; done
  for program in oras crane; do ln -s "../../newest-root/usr/bin/$program" "$newest/bin"; done
  for program in cosign notation; do ln -s "../../signing-root/usr/bin/$program" "$newest/bin"; done
  # buildah wants to know where its network helper is, also where it does not use it.
  printf '[engine]\nhelper_binaries_dir = ["%s"]\n' "$root/usr/lib/podman" >"$newest/containers.conf"
  printf '#!/bin/sh\nCONTAINERS_CONF=%q exec %q "$@"\n' "$newest/containers.conf" "$newest/programs/buildah" >"$newest/bin/buildah"
  chmod +x "$newest/bin/buildah"
}
