# Sourced by `install`: packages of the machine's own distribution.

# packages NAME...: installs those that are missing; asks for them by name where this user may not.
packages() {
  local missing=() name
  for name in "$@"; do installed "$name" || missing+=("$name"); done
  [ ${#missing[@]} = 0 ] && return
  if ! command -v apt-get >/dev/null; then
    say "these are missing, and this machine has no apt-get to install them with: ${missing[*]}"
    exit 1
  fi
  local root=()
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -v 2>/dev/null; then
      say "these packages are missing, and installing them takes root: ask for: apt-get install ${missing[*]}"
      exit 1
    fi
    root=(sudo)
  fi
  quietly "Debian packages: ${missing[*]}" apt_install "${missing[@]}"
}

# By what a package brings rather than by its name: a program built from source serves as well.
installed() {
  case $1 in
    debian-archive-keyring) [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ;;
    gcc-aarch64-linux-gnu) command -v aarch64-linux-gnu-gcc >/dev/null ;;
    libc6-dev-arm64-cross) [ -e /usr/aarch64-linux-gnu/include/stdio.h ] ;;
    python3-pip) /usr/bin/python3 -m pip --version >/dev/null 2>&1 ;;
    python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    qemu-user-static) command -v qemu-aarch64-static >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# The package lists are fetched only where the present ones don't do: absent, or too old for what the archive holds now.
apt_install() {
  local install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive
    apt-get -y -q -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@")
  "${install[@]}" || { "${root[@]}" apt-get -q -o DPkg::Lock::Timeout=300 update && "${install[@]}"; }
}
