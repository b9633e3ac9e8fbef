#!/usr/bin/env python3
"""Sums up the single test cases of a results folder and prints the line "N passed, N failed[, N skipped]".

Read: *.xml (GoogleTest), *.tap and *.vitest (JUnit of Node's runners), ctest.junit (ctest's own list, which knows the
programs that crashed or wrote nothing). Exit code 0 only if something passed and nothing failed.
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def count_cases(path):
    """(passed, failed, skipped) of one JUnit-like file; a file that is not whole is one failure."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return 0, 1, 0
    passed = failed = skipped = 0
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") == "notrun" or case.get("result") == "skipped":
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def ctest_results(path):
    """name -> "run", "fail" or "notrun" as ctest saw each program."""
    if not path.exists():
        return None
    cases = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        cases[case.get("name")] = case.get("status")
    return cases


def main():
    folder = pathlib.Path(sys.argv[1])
    total = [0, 0, 0]
    failures_in = {}

    def add(counts, name):
        for i in range(3):
            total[i] += counts[i]
        failures_in[name] = failures_in.get(name, 0) + counts[1]

    programs = ctest_results(folder / "ctest.junit")
    if programs is None:
        print("ctest did not run: see above", file=sys.stderr)
        add((0, 1, 0), "ctest")
    reported = set()
    for path in sorted(folder.glob("*.xml")) + sorted(folder.glob("*.vitest")) + sorted(folder.glob("*.node")):
        name = path.stem.split("@")[0]
        reported.add(name)
        add(count_cases(path), name)
    for name, status in (programs or {}).items():
        if name in reported:
            # Crashed after its report, or a leak found at exit.
            if status == "fail" and failures_in.get(name, 0) == 0:
                print(f"{name}: failed, although each of its cases passed", file=sys.stderr)
                add((0, 1, 0), name)
        elif status == "run":
            add((1, 0, 0), name)
        elif status in ("notrun", "disabled"):
            add((0, 0, 1), name)
        else:
            print(f"{name}: ended without a report", file=sys.stderr)
            add((0, 1, 0), name)
    if (folder / "web.failed").exists() and failures_in.get("web", 0) == 0:
        add((0, 1, 0), "web")
    passed, failed, skipped = total
    sys.stderr.flush()
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
