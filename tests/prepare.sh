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
  need_venv "${CARGO_TARGET_DIR:-target}/python" tests/python/requirements.txt
  local code=$?
  python=$venv_python python_why=$venv_why
  return $code
}

# Sets `feast` to a Python that has Feast's SDK. It is big, so that it is kept between runs and outside the target directory;
# when it cannot be had, fails and sets `feast_why`.
need_feast() {
  need_venv "$(test_cache)/feast" tests/python/feast-requirements.txt
  local code=$?
  feast=$venv_python feast_why=$venv_why
  return $code
}

# Makes a virtual environment with the packages of a file below a directory, unless it is there, and sets `venv_python`; when
# that cannot be done, fails and sets `venv_why`.
need_venv() {
  local home=$1 wanted=$2
  venv_python="" venv_why=""
  if ! { mkdir -p "$home" && home=$(cd "$home" && pwd); }; then
    venv_why="$home cannot be written"
    return 1
  fi
  local venv=$home/venv
  if [ -x "$venv/bin/python" ] && cmp -s "$wanted" "$home/installed.txt"; then
    venv_python=$venv/bin/python
    return 0
  fi
  if ! command -v python3 >/dev/null 2>&1 && ! install_packages python3 python3-venv; then
    venv_why="there is no python3"
    return 1
  fi
  if ! make_venv "$venv" && ! { install_packages python3-venv && make_venv "$venv"; }; then
    venv_why="python3 cannot make a virtual environment; install python3-venv"
    return 1
  fi
  echo "installing for Python, in $venv: $(grep -v '^#' "$wanted" | paste -sd' ')"
  if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" >"$home/log" 2>&1; then
    venv_why="pip could not install $wanted: $(grep -m1 -i error "$home/log" || tail -n1 "$home/log")"
    return 1
  fi
  cp "$wanted" "$home/installed.txt"
  venv_python=$venv/bin/python
}

make_venv() {
  rm -rf "$1"
  python3 -m venv "$1" >/dev/null 2>&1
}

# The Kafka that the tests run. Its jars, a formatted data directory and a class archive are kept between runs.
kafka_version=4.1.1

# Where servers that only tests need are kept between runs.
test_cache() {
  local cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
  echo "${cache:-${CARGO_TARGET_DIR:-target}}/tidemill"
}

# Makes sure of an Apache Kafka broker and sets `kafka` to the directory of its jars; when that cannot be had, fails and
# sets `kafka_why`.
need_kafka() {
  kafka="" kafka_why=""
  if ! java_is_new_enough && ! { install_packages default-jre-headless && java_is_new_enough; }; then
    kafka_why="there is no java of version 17 or newer; install one, such as the package default-jre-headless"
    return 1
  fi
  local home
  home=$(test_cache)/kafka
  local dir=$home/$kafka_version
  if [ ! -e "$dir/complete" ]; then
    if ! command -v mvn >/dev/null 2>&1 && ! install_packages maven; then
      kafka_why="there is no mvn to fetch Kafka with; install the package maven"
      return 1
    fi
    echo "fetching Kafka $kafka_version into $dir"
    if ! fetch_kafka "$home" "$dir"; then
      kafka_why="mvn could not fetch Kafka $kafka_version: $(grep -m1 ERROR "$home/log" 2>/dev/null || tail -n1 "$home/log" 2>/dev/null)"
      return 1
    fi
  fi
  if [ ! -e "$dir/tools" ] && ! fetch_kafka_tools "$home" "$dir"; then
    echo "mvn could not fetch the command line tools of Kafka $kafka_version"
  fi
  kafka=$dir
}

java_is_new_enough() {
  local version
  version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n1)
  [ "${version:-0}" -ge 17 ]
}

# Fetches the jars from Maven's repository, then saves each test run some seconds: a data directory formatted once, and
# an archive of the classes that a broker loads.
fetch_kafka() {
  local home=$1 dir=$2 work
  mkdir -p "$home" && work=$(mktemp -d "$home/fetching.XXXXXX") || return 1
  fetch_jars kafka_2.13 "$work" >"$home/log" 2>&1 || { rm -rf "$work"; return 1; }
  rm -rf "$dir" && mv "$work" "$dir" || return 1
  # A broker starts without these two, only later.
  warm_kafka "$dir" >>"$home/log" 2>&1 || rm -rf "$dir/formatted" "$dir/classes.jsa"
  touch "$dir/complete"
}

# The tools' own jar, in a folder apart: the archive of classes fits only the class path that it was made with. The rest
# of what they need the broker has.
fetch_kafka_tools() {
  local home=$1 dir=$2 work
  command -v mvn >/dev/null 2>&1 || install_packages maven || return 1
  work=$(mktemp -d "$home/fetching.XXXXXX") || return 1
  if fetch_jars kafka-tools "$work" -DexcludeTransitive=true >"$home/log" 2>&1 && mv -T "$work" "$dir/tools"; then
    return 0
  fi
  rm -rf "$work"
  return 1
}

