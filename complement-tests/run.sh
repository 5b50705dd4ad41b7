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
passes() { # EVENTS: the names of what passed, sorted
  python3 -c '
import json, sys
names = set()
for line in open(sys.argv[1], errors="replace"):
    try: event = json.loads(line)
    except ValueError: continue
    if event.get("Action") == "pass" and event.get("Test"):
        names.add(event["Package"].removeprefix("github.com/matrix-org/complement/") + " " + event["Test"])
print("\n".join(sorted(names)))' "$1"
}
run_tests() { # PACKAGE…
  local checkout=${COMPLEMENT:-$repository/target/complement}
  [ -d "$checkout" ] || git clone --quiet --depth 1 https://github.com/matrix-org/complement "$checkout"
  [ -n "${COMPLEMENT_BASE_IMAGE:-}" ] || { image voicechat-complement >/dev/null; export COMPLEMENT_BASE_IMAGE=voicechat-complement; }
  mkdir -p "$out"
  local pattern=(); [ -n "${RUN:-}" ] && pattern=(-run "$RUN")
  # containers are named after packages: one at a time. A failed test is judged below, not here.
  (cd "$checkout" && go test -json -p 1 -count=1 -timeout 90m "${pattern[@]}" "$@") >"$out/events.jsonl" 2>"$out/stderr" || true
  passes "$out/events.jsonl" >"$out/passes"
  python3 -c '
import json, sys, collections
last = {}
for line in open(sys.argv[1], errors="replace"):
    try: event = json.loads(line)
    except ValueError: continue
    if event.get("Test") and event["Action"] in ("pass", "fail", "skip"): last[event["Package"], event["Test"]] = event["Action"]
by = collections.defaultdict(collections.Counter)
for (package, test), action in last.items(): by[package.rsplit("/", 1)[-1], "tests" if "/" not in test else "subtests"][action] += 1
for (package, kind), counts in sorted(by.items()): print(f"# complement {package} {kind}: " + ", ".join(f"{counts[a]} {w}" for a, w in (("pass", "passed"), ("fail", "failed"), ("skip", "skipped"))))
' "$out/events.jsonl"
  [ -s "$out/passes" ] || { tail -n 20 "$out/stderr" >&2; die "no test passed"; }
  [ -n "${RUN:-}" ] && return
  local ran lost
  ran=$(cut -d' ' -f1 "$out/passes" | sort -u)
  lost=$(grep -v '^#' "$here/expected.txt" | grep -F -w -f <(printf '%s\n' "$ran") | comm -23 <(cat | sort) "$out/passes" || true)
  [ -z "$lost" ] || { printf 'passed before and not now:\n%s\n' "$lost"; return 1; }
  echo "everything expected passed; $(comm -13 <(grep -v '^#' "$here/expected.txt" | sort) "$out/passes" | wc -l) passes are new (run.sh accept)"
}
accept() {
  [ -s "$out/passes" ] || die "run the tests first"
  { grep '^#' "$here/expected.txt"; sort -u <(grep -v '^#' "$here/expected.txt") "$out/passes"; } >"$out/expected" && mv "$out/expected" "$here/expected.txt"
}

case ${1:-} in
  image) image "${2:-voicechat-complement}" ;;
  context) context "${2:?a directory}" ;;
  test) shift; [ $# -gt 0 ] || set -- ./tests/csapi ./tests; run_tests "$@" ;;
  accept) accept ;;
  *) sed -n '2,13p' "$0"; exit 2 ;;
esac
