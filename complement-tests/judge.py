#!/usr/bin/env python3
"""Reads the `go test -json` events of a Complement run and compares what passed with what is expected.

    judge.py EVENTS EXPECTED PASSES     writes PASSES, prints counts; fails if an expected pass of a package that ran is lost
    judge.py accept EXPECTED PASSES     adds PASSES to EXPECTED
"""

import collections
import json
import sys

MODULE = "github.com/matrix-org/complement/"


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]


def names(path):
    return {line for line in lines(path) if line and not line.startswith("#")}


def verdicts(path):
    """The packages that ran, and the last verdict on each test."""
    packages, last = set(), {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # output of the tests that is not an event
            package = event.get("Package", "").removeprefix(MODULE)
            if package:
                packages.add(package)
            if event.get("Test") and event.get("Action") in ("pass", "fail", "skip"):
                last[package, event["Test"]] = event["Action"]
    return packages, last


def judge(events, expected, passes):
    packages, last = verdicts(events)
    counts = collections.defaultdict(collections.Counter)
    for (package, test), verdict in last.items():
        counts[package, "subtests" if "/" in test else "tests"][verdict] += 1
    for (package, kind), count in sorted(counts.items()):
        print(f"# complement {package} {kind}: {count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    passed = {f"{package} {test}" for (package, test), verdict in last.items() if verdict == "pass"}
    with open(passes, "w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in sorted(passed))
    wanted = {name for name in names(expected) if name.split(" ", 1)[0] in packages}
    lost = sorted(wanted - passed)
    for name in lost:
        print(f"passed before and not now: {name}")
    print(f"# {len(passed)} passes, {len(wanted)} expected, {len(lost)} lost, {len(passed - wanted)} new")
    return 1 if lost or not passed else 0


def accept(expected, passes):
    head = [line for line in lines(expected) if line.startswith("#")]
    with_new = sorted(names(expected) | names(passes))
    with open(expected, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in head + with_new)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(accept(*sys.argv[2:]) if sys.argv[1] == "accept" else judge(*sys.argv[1:]))
