# Sourced by tests/all and .ci/run: finds or installs what they need. Nothing here is needed to use Tidemill.
#
# Installs with the system's package manager only when run as root; otherwise says what is missing.

# Installs Debian packages; false when that cannot be done here.
install_packages() {
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
  echo "installing with apt-get: $*"
  local get=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
  "${get[@]}" >/dev/null 2>&1 || { apt-get update -qq >/dev/null && "${get[@]}" >/dev/null; }
}

# Makes sure of cargo and a C compiler, without which nothing can be built.
need_compilers() {
  if ! command -v cargo >/dev/null 2>&1 && [ -r "${CARGO_HOME:-${HOME:-}/.cargo}/env" ]; then
    . "${CARGO_HOME:-${HOME:-}/.cargo}/env"
  fi
  if ! command -v cargo >/dev/null 2>&1; then
    echo "there is no cargo; install the stable Rust toolchain with rustup" >&2
    return 1
  fi
  if ! command -v cc >/dev/null 2>&1 && ! install_packages gcc libc6-dev; then
    echo "there is no C compiler (cc); install one, such as the packages gcc and libc6-dev" >&2
    return 1
  fi
}

# Makes sure of a component of the Rust toolchain (a minimal one lacks rustfmt and clippy).
need_component() {
  local tool=$1
  [ "$tool" = rustfmt ] && tool=fmt
  cargo "$tool" --version >/dev/null 2>&1 && return 0
  command -v rustup >/dev/null 2>&1 && rustup component add "$1" && return 0
  echo "the Rust toolchain has no $1; add it with: rustup component add $1" >&2
  return 1
}

# Sets `python` to a Python that has tests/python/requirements.txt, kept in a virtual environment in the target
# directory; when that cannot be had, fails and sets `python_why`.
need_python() {
  local home=${CARGO_TARGET_DIR:-target}/python wanted=tests/python/requirements.txt
  python="" python_why=""
  if ! { mkdir -p "$home" && home=$(cd "$home" && pwd); }; then
    python_why="$home cannot be written"
    return 1
  fi
  local venv=$home/venv
  if [ -x "$venv/bin/python" ] && cmp -s "$wanted" "$home/installed.txt"; then
    python=$venv/bin/python
    return 0
  fi
  if ! command -v python3 >/dev/null 2>&1 && ! install_packages python3 python3-venv; then
    python_why="there is no python3"
    return 1
  fi
  if ! make_venv "$venv" && ! { install_packages python3-venv && make_venv "$venv"; }; then
    python_why="python3 cannot make a virtual environment; install python3-venv"
    return 1
  fi
  echo "installing for Python, in $venv: $(grep -v '^#' "$wanted" | paste -sd' ')"
  if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" >"$home/log" 2>&1; then
    python_why="pip could not install $wanted: $(grep -m1 -i error "$home/log" || tail -n1 "$home/log")"
    return 1
  fi
  cp "$wanted" "$home/installed.txt"
  python=$venv/bin/python
}

make_venv() {
  rm -rf "$1"
  python3 -m venv "$1" >/dev/null 2>&1
}
