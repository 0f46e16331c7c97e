"""The examples for agents: a buyer that runs, and what goes around agents on SPIRE and on Kubernetes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver.actors.workload_files import make_assertion
from authserver.agent import KubernetesToken
from authserver.config import load_settings
from examples.processes import free_port, running
from examples.stage import Stage, stage
from examples.world import HELPER, ROOT, workload

EXAMPLES = ROOT / "examples"
SPIRE, KUBERNETES = EXAMPLES / "spire", EXAMPLES / "kubernetes"
ISSUER = "https://auth.example"


# --- the buyer ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("buyer")) as running:
        yield running


def buys(place: Stage, folder: Path, at_most: str, *items: str) -> tuple[int, str]:
    """Run the buyer with that list, while Ada answers; its exit code, and what it printed."""
    token = folder / "svid.jwt"
    lasts, now = timedelta(minutes=5), datetime.now(UTC)
    token.write_text(make_assertion(place.operator.domain, workload(HELPER), place.issuer, lasts, now))
    said = ["--issuer", place.issuer, "--client-id", HELPER, "--token-file", str(token)]
    said += ["--shop", place.shop_url, "--at-most", at_most, *items]
    command = [sys.executable, "-m", "examples.buyer", *said]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        assert program.stdout is not None
        try:
            first = program.stdout.readline()
            ada, [code] = place.ada(), re.findall(r"type (\S+)", first)
            ada.allows(ada.types(code), preset="trust")
            rest, _ = program.communicate(timeout=40)
        finally:
            program.kill()
        return program.returncode, first + rest


def test_the_buyer_asks_once_and_buys(place: Stage, tmp_path: Path) -> None:
    code, told = buys(place, tmp_path, "20.00", "oats=2", "milk=1")
    assert code == 0, told
    assert "Ordered for 8.05 EUR" in told
    assert "Paid: " in told


def test_the_buyer_says_why_it_did_not_buy(place: Stage, tmp_path: Path) -> None:
    code, told = buys(place, tmp_path, "5.00", "coffee=1")
    assert (code, "Not bought: the resource server names more than was agreed to" in told) == (1, True), told
    code, told = buys(place, tmp_path, "20.00", "caviar=1")
    assert (code, "not sold here: caviar" in told) == (1, True), told


def test_the_shop_hears_what_ends(place: Stage) -> None:
    auth, until = (place.world.shop.id, place.world.shop.secret), time.monotonic() + 10
    descriptions = list[str]()
    while not descriptions and time.monotonic() < until:
        streams = httpx.get(f"{place.issuer}/oauth/ssf/streams", auth=auth).json()
        descriptions = [stream["description"] for stream in streams]
        time.sleep(0.1)
    assert descriptions == ["kit: 1"]


def test_the_mcp_server_starts_as_its_readme_says(place: Stage, tmp_path: Path) -> None:
    port = free_port()
    identifier = f"http://127.0.0.1:{port}/mcp"
    books = place.operator.record("resource-servers", "create", "--identifier", identifier)
    command = [sys.executable, "-m", "examples.mcp_server", "--issuer", place.issuer]
    command += ["--port", str(port), "--id", books["id"]]
    with running(command, {"BOOKS_SECRET": books["client_secret"]}, ROOT, tmp_path / "books.log") as program:
        program.wait_until_ready(f"http://127.0.0.1:{port}/healthz")
        about = httpx.get(f"http://127.0.0.1:{port}/.well-known/oauth-protected-resource/mcp").json()
        assert (about["resource"], about["authorization_servers"]) == (identifier, [place.issuer])
        assert httpx.post(identifier, json={}).status_code == 401


# --- SPIRE and Kubernetes -------------------------------------------------------------------------------------------


def hcl(text: str) -> dict[str, Any]:
    """HCL as SPIRE's files use it; a block is under its name and labels, joined. Raises where it is none."""
    lexer = shlex.shlex(text, posix=False, punctuation_chars="{}[],=")
    lexer.commenters, lexer.quotes = "#", '"'
    lexer.wordchars += "-."
    tokens = list(lexer)

    def value() -> Any:
        token = tokens.pop(0)
        if token == "{":
            return members()
        if token == "[":
            found = []
            while tokens[0] != "]":
                found.append(value())
                if tokens[0] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            return found
        return json.loads(token)

    def members() -> dict[str, Any]:
        found: dict[str, Any] = {}
        while tokens and tokens[0] != "}":
            name = tokens.pop(0)
            assert re.fullmatch(r'\w+|"[\w-]+"', name), name
            name = name.strip('"')
            while tokens[0].startswith('"'):
                name += " " + json.loads(tokens.pop(0))
            if tokens[0] == "=":
                tokens.pop(0)
            assert name not in found, name
            found[name] = value()
        if tokens:
            tokens.pop(0)
        return found

    assert text.count("{") == text.count("}")
    read = members()
    assert tokens == []
    return read


