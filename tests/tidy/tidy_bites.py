"""Plants one fault of each kind into a small tree and expects tidy.py to name it."""
import os
import subprocess
import sys
import tempfile

FAULTS = {
    "src/core/clock.cpp": ("auto t = std::chrono::steady_clock::now();", "core is told the time"),
    "src/core/up.cpp": ('#include "net/async.hpp"', "core may not include"),
    "src/core/json.cpp": ('#include "base/json.hpp"', "core may use of base only"),
    "src/core/map.cpp": ("std::unordered_map<int, int> m;", "unordered"),
    "src/gateway/peer.cpp": ('#include "controller/api.hpp"', "gateway may not include"),
    "src/node/asio.cpp": ("#include <boost/asio.hpp>", "only net names"),
    "src/net/capture.cpp": ("co_await run([value] () { return value; });", "destroys captures"),
    "src/net/condition.cpp": ("if (!gone && co_await ready(a)) ++b;", "name the awaited value"),
    "src/cli/later.cpp": ("// TODO write this", "issue number"),
}

with tempfile.TemporaryDirectory() as root:
    for path, (line, _) in FAULTS.items():
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "w", encoding="utf-8") as file:
            file.write(line + "\n")
    out = subprocess.run([sys.executable, sys.argv[1], root], capture_output=True, text=True, check=False)
    missed = [p for p, (_, reason) in FAULTS.items()
              if not any(l.startswith(p) and reason in l for l in out.stdout.splitlines())]
    if missed or out.returncode != 1:
        print(out.stdout)
        sys.exit(f"not found: {missed}")
print(f"{len(FAULTS)} planted faults found")
