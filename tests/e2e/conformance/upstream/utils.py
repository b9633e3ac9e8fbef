"""Stands in for the helper module of llama.cpp's own server tests, so that they run unchanged against a gateway that is
already there: a "server" is started by doing nothing, and whatever model a test names is AIV_TEST_MODEL by an alias."""
import json
import os
import re
from typing import *  # noqa: F401,F403  the tests take their type names from here

import requests

URL = os.environ["AIV_TEST_URL"]
KEY = os.environ["AIV_TEST_KEY"]


class ServerResponse:
    pass


class ServerProcess:
    """Settings that a test makes (slots, context, template) are the deployment's affair and have no effect here."""

    def __init__(self):
        self.model_alias = os.environ["AIV_TEST_MODEL"]

    def start(self, timeout_seconds=None):
        pass

    def stop(self):
        pass

    def _headers(self, headers):
        return {"Authorization": f"Bearer {KEY}", **(headers or {})}

    @staticmethod
    def _named(data):
        # llama-server takes a request without a model; a gateway with many cannot.
        if isinstance(data, dict) and "model" not in data:
            return {"model": "test", **data}
        return data

    def make_request(self, method, path, data=None, headers=None, timeout=60, host=None):
        path = "/v1/models" if path == "/models" else path
        response = requests.request(method, URL + path, headers=self._headers(headers), json=self._named(data), timeout=timeout)
        result = ServerResponse()
        result.headers = dict(response.headers)
        result.status_code = response.status_code
        try:
            result.body = response.json()
        except ValueError:
            result.body = response.text
        return result

    def make_stream_request(self, method, path, data=None, headers=None, host=None):
        response = requests.request(method, URL + path, headers=self._headers(headers), json=self._named(data), stream=True, timeout=60)
        assert response.status_code == 200, response.text
        for line in response.iter_lines():
            text = line.decode()
            if "[DONE]" in text:
                break
            if text.startswith("data: "):
                yield json.loads(text[6:])

    def make_any_request(self, method, path, data=None, headers=None, timeout=60):
        return self.make_request(method, path, data, headers, timeout).body


class ServerPreset:
    @staticmethod
    def tinyllama2():
        return ServerProcess()

    tinygemma3 = tinyllama2


def match_regex(regex, text):
    return re.search(regex, text) is not None
