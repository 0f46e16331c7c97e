"""The dashboard and the alert rules ask for figures that a real server has, and the rules do what they say."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.settling import redeem, token_of
from tests.world import World

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (apt install prometheus)"
)
NAME = re.compile(r"\bauthserver_[a-z_]+\b")


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> list[str]:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_every_figure_of_the_dashboard_and_the_rules_is_there(shared_world: World) -> None:
    world, granted = shared_world, shared_world.granted()
    assert redeem(world, token_of(world, granted.grant)).status_code == 201
    families = text_string_to_metric_families(world.client.get("/metrics").text)
    # A family that nobody has counted in yet is told by its head alone, and its samples have their usual ends.
    there = set[str]()
    for family in families:
        there |= {family.name, f"{family.name}_total", *(sample.name for sample in family.samples)}
    asked = {
        name for expr in (*dashboard(), *(rule["expr"] for rule in alerts())) for name in NAME.findall(expr)
    }
    assert len(asked) > 20
    assert asked <= there, asked - there


def test_every_figure_is_on_the_dashboard(shared_world: World) -> None:
    families = text_string_to_metric_families(shared_world.client.get("/metrics").text)
    shown = {name for expr in dashboard() for name in NAME.findall(expr)}
    told = {
        family.name + {"counter": "_total", "histogram": "_bucket"}.get(family.type, "")
        for family in families
    }
    # Whether keys are fresh is told by their age there.
    assert told - shown == {"authserver_trust_domain_keys_fresh"}


def test_every_rule_says_what_it_means_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert len(rule["annotations"]["summary"]) > 15
        assert len(rule["annotations"]["runbook"]) > 40
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())


def test_no_two_panels_lie_on_each_other() -> None:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    taken = set[tuple[int, int]]()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


@PROMTOOL
def test_promtool_takes_the_rules_and_their_tests() -> None:
    for arguments in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run(
            ["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@PROMTOOL
def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(dashboard())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "panels.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
