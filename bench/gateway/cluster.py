"""Starts and ends the processes that bench/gateway measures: `aiv dev`, nginx, HAProxy. All by their own pids."""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
import urllib.request


def wait_for(what, condition, seconds=30.0):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise SystemExit(f"bench/gateway: not within {seconds:.0f} s: {what}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def accepts(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def arguments_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found


def memory_kib(pid, field):
    """A field of /proc/PID/smaps_rollup (Rss, Pss) in KiB."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    match = re.search(rf"^{field}:\s+(\d+) kB", text, re.M)
    return int(match[1]) if match else 0


STARTED = []


def start(*args, **kwargs):
    STARTED.append(subprocess.Popen(*args, **kwargs))
    return STARTED[-1]


def end_all():
    while STARTED:
        end(STARTED.pop())


def end(process):
    if process and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Cluster:
    """`aiv dev` with one node, for as long as the `with` block lasts."""

    def __init__(self, build, folder, engine="fake", gpus="Bench:64GiB"):
        self.aiv = str(build / "bin/aiv")
        self.dir = folder
        self.log = open(f"{folder}.log", "w+", encoding="utf-8")
        started = time.monotonic()
        self.process = start(
            [self.aiv, "dev", "--engine", engine, "--gpus", gpus, "--port", "0", "--data", str(folder), "--no-models"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            self.log.seek(0)
            raise SystemExit(f"bench/gateway: aiv dev did not start:\n{self.log.read()[-2000:]}")
        self.ready_seconds = time.monotonic() - started
        self.url = line.split()[1]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.key = (folder / "admin.key").read_text().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)

    def api(self, path):
        request = urllib.request.Request(f"{self.url}/aiv/v1/{path}", headers={"authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def up(self, *args):
        """Seconds that `aiv up` took until its model was ready."""
        started = time.monotonic()
        done = subprocess.run([self.aiv, "up", *args], env={**os.environ, "AIV_SERVER": self.url, "AIV_KEY": self.key},
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"bench/gateway: aiv up {' '.join(args)}: exit {done.returncode}\n{done.stderr}")
        return time.monotonic() - started

    def pids(self):
        """name -> pid of the cluster's long-lived processes (shims and engines as lists)."""
        found = {"shims": [], "engines": []}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            words = arguments_of(entry)
            if len(words) < 2 or not any(str(self.dir) in word for word in words):
                continue
            pid = int(entry)
            name = os.path.basename(words[0])
            if name in ("aiv-fake-engine", "llama-server"):
                found["engines"].append(pid)
            elif words[1] == "engine-shim":
                found["shims"].append(pid)
            elif words[1] in ("gateway-process", "controller-process", "node", "server", "dev"):
                found[words[1].removesuffix("-process")] = pid
        return found


class FakeEngine:
    def __init__(self, build, folder, number, slots, ctx):
        self.socket = f"{folder}/e{number}.sock"
        self.process = start(
            [str(build / "bin/aiv-fake-engine"), "-m", "fake:bench?weights=1MiB&kv_per_cell=1&compute=1MiB", "--host",
             self.socket, "-dev", "Fake0", "-np", str(slots), "-c", str(ctx), "--no-kv-unified", "-lv", "1"],
            env={}, stdin=subprocess.DEVNULL)
        wait_for("the engine listens", lambda: self.answers())

    def answers(self):
        with socket.socket(socket.AF_UNIX) as s:
            if s.connect_ex(self.socket) != 0:
                return False
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b" 200 " in s.recv(4096)


class Nginx:
    def __init__(self, folder, upstreams):
        self.port = free_port()
        servers = "\n".join(f"    server unix:{path};" for path in upstreams)
        folder.mkdir(exist_ok=True)
        config = folder / "nginx.conf"
        config.write_text(f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err warn;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engines {{
{servers}
    keepalive 256;
  }}
  server {{
    listen 127.0.0.1:{self.port} backlog=4096; keepalive_requests 100000000;
    location / {{
      proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
""")
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        self.process = start([program, "-c", str(config), "-e", f"{folder}/nginx.err"])
        wait_for("nginx listens", lambda: accepts(self.port))
        self.pids = wait_for("nginx's worker", lambda: children_of(self.process.pid)) + [self.process.pid]


class Haproxy:
    def __init__(self, folder, upstreams):
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        servers = "\n".join(f"  server s{i} unix@{path}" for i, path in enumerate(upstreams))
        config = folder / "haproxy.cfg"
        config.write_text(f"""
global
  nbthread 1
  maxconn {(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100) // 2 - 100}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  option http-no-delay
  http-reuse always
frontend clients
  bind 127.0.0.1:{self.port} backlog 4096
  default_backend engines
backend engines
  balance roundrobin
{servers}
""")
        program = shutil.which("haproxy") or "/usr/sbin/haproxy"
        self.process = start([program, "-f", str(config), "-q"])
        wait_for("HAProxy listens", lambda: accepts(self.port))
        self.pids = [self.process.pid, *children_of(self.process.pid)]


class Portkey:
    """Portkey's gateway, the typical LLM gateway, from npm. It speaks TCP only, so an nginx of its own stands between it
    and the engines; only Portkey's CPU time is counted."""

    def __init__(self, folder, upstreams):
        self.inner = Nginx(folder / "portkey", upstreams)
        self.port = free_port()
        here = pathlib.Path(__file__).parent
        program = here / "node_modules/@portkey-ai/gateway/build/start-server.js"
        log = open(folder / "portkey.log", "w", encoding="utf-8")
        self.process = start(["node", str(program), f"--port={self.port}", "--headless"], stdout=log, stderr=log,
                             env={**os.environ, "NODE_ENV": "production"})
        # What its users send with each request: which kind of provider, and where it is.
        self.headers = ["x-portkey-provider: openai", f"x-portkey-custom-host: http://127.0.0.1:{self.inner.port}/v1"]
        wait_for("Portkey's gateway listens", lambda: accepts(self.port))
        self.pids = [self.process.pid, *children_of(self.process.pid)]


RIVALS = {"nginx": Nginx, "haproxy": Haproxy}


def portkey_available():
    """Installs what package-lock.json pins, once; False without a network or Node."""
    here = pathlib.Path(__file__).parent
    if not shutil.which("node") or not shutil.which("npm"):
        return False
    if not (here / "node_modules/@portkey-ai/gateway").exists():
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"], cwd=here, capture_output=True, check=False)
    return (here / "node_modules/@portkey-ai/gateway/build/start-server.js").exists()


def available(name):
    return shutil.which(name) or os.path.exists(f"/usr/sbin/{name}")
