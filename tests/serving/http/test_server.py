"""The process over real sockets: clients that go, come slowly or do not read, and its end by SIGTERM."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from threading import Thread

import pytest

SERVER = """
import time, torch
from eqm.serving.http import server
from eqm.serving.http.app import create_app
from eqm.serving.http.limits import Limits
from eqm.serving.models import Models

class Slow:
    shape, num_classes = (1, 64, 64), 0
    metadata = {"sampling": {"step_size": 0.01, "path_length": 1.0, "rule": "gradient-descent"}}
    def __call__(self, x, labels=None):
        time.sleep(0.02)
        return 2 * x

server.IDLE_SECONDS = 0.5
with server.listen("127.0.0.1", 0) as listener, Models({"slow": Slow()}) as models:
    port = listener.getsockname()[1]
    app, ready = create_app(models, limits=Limits(body_seconds=1)), lambda: print(port, flush=True)
    done = server.run(app, listener, drain_seconds=20, ready=ready)
print("drained" if done else "cut off")
"""
ENDLESS = {"count": 100, "sampling": {"step_size": 0.001, "path_length": 1.5}}  # 30 s
SHORT = {"sampling": {"step_size": 0.01, "path_length": 1.0}}  # 2 s


@pytest.fixture(scope="module")
def served():
    """A process that serves a slow field, and its port. The last test ends it."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def call(port, path, ask=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET" if ask is None else "POST", path, ask and json.dumps(ask))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def send(port, ask, path="/v1/sample"):
    """A socket on which a request was sent."""
    body = json.dumps(ask).encode()
    found = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    found.sendall(head.encode() + body)
    return found


def running(port):
    lines = call(port, "/metrics")[1].splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("eqm_running{"))


def wait_for(found, seconds=10):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_clients_that_go_stall_or_do_not_read_harm_nobody(served):
    _, port = served
    for ask in (ENDLESS, ENDLESS | {"stream": True}):
        gone = send(port, ask)
        wait_for(lambda: running(port) == 1)
        gone.close()
        wait_for(lambda: running(port) == 0)

    with ExitStack() as sockets:
        _stall(port, sockets)
    status, text = call(port, "/v1/sample", SHORT)
    assert status == 200
    assert len(json.loads(text)["samples"]) == 1


def test_a_connection_with_pauses_shorter_than_the_patience_is_not_cut(served):
    connection = http.client.HTTPConnection("127.0.0.1", served[1], timeout=30)
    connection.connect()
    used = connection.sock
    for _ in range(8):
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        time.sleep(0.3)  # the server looks every .5 s
    assert connection.sock is used
    connection.close()


def _stall(port, sockets):
    """Clients that send half a request or nothing, or that do not read."""
    half = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    half.sendall(b"POST /v1/sample HTTP/1.1\r\nHost: loc")
    silent = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    late = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    late.sendall(b"POST /v1/sample HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    deaf = sockets.enter_context(socket.socket())
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", port))
    body = json.dumps(ENDLESS | {"stream": True, "preview_every": 1}).encode()
    head = f"POST /v1/sample HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    deaf.sendall(head.encode() + body)
    wait_for(lambda: running(port) == 1)
    assert call(port, "/health")[0] == 200
    assert half.recv(1) == b""  # the server closed it
    assert silent.recv(1) == b""
    assert late.recv(100).startswith(b"HTTP/1.1 408 ")
    wait_for(lambda: running(port) == 0)  # nobody reads, so nobody works


def test_sigterm_lets_running_requests_end_and_refuses_new_ones(served):
    process, port = served
    found = []
    client = Thread(target=lambda: found.append(call(port, "/v1/sample", SHORT)))
    client.start()
    wait_for(lambda: running(port) == 1)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: call(port, "/health")[0] == 503, 1.5)
    assert "closing" in call(port, "/v1/sample", SHORT)[1]
    client.join()
    assert found[0][0] == 200
    assert process.wait(10) == 0
    assert process.stdout.read() == "drained\n"
    assert process.stderr.read() == ""
