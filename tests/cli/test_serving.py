"""`eqm serve` and `eqm studio`: what they refuse, and that they serve."""

import socket
import sys
from types import SimpleNamespace

import pytest

from eqm.cli.main import main


def refused(capsys, *arguments):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("eqm: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no models were given"),
        (["fashion-mnst"], "did you mean 'fashion-mnist'"),
        (["fashion-mnist", "--host", "0.0.0.0"], "EQM_TOKEN"),
        (["fashion-mnist", "--host", "no.such.host.invalid", "--token", "x"], "cannot listen"),
        (["fashion-mnist", "--port", "70000"], "65,535"),
        (["fashion-mnist", "--runs", "/no/such/folder"], "there is no folder"),
        (["fashion-mnist", "--token", "two words"], "without spaces"),
        (["fashion-mnist", "--memory", "0.000001"], "allow more"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(capsys, monkeypatch, arguments, said):
    monkeypatch.delenv("EQM_TOKEN", raising=False)
    assert said in refused(capsys, "serve", *arguments)


def test_a_port_in_use_is_refused(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is in use" in refused(
            capsys, "serve", "fashion-mnist", "--port", str(port)
        )


def test_without_the_extra_the_sentence_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "pip install 'eqm[serve]'" in refused(capsys, "serve", "fashion-mnist")


@pytest.fixture
def server(monkeypatch):
    """What a server got, which ends at once."""
    import eqm.serving.http.server as module

    got = SimpleNamespace()

    def run(app, listener, *, drain_seconds, ready):
        got.app, got.address = app, module.address_of(listener)
        ready()
        return True

    monkeypatch.setattr(module, "run", run)
    return got


def test_serve_prints_its_address_and_models(capsys, server):
    assert main(["serve", "fashion-mnist", "mnist-5k", "--port", "0"]) == 0
    said = capsys.readouterr().out
    assert f"fashion-mnist, mnist-5k at {server.address}\n" in said
    assert server.app.state.models.names == ["fashion-mnist", "mnist-5k"]


def test_studio_opens_the_page_of_the_shipped_models(monkeypatch, server):
    import webbrowser

    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["studio"]) == 0
    assert opened == [server.address]
    assert server.app.state.models.names == ["fashion-mnist", "mnist-5k", "openmoji-32"]


def test_a_token_of_the_environment_opens_another_host(monkeypatch, server):
    from starlette.testclient import TestClient

    monkeypatch.setenv("EQM_TOKEN", "abc")
    assert main(["serve", "fashion-mnist", "--host", "0.0.0.0", "--port", "0"]) == 0
    client = TestClient(server.app, base_url="http://192.0.2.1")
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer abc"}).status_code == 200
