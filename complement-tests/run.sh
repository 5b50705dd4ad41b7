#!/usr/bin/env bash
# Complement against our server.
#
#   complement-tests/run.sh image [TAG]              builds the image (default tag voicechat-complement)
#   complement-tests/run.sh context DIR              only writes the build context to DIR
#   complement-tests/run.sh test [PACKAGE…]          runs ./tests/csapi and ./tests, or these packages, and compares
#                                                    the passes with expected.txt; fails if one of them is lost
#   complement-tests/run.sh accept                   makes the passes of the last run the expectation
#
# VOICECHAT: the binary (default: a debug build of this checkout). ENGINE: docker or podman.
# COMPLEMENT: a checkout of matrix-org/complement (default target/complement, cloned when it is missing).
# COMPLEMENT_BASE_IMAGE: an image that is there already; nothing is built then. RUN: a pattern for go test -run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$here")
out=$repository/target/complement-run
die() { echo "run.sh: $*" >&2; exit 1; }

context() { # DIR
  local target=${CARGO_TARGET_DIR:-$repository/target} binary=${VOICECHAT:-}
  if [ -z "$binary" ]; then
    (cd "$repository" && cargo build --quiet --locked -p voicechat)
    binary=$target/debug/voicechat
  fi
  [ -x "$binary" ] || die "no binary $binary"
  mkdir -p "$1"
  cp "$here/Dockerfile" "$here/start.sh" "$1/"
  cp "$binary" "$1/voicechat"
  strip --strip-debug "$1/voicechat" 2>/dev/null || true
}
image() { # TAG
  local engine=${ENGINE:-$(command -v docker || command -v podman || true)} place
  [ -n "$engine" ] || die "neither docker nor podman"
  place=$(mktemp -d); trap 'rm -rf "$place"' RETURN
  context "$place"
  local flags=(); [[ $engine == *podman ]] && flags=(--format docker --pull=missing)
  "$engine" build -q "${flags[@]}" -t "$1" "$place"
}
run_tests() { # PACKAGE…
  local checkout=${COMPLEMENT:-$repository/target/complement}
  [ -d "$checkout" ] || git clone --quiet --depth 1 https://github.com/matrix-org/complement "$checkout"
  [ -n "${COMPLEMENT_BASE_IMAGE:-}" ] || { image voicechat-complement >/dev/null; export COMPLEMENT_BASE_IMAGE=voicechat-complement; }
  mkdir -p "$out"
  local pattern=(); [ -n "${RUN:-}" ] && pattern=(-run "$RUN")
  # containers are named after packages: one at a time. A failed test is judged below, not here.
  (cd "$checkout" && go test -json -p 1 -count=1 -timeout 90m "${pattern[@]}" "$@") >"$out/events.jsonl" 2>"$out/stderr" || true
  local expected=$here/expected.txt
  [ -z "${RUN:-}" ] || expected=/dev/null # some tests of a package are not all of it
  python3 "$here/judge.py" "$out/events.jsonl" "$expected" "$out/passes" || { tail -n 20 "$out/stderr" >&2; return 1; }
}
accept() {
  [ -s "$out/passes" ] || die "run the tests first"
  python3 "$here/judge.py" accept "$here/expected.txt" "$out/passes"
}

case ${1:-} in
  image) image "${2:-voicechat-complement}" ;;
  context) context "${2:?a directory}" ;;
  test) shift; [ $# -gt 0 ] || set -- ./tests/csapi ./tests; run_tests "$@" ;;
  accept) accept ;;
  *) sed -n '2,13p' "$0"; exit 2 ;;
esac
