#!/usr/bin/env python3
"""Rules of the tree that no compiler checks. Prints one line per fault with the rule's reason; exit 1 if any.

    tools/tidy.py [ROOT]
"""
import os
import re
import subprocess
import sys

ROOT = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), ".."))

# Who may include whom (src/README.md). Every part may include itself.
MAY_INCLUDE = {
    "base": set(),
    "net": {"base"},
    "core": {"base"},
    "wire": {"base", "core"},
    "sim": {"base", "core", "wire"},
    "gateway": {"base", "core", "wire", "net"},
    "controller": {"base", "core", "wire", "net"},
    "node": {"base", "core", "wire", "net", "vgpu"},
    "cli": {"base", "core", "wire", "net", "gateway", "controller", "node", "sim", "make-model"},
}
CORE_BASE_HEADERS = {"base/result.hpp", "base/units.hpp"}
CORE_BANNED = {
    r"\bsystem_clock\b|\bsteady_clock\b|\bclock_gettime\b|\btime\(nullptr\)": "core is told the time, it does not ask",
    r"\brandom_device\b|\bmt19937\b|\brand\(|std::\w+_distribution\b": "randomness is passed in (core/prng.hpp)",
    r"\bunordered_(map|set|multimap|multiset)\b": "the order of unordered containers differs between libraries",
    r"\bgetenv\b|\bfopen\b|\bifstream\b|\bofstream\b|\bprintf\(|\bstd::cout\b|\bstd::cerr\b": "core does no I/O",
    r"\bstd::thread\b|\bstd::mutex\b|\bstd::atomic\b": "core has no threads",
    r"\blog_(debug|info|warn|error)\(": "core explains itself as data; the shell logs",
    r"#include <(chrono|thread|mutex|fstream|iostream|random|filesystem)>": "core does not need this header",
}
LIBRARIES_OF_NET = r'#include <(boost/|nghttp2/|openssl/(ssl|bio))'
EVERYWHERE_BANNED = {
    r"co_await[^;]*\[[^\]]*[&=\w][^\]]*\]\s*\([^)]*\)\s*(->[^{]*)?\{": "g++ 12 destroys captures of a lambda in a co_await expression twice: name it first",
    r"\b(if|while) \((?:[^;{}()]|\([^;{}()]*\))*\bco_await\b": "g++ 12 traps on a temporary with a destructor in a condition: name the awaited value first",
    r"\bTODO\b(?!\(#\d+\))": "a TODO carries an issue number: TODO(#12)",
    r"\busing namespace std;": "names stay qualified",
}
CODE = (".cpp", ".hpp", ".h")
LINES_MAX = 700


def tracked():
    out = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=False)
    if out.returncode == 0:
        return [f for f in out.stdout.decode().split("\0") if f]
    return [os.path.relpath(os.path.join(d, f), ROOT) for d, _, fs in os.walk(ROOT) for f in fs]


def without_comments(text):
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def check(path, faults):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        raw = file.read()
    text = without_comments(raw)
    parts = path.split("/")
    part = parts[1] if parts[0] == "src" and len(parts) > 2 else None

    def report(match_start, reason, source=text):
        faults.append(f"{path}:{source.count(chr(10), 0, match_start) + 1}: {reason}")

    for match in re.finditer(r'#include "([^"]+)"', text):
        header = match.group(1)
        other = header.split("/")[0]
        if part is None or "/" not in header or other == part:
            continue
        if other not in MAY_INCLUDE[part]:
            report(match.start(), f"{part} may not include {header} (src/README.md)")
        elif part == "core" and header not in CORE_BASE_HEADERS:
            report(match.start(), f"core may use of base only {', '.join(sorted(CORE_BASE_HEADERS))}")
    if part == "core":
        for pattern, reason in CORE_BANNED.items():
            for match in re.finditer(pattern, text):
                report(match.start(), reason)
    if part and part not in ("net", "base"):
        for match in re.finditer(LIBRARIES_OF_NET, text):
            report(match.start(), "only net names Boost.Asio, nghttp2 and OpenSSL's TLS")
    for pattern, reason in EVERYWHERE_BANNED.items():
        for match in re.finditer(pattern, raw if "TODO" in pattern else text):
            report(match.start(), reason, raw if "TODO" in pattern else text)
    if raw.count("\n") > LINES_MAX:
        faults.append(f"{path}: {raw.count(chr(10))} lines: a file has one purpose (limit {LINES_MAX})")


def main():
    faults = []
    for path in tracked():
        if path.endswith(CODE) and os.path.exists(os.path.join(ROOT, path)):
            check(path, faults)
        if path.endswith(".gguf") and path != "models/demo.gguf":
            faults.append(f"{path}: model files are not committed")
    for line in faults:
        print(line)
    print(f"tidy: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
