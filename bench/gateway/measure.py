#!/usr/bin/env python3
"""bench/gateway: CPU time per small request and per relayed token, of the gateway alone and with the node agent, next
to nginx and HAProxy in front of the very same engine processes.

How it is measured:
 - CPU time from /proc/PID/task/*/schedstat, over exactly the window in which the client counted, divided by what the
   client counted. Wall times on a shared machine mostly measure the queue for the processor.
 - Rounds in rotated order; each figure is the median over the rounds, each ratio the median of the rounds' ratios.
 - p50 and p99 are of whole answers, or of a token's age when the client has it (the engine stamps each).
 - The load must have been met (90 % of the offered tokens), else there is no figure.
 - What is not alike: the gateway also authenticates, parses the body, picks a replica and accounts; TLS protects the
   link between gateway and agent. The rivals do none of that.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from cluster import RIVALS, Cluster, FakeEngine, Portkey, available, end_all, memory_kib, portkey_available  # noqa: E402

# A deployment has at most 64 slots, so many streams need many deployments.
SLOTS = 64
CTX_PER_SLOT = 8192
SMALL = "#fake tokens=1 token_ms=0"


def body(model, orders, stream):
    return json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": orders}]})


class Bench:
    def __init__(self, options, build):
        self.options = options
        self.client = build / "bin/gateway_load"
        self.problems = []

    def load(self, shape, port, key, bodies, connections, watched, warmup_ms, window_ms, headers=()):
        command = [str(self.client), shape, "--port", str(port), "--connections", str(connections), "--warmup-ms",
                   str(warmup_ms), "--window-ms", str(window_ms)]
        if key:
            command += ["--key", key]
        for each in headers:
            command += ["--header", each]
        for each in bodies:
            command += ["--body", each]
        for name, pids in watched.items():
            command += ["--watch", f"{name}={','.join(map(str, pids))}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        try:
            result = json.loads(done.stdout)
        except json.JSONDecodeError:
            result = {"units": 0, "per_second": 0, "errors": 0, "lost": 0, "cpu_us_per_unit": {}}
        if done.stderr:
            self.problems.append(f"{shape}, {connections} connections, port {port}: {done.stderr.strip()[:300]}")
        return result

    def rounds(self, targets, shape, bodies_of, connections, offered):
        """targets: name -> (port, key, pids by name[, headers]). Returns name -> list of results, one per round."""
        results = {name: [] for name in targets}
        names = list(targets)
        window = 600 if self.options.quick else 2000
        warmup = 300 if self.options.quick else 800
        for number in range(self.options.rounds):
            for name in names[number % len(names):] + names[:number % len(names)]:
                port, key, pids, *headers = targets[name]
                result = self.load(shape, port, key, bodies_of(name), connections, pids, warmup, window, *headers)
                met = offered == 0 or result["per_second"] >= 0.9 * offered
                clean = result["units"] > 0 and result["errors"] == 0 and result["lost"] == 0
                results[name].append(result if met and clean else None)
                if not (met and clean):
                    self.problems.append(
                        f"{shape} x{connections} through {name}: {result['per_second']:.0f}/s of {offered or 'any'}, "
                        f"{result['errors']} errors, {result['lost']} connections lost: no figure")
        return results


def cost(result, parts):
    return sum(result["cpu_us_per_unit"].get(part, 0.0) for part in parts)


def median_or_none(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def show(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def table(title, results, unit):
    """Prints one table and returns it as data. Rows: each target, and gateway + agent together."""
    rows = []
    for name, rounds in results.items():
        parts_of_rows = {name: ["proxy"]}
        if name == "aiv":
            parts_of_rows = {"aiv gateway": ["proxy"], "aiv gateway + agent": ["proxy", "agent"]}
        for row, parts in parts_of_rows.items():
            own = [cost(r, parts) if r else None for r in rounds]
            entry = {"who": row, "cpu_us": median_or_none(own),
                     "per_second": median_or_none([r["per_second"] if r else None for r in rounds]),
                     "p50_us": median_or_none([r["p50_us"] if r else None for r in rounds]),
                     "p99_us": median_or_none([r["p99_us"] if r else None for r in rounds]),
                     "engine_cpu_us": median_or_none([cost(r, ["engines"]) if r else None for r in rounds])}
            for rival in ("nginx", "haproxy"):
                pairs = zip(own, results.get(rival, []))
                entry[f"x_{rival}"] = median_or_none([a / cost(b, ["proxy"]) if a is not None and b and cost(b, ["proxy"]) else None for a, b in pairs])
            rows.append(entry)
    print(f"\n{title}")
    print(f"  {'':22}{'CPU us/' + unit:>15}{'x nginx':>10}{'x HAProxy':>11}{unit + 's/s':>13}{'p50 us':>9}{'p99 us':>9}{'engine us':>11}")
    for r in rows:
        print(f"  {r['who']:22}{show(r['cpu_us']):>15}{show(r['x_nginx']):>10}{show(r['x_haproxy']):>11}"
              f"{show(r['per_second'], 0):>13}{show(r['p50_us'], 0):>9}{show(r['p99_us'], 0):>9}{show(r['engine_cpu_us']):>11}")
    return rows


def measure_proxies(bench, build, scratch, report):
    options = bench.options
    deployments = -(-options.streams // SLOTS)
    with Cluster(build, scratch / "c") as cluster:
        names = [f"bench-{i}" for i in range(deployments)]
        ups = [cluster.up("fake:bench?weights=1MiB&kv_per_cell=1&compute=1MiB", "--name", name, "--slots", str(SLOTS),
                          "--ctx", str(CTX_PER_SLOT)) for name in names]
        report["seconds_up_to_ready_fake"] = statistics.median(ups)
        pids = cluster.pids()
        report["memory_kib_idle"] = {
            part: {"rss": memory_kib(pids[part], "Rss"), "pss": memory_kib(pids[part], "Pss")}
            for part in ("server", "gateway", "controller", "node") if part in pids}
        targets = {"aiv": (cluster.port, cluster.key, {
            "proxy": [pids["gateway"]], "agent": [pids["node"]], "engines": pids["engines"]})}
        # The rivals' engines are the same program with the same settings, without the key that an agent gives to each.
        engines = [FakeEngine(build, scratch, number, SLOTS, SLOTS * CTX_PER_SLOT) for number in range(deployments)]
        for name, kind in RIVALS.items():
            if options.only_aiv or not available(name):
                print(f"bench/gateway: {name} is not installed (apt-get install {name}): left out", file=sys.stderr)
                continue
            rival = kind(scratch, [e.socket for e in engines])
            targets[name] = (rival.port, "", {"proxy": rival.pids, "engines": [e.process.pid for e in engines]})
        if not options.only_aiv and options.portkey and portkey_available():
            portkey = Portkey(scratch, [e.socket for e in engines])
            targets["portkey"] = (portkey.port, "none", {"proxy": portkey.pids, "engines": [e.process.pid for e in engines]},
                                  portkey.headers)
        for connections in (64, 1):
            results = bench.rounds(targets, "requests", lambda _: [body(n, SMALL, False) for n in names], connections, 0)
            report[f"requests_{connections}"] = table(
                f"Small requests, not streamed, {connections} connection{'s' if connections > 1 else ''}", results, "request")
        per_second = 20
        orders = f"#fake tokens=100000 token_ms={1000 // per_second} stamp=1"
        # Of an event stream Portkey's 1.15.2 answers 500 ("TypeError: immutable" in its log), from this engine and with
        # Node 20 and 24 alike.
        targets.pop("portkey", None)
        before = memory_kib(pids["gateway"], "Pss")
        results = bench.rounds(targets, "streams", lambda _: [body(n, orders, True) for n in names], options.streams,
                               options.streams * per_second)
        report["streams"] = table(f"Streams, {options.streams} x {per_second} tokens/s", results, "token")
        report["gateway_pss_kib_before_and_after_streams"] = [before, memory_kib(pids["gateway"], "Pss")]


def measure_many_streams(bench, build, scratch, report):
    """As many slow streams as a large site has at once: what a token costs when there is hardly ever a second one to send with it."""
    options = bench.options
    deployments = -(-options.many // SLOTS)
    per_second = 5
    with Cluster(build, scratch / "m", gpus=f"Bench:{deployments + 8}GiB") as cluster:
        names = [f"bench-{i}" for i in range(deployments)]
        for name in names:
            cluster.up("fake:bench?weights=1MiB&kv_per_cell=1&compute=1MiB", "--name", name, "--slots", str(SLOTS), "--ctx", "512")
        pids = cluster.pids()
        targets = {"aiv": (cluster.port, cluster.key, {"proxy": [pids["gateway"]], "agent": [pids["node"]], "engines": pids["engines"]})}
        engines = [] if options.only_aiv else [FakeEngine(build, scratch, f"m{n}", SLOTS, SLOTS * 512) for n in range(deployments)]
        for name, kind in RIVALS.items():
            if not options.only_aiv and available(name):
                rival = kind(scratch / name, [e.socket for e in engines])
                targets[name] = (rival.port, "", {"proxy": rival.pids, "engines": [e.process.pid for e in engines]})
        orders = f"#fake tokens=100000 token_ms={1000 // per_second} stamp=1"
        before = memory_kib(pids["gateway"], "Pss")
        results = bench.rounds(targets, "streams", lambda _: [body(n, orders, True) for n in names], options.many, options.many * per_second)
        report["streams_many"] = table(f"Streams, {options.many} x {per_second} tokens/s", results, "token")
        report["gateway_pss_kib_before_and_after_many_streams"] = [before, memory_kib(pids["gateway"], "Pss")]


def measure_real_start(build, scratch, report, model):
    """From `aiv up` to Ready with the real engine on a software GPU; the first start of a machine compiles shaders."""
    with Cluster(build, scratch / "r", engine="llama", gpus="Bench:1GiB") as cluster:
        report["seconds_up_to_ready_llama"] = [round(cluster.up(str(model), "--name", f"m{i}", "--ctx", "2048"), 3) for i in range(3)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--many", type=int, default=5000, help="streams of the second table of streams; 0: without it")
    parser.add_argument("--no-portkey", dest="portkey", action="store_false", help="without Portkey's gateway (from npm)")
    parser.add_argument("--quick", action="store_true", help="short windows, to try the bench itself")
    parser.add_argument("--only-aiv", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, help="writes the figures there as well")
    options = parser.parse_args()
    build = options.build.resolve()
    for program in ("aiv", "aiv-fake-engine", "gateway_load"):
        if not (build / "bin" / program).exists():
            sys.exit(f"bench/gateway: {build}/bin/{program} is missing; build it: ninja -C {build} {program}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    bench = Bench(options, build)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="aivb-"))
    started = time.monotonic()
    try:
        measure_proxies(bench, build, scratch, report)
        if options.many > 0:
            measure_many_streams(bench, build, scratch, report)
        data = pathlib.Path(os.environ.get("AIV_TEST_DATA", build.parent.parent / "../shared"))
        model = data / "models/stories260K.gguf"
        if (build / "bin/engine/llama-server").exists() and model.exists():
            measure_real_start(build, scratch, report, model)
        else:
            print("bench/gateway: no real engine or no test model: its start is not timed", file=sys.stderr)
    finally:
        end_all()
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"\nFrom `aiv up` to Ready: fake engine {report['seconds_up_to_ready_fake']:.2f} s (50 ms of it the pretended load)", end="")
    if "seconds_up_to_ready_llama" in report:
        print(f"; llama-server on a software GPU {', '.join(f'{s:.2f}' for s in report['seconds_up_to_ready_llama'])} s", end="")
    print("\nResident memory, idle, KiB (own share): " +
          ", ".join(f"{part} {m['rss']} ({m['pss']})" for part, m in report["memory_kib_idle"].items()))
    for problem in dict.fromkeys(bench.problems):
        print(f"note: {problem}")
    print(f"rounds: {options.rounds}, cores: {report['cores']}, load at the start: {report['load']:.1f}, took {time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({**report, "notes": bench.problems}, indent=1))


if __name__ == "__main__":
    main()