# Fetches an artifact of Kafka's and what it depends on into a folder; further arguments are options of the plugin's.
fetch_jars() {
  local artifact=$1 folder=$2
  shift 2
  cat >"$folder/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemill</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>$artifact</artifactId><version>$kafka_version</version></dependency>
  </dependencies>
</project>
POM
  mvn -q -B -f "$folder/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$folder" "$@" && rm "$folder/pom.xml"
}

warm_kafka() {
  local dir=$1 port=$((20000 + RANDOM % 10000)) work pid
  work=$(mktemp -d) || return 1
  local classpath java
  classpath=$(cd "$dir" && LC_ALL=C && printf "$dir/%s:" *.jar)
  # The flags decide which archives fit: they are those of tests/integration/support/kafka.rs.
  java=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "${classpath%:}")
  cat >"$work/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
log.dirs=$work/data
PROPERTIES
  mkdir "$work/data" &&
    "${java[@]}" kafka.tools.StorageTool format -t dGlkZW1pbGwtdGVzdHMtMQ -c "$work/server.properties" &&
    cp -r "$work/data" "$dir/formatted" || { rm -rf "$work"; return 1; }
  "${java[@]}" -XX:ArchiveClassesAtExit="$dir/classes.jsa" kafka.Kafka "$work/server.properties" &
  pid=$!
  for _ in $(seq 300); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
  done
  sleep 1
  kill -TERM $pid 2>/dev/null
  wait $pid
  rm -rf "$work"
  [ -e "$dir/classes.jsa" ]
}

# Makes sure of a Redis server and sets `redis` to its program; when that cannot be had, fails and sets `redis_why`.
need_redis() {
  redis="" redis_why=""
  if ! command -v redis-server >/dev/null 2>&1 && ! install_packages redis-server; then
    redis_why="there is no redis-server; install the package redis-server"
    return 1
  fi
  redis=$(command -v redis-server)
}

# Makes sure of Prometheus with promtool, and of amtool; when they cannot be had, fails and sets `prometheus_why`.
need_prometheus() {
  prometheus_why=""
  has_prometheus || { install_packages prometheus prometheus-alertmanager && has_prometheus; } || {
    prometheus_why="there is no prometheus, promtool or amtool; install the packages prometheus and prometheus-alertmanager"
    return 1
  }
}

has_prometheus() {
  command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1 && command -v amtool >/dev/null 2>&1
}

# Makes sure of the programs openssl and curl; when they cannot be had, fails and sets `curl_why`.
need_curl() {
  curl_why=""
  has_curl || { install_packages curl openssl && has_curl; } || {
    curl_why="there is no curl or openssl; install the packages curl and openssl"
    return 1
  }
}

has_curl() {
  command -v curl >/dev/null 2>&1 && command -v openssl >/dev/null 2>&1
}

# Makes sure of kcat; when that cannot be had, fails and sets `kcat_why`.
need_kcat() {
  kcat_why=""
  if ! command -v kcat >/dev/null 2>&1 && ! install_packages kcat; then
    kcat_why="there is no kcat; install the package kcat"
    return 1
  fi
}

# Makes sure of a headless Chromium; when that cannot be had, fails and sets `chromium_why`.
need_chromium() {
  chromium_why=""
  [ -n "${TIDEMILL_CHROMIUM:-}" ] && return 0
  local name
  for name in chromium chromium-browser google-chrome chrome-headless-shell; do
    command -v "$name" >/dev/null 2>&1 && return 0
  done
  if ! install_packages chromium; then
    chromium_why="there is no chromium; install the package chromium"
    return 1
  fi
}

# Makes sure of OpenSSL's headers, which the cargo feature kafka-tls needs; when they cannot be had, fails and sets
# `openssl_why`. Where they stand elsewhere, OPENSSL_DIR says where.
need_openssl() {
  openssl_why=""
  [ -n "${OPENSSL_DIR:-}" ] && return 0
  has_openssl || { install_packages libssl-dev pkg-config && has_openssl; } || {
    openssl_why="there are no headers of OpenSSL; install the packages libssl-dev and pkg-config"
    return 1
  }
}

has_openssl() {
  pkg-config --exists openssl 2>/dev/null
}

# Sets `go` to a Go that builds tests/registry and tests/kubernetes; when there is none, fails and sets `go_why`.
need_go() {
  new_go "$(command -v go 2>/dev/null)" || new_go /usr/local/go/bin/go || {
    install_packages golang-go && new_go "$(command -v go 2>/dev/null)"
  } || {
    go_why="there is no Go 1.21 or newer"
    return 1
  }
}

# From 1.21 on, Go fetches the version that a module asks for.
new_go() {
  go=$1 go_why=""
  [ -x "$go" ] && [ "$("$go" version | sed -n 's/.* go1\.\([0-9]*\).*/\1/p')" -ge 21 ] 2>/dev/null
}
