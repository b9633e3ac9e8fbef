"""Starts llama-server on the CPU for a test or an evaluation, and asks servers questions."""
import contextlib
import json
import os
import re
import subprocess
import threading
import urllib.request


@contextlib.contextmanager
def cpu_engine(folder, model):
    """URL of a llama-server of `folder` that serves `model` on the CPU, at a port of the system's choice."""
    process = subprocess.Popen(
        [os.path.join(folder, "llama-server"), "-m", model, "--host", "127.0.0.1", "--port", "0", "-dev", "none", "-ngl", "0",
         "-t", "1", "-np", "1", "-c", "1024", "--no-ui", "--offline"],
        env={**os.environ, "LD_LIBRARY_PATH": folder}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    reader = None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            found = re.search(r"listening on (http://[\d.:]+)", line)
            if found:
                break
        else:
            raise RuntimeError("llama-server ended:\n" + "".join(said[-20:]))
        # A full pipe would stop it.
        reader = threading.Thread(target=lambda: [None for _ in process.stdout])
        reader.start()
        yield found.group(1)
    finally:
        process.terminate()
        process.wait()
        if reader:
            reader.join()
        process.stdout.close()


def post(url, body, key=""):
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)


def chat(url, prompt, key="", model="demo"):
    """The greedy answer to one prompt, and why it ended."""
    body = {"model": model, "temperature": 0, "max_tokens": 200, "messages": [{"role": "user", "content": prompt}]}
    choice = post(url + "/v1/chat/completions", body, key)["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]