def manifests(name: str) -> list[dict[str, Any]]:
    """The objects of a manifest, as kubectl reads them; skips where it is not installed."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    command = ["kubectl", "label", "--local", "-f", str(KUBERNETES / name), "read=yes", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    decoder, text, found = json.JSONDecoder(), done.stdout.strip(), []
    while text:
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:].strip()
    return found


def test_the_spire_files_agree_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    server, agent = (
        hcl((SPIRE / name).read_text(encoding="utf-8")) for name in ("server.conf", "agent.conf")
    )
    monkeypatch.setenv("AUTHSERVER_CONFIG", str(SPIRE / "authserver.toml"))
    [domain] = load_settings().trust_domains
    names = (server["server"]["trust_domain"], agent["agent"]["trust_domain"], domain.name)
    assert set(names) == {"example.org"}
    assert (server["server"]["jwt_key_type"], tuple(domain.algorithms)) == ("ec-p256", ("ES256",))
    minutes = int(server["server"]["default_jwt_svid_ttl"].removesuffix("m"))
    assert minutes * 60 <= domain.max_lifetime
    assert server["server"]["bind_port"] == agent["agent"]["server_port"]
    cluster = agent["plugins"]["NodeAttestor k8s_psat"]["plugin_data"]["cluster"]
    clusters = server["plugins"]["NodeAttestor k8s_psat"]["plugin_data"]["clusters"]
    assert list(clusters) == [cluster]
    entries = (SPIRE / "entries.sh").read_text(encoding="utf-8")
    assert f"k8s_psat:cluster:{cluster}" in entries
    [account] = clusters[cluster]["service_account_allow_list"]
    assert "k8s_psat:agent_ns:{}".format(account.split(":")[0]) in entries
    assert "k8s_psat:agent_sa:{}".format(account.split(":")[1]) in entries
    assert subprocess.run(["sh", "-n", str(SPIRE / "entries.sh")], check=False, timeout=20).returncode == 0


def test_the_pods_socket_is_the_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    socket = hcl((SPIRE / "agent.conf").read_text(encoding="utf-8"))["agent"]["socket_path"]
    [pod] = [
        one["spec"]["template"]["spec"] for one in manifests("spire-csi.yaml") if one["kind"] == "Deployment"
    ]
    [container] = pod["containers"]
    said = {variable["name"]: variable["value"] for variable in container["env"]}
    assert said == {"AUTHSERVER_ISSUER": ISSUER, "SPIFFE_ENDPOINT_SOCKET": f"unix://{socket}"}
    [mount], [volume] = container["volumeMounts"], pod["volumes"]
    assert (mount["mountPath"], mount["name"]) == (str(Path(socket).parent), volume["name"])
    assert volume["csi"] == {"driver": "csi.spiffe.io", "readOnly": True}
    entries = (SPIRE / "entries.sh").read_text(encoding="utf-8")
    assert pod["serviceAccountName"] in re.findall(r"for agent in (.*);", entries)[0].split()


def test_the_pods_token_is_for_the_issuer_and_is_where_the_kit_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSERVER_CONFIG", str(KUBERNETES / "authserver.toml"))
    settings = load_settings()
    [domain] = settings.trust_domains
    assert (domain.kind, settings.server.issuer) == ("kubernetes", ISSUER)
    objects = manifests("agents.yaml")
    [pod] = [one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment"]
    [mount], [volume] = pod["containers"][0]["volumeMounts"], pod["volumes"]
    [source] = volume["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert (token["audience"], volume["name"]) == (ISSUER, mount["name"])
    assert str(KubernetesToken()._path) == f"{mount['mountPath']}/{token['path']}"
    assert token["expirationSeconds"] <= domain.max_lifetime
    assert pod["automountServiceAccountToken"] is False
    [account] = [one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"]
    assert pod["serviceAccountName"] == account
    said = (KUBERNETES / "README.md").read_text(encoding="utf-8")
    assert f"--subject system:serviceaccount:agents:{account} " in said


def test_kustomize_puts_the_manifests_together() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"^kind: (\w+)$", done.stdout, re.MULTILINE)) == [
        "Deployment",
        "Deployment",
        "Namespace",
        "ServiceAccount",
        "ServiceAccount",
    ]


@pytest.mark.parametrize("example", ["buyer", "mcp_server", "purchases", "spire", "kubernetes"])
def test_what_a_readme_names_is_there(example: str) -> None:
    folder = EXAMPLES / example
    said = (folder / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"python -m (examples\.[\w.]+)", said):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name
    for name in re.findall(r"`((?:\.\./)?[\w/-]+\.(?:yaml|conf|sh|toml|py))`", said):
        assert (folder / name).exists(), name
    for option in set(
        re.findall(
            r"--([a-z-]+)", " ".join(re.findall(r"python -m examples\.[^`]*?(?=\n```|\npython)", said))
        )
    ):
        program = folder / "__main__.py"
        assert not program.exists() or f'"--{option}"' in program.read_text(encoding="utf-8"), option
