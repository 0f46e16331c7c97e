"""Compose, Kustomize and systemd: what they say is what the server takes, and what their own programs accept."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from authserver.commands import main
from authserver.config import Settings, load_settings
from tests.attacks.serving import ROOT

DEPLOY = ROOT / "deploy"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
KUBERNETES = [path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml"]


def is_a_setting(name: str) -> bool:
    """Whether the configuration takes this variable."""
    said = re.fullmatch(r"AUTHSERVER_(\w+?)__(\w+)", name)
    if not said:
        return name == "AUTHSERVER_CONFIG"
    section = Settings.model_fields.get(said[1].lower())
    return section is not None and said[2].lower() in section.annotation.model_fields  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "path", sorted(path for path in DEPLOY.rglob("*") if path.is_file()), ids=lambda p: p.name
)
def test_every_variable_that_is_set_is_one_of_the_configuration(path: Path) -> None:
    for name in re.findall(r"AUTHSERVER_\w+", path.read_text(encoding="utf-8")):
        assert is_a_setting(name), name


@pytest.mark.parametrize("name", ["authserver.toml", "kubernetes/authserver.toml"])
def test_the_configurations_are_good(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSERVER_KEYS__ENCRYPTION_KEY", KEY)
    settings = load_settings(DEPLOY / name)
    assert settings.server.issuer == "https://auth.example.com"
    assert "password" not in (DEPLOY / name).read_text(encoding="utf-8").lower()


# --- Compose ------------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return read


def test_the_schema_goes_before_the_server() -> None:
    services = compose()["services"]
    assert services["server"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    for name in ("server", "migrate"):
        assert services[name]["command"][0] in main.list_commands(None)  # type: ignore[arg-type]
        assert (services[name]["read_only"], services[name]["cap_drop"]) == (True, ["ALL"])
        assert set(services[name]["environment"]) == {
            "AUTHSERVER_DATABASE__URL",
            "AUTHSERVER_KEYS__ENCRYPTION_KEY",
        }
    for volume in services["server"]["volumes"]:
        assert (DEPLOY / volume.split(":")[0]).is_file()


def test_composes_own_reader_takes_it() -> None:
    known = shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False
    )
    if not known or known.returncode != 0:
        pytest.skip("docker compose is not installed")
    environment = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "POSTGRES_PASSWORD": "secret",
        "ENCRYPTION_KEY": KEY,
    }
    command = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- Kubernetes ---------------------------------------------------------------------------------------------------


def rendered() -> list[dict[str, Any]]:
    """What would be applied: as kubectl renders it."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in objects:
        if one["kind"] in ("Deployment", "Job"):
            yield one["spec"]["template"]


def test_kustomize_renders_all_of_it() -> None:
    objects = rendered()
    assert sorted(one["kind"] for one in objects) == [
        *("ConfigMap", "Deployment", "Job", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Service")
    ]
    assert {one["metadata"].get("namespace", "authserver") for one in objects} == {"authserver"}
    (settings,) = (one for one in objects if one["kind"] == "ConfigMap")
    (deployment,) = (one for one in objects if one["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 2
    for pod in pods(objects):
        mounted = {volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume}
        assert settings["metadata"]["name"] in mounted  # with its hash: a changed file replaces the pods


def test_what_selects_the_servers_selects_nothing_else() -> None:
    objects = rendered()
    (server, migrate) = (
        pod["metadata"]["labels"] for pod in sorted(pods(objects), key=lambda p: "-" in str(p))
    )
    by_kind = {one["kind"]: one["spec"] for one in objects if "spec" in one}
    for selector in (
        by_kind["Service"]["selector"],
        by_kind["PodDisruptionBudget"]["selector"]["matchLabels"],
        by_kind["Deployment"]["selector"]["matchLabels"],
    ):
        assert sorted(labels["app.kubernetes.io/component"] for labels in (server, migrate)) == [
            "migrate",
            "server",
        ]
        matching = [labels for labels in (server, migrate) if selector.items() <= labels.items()]
        assert [labels["app.kubernetes.io/component"] for labels in matching] == ["server"]


def test_every_pod_keeps_to_the_restricted_standard_and_writes_nowhere() -> None:
    for pod in pods(rendered()):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["args"][0] in main.list_commands(None)  # type: ignore[arg-type]
            assert {"requests", "limits"} == container["resources"].keys()


def test_secrets_come_by_reference_alone() -> None:
    for pod in pods(rendered()):
        for container in pod["spec"]["containers"]:
            assert {one["name"] for one in container["env"]} == {
                "AUTHSERVER_DATABASE__URL",
                "AUTHSERVER_KEYS__ENCRYPTION_KEY",
            }
            assert all(set(one["valueFrom"]) == {"secretKeyRef"} for one in container["env"])


def test_the_probes_ask_what_is_served(shared_world: Any) -> None:
    (container,) = next(pod["spec"]["containers"] for pod in pods(rendered()) if "readinessProbe" in str(pod))
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"/healthz", "/readyz"}
    for path in paths:
        assert shared_world.client.get(path).status_code == 200


# --- systemd ------------------------------------------------------------------------------------------------------

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units with this machine's Python and places for those of an installation."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    found = []
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/authserver/bin/python", sys.executable)
        path = tmp_path / unit.name
        path.write_text(text, encoding="utf-8")
        found.append(path)
    return found


def test_systemd_finds_nothing_to_complain_about(units: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if "authserver" in line]
    assert (about_ours, done.returncode) == ([], 0), done.stderr


def test_systemd_finds_little_exposed(units: list[Path]) -> None:
    for unit in units:
        command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-300:]


def test_the_schema_goes_before_the_service() -> None:
    text = (DEPLOY / "systemd" / "authserver.service").read_text(encoding="utf-8")
    assert "Requires=authserver-migrate.service" in text
    assert re.search(r"^After=.*\bauthserver-migrate.service", text, re.MULTILINE)
    for unit in UNITS:
        (verb,) = re.findall(r"manage\.py (\w+)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
        assert verb in main.list_commands(None)  # type: ignore[arg-type]
