"""Where the kit takes the workload's assertion from: a real SPIFFE Workload API on a socket, and files."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from authserver.actors.workload_files import create_domain, make_assertion
from authserver.agent import Action, Agent, KubernetesToken, SpiffeWorkloadApi, WorkloadUnknown
from authserver.agent.workload import is_jwt_svid, workload_of
from tests.agents import running_market
from tests.workload_api import WorkloadApi, running_workload_api
from tests.world import BASKET_HELPER, World

ISSUER = "https://auth.example"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[WorkloadApi, str]]:
    servicer = WorkloadApi(BASKET_HELPER)
    with running_workload_api(servicer, tmp_path) as address:
        yield servicer, address


def test_S7_a_jwt_svid_of_the_workload_api_gets_a_token(
    sqlite_world: World, api: tuple[WorkloadApi, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer, address = api
    servicer.domain = sqlite_world.domain
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", address)
    with running_market(sqlite_world) as market:
        for source in (SpiffeWorkloadApi(address), SpiffeWorkloadApi()):
            agent = Agent(sqlite_world.issuer, source, clock=sqlite_world.clock)
            token = agent.token_for(market.delegated(), Action("catalog.search", market.identifier))
            assert token.token_type == "DPoP"
    assert servicer.audiences[0] == [sqlite_world.issuer]


def test_a_workload_without_an_identity_is_told_so(api: tuple[WorkloadApi, str]) -> None:
    with pytest.raises(WorkloadUnknown, match="gives no JWT-SVID"):
        SpiffeWorkloadApi(api[1]).assertion(ISSUER)
    with pytest.raises(WorkloadUnknown):
        SpiffeWorkloadApi(f"{api[1]}.not-there", timeout=0.5).assertion(ISSUER)
    with pytest.raises(WorkloadUnknown):
        SpiffeWorkloadApi("no-address").assertion(ISSUER)


def test_without_the_spiffe_library_its_absence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spiffe", None)
    with pytest.raises(WorkloadUnknown, match=r"authserver\[spiffe\]"):
        SpiffeWorkloadApi("unix:///x").assertion(ISSUER)


def test_a_projected_token_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = KubernetesToken(path)
    for text in ("first", "second"):
        path.write_text(f"{text}\n")
        assert source.assertion(ISSUER) == text
    assert workload_of(lambda: "mine").assertion(ISSUER) == "mine"


def test_only_a_jwt_svid_is_called_one(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    create_domain("example.org", "spiffe", tmp_path / "spiffe")
    assert is_jwt_svid(make_assertion(tmp_path / "spiffe", BASKET_HELPER, ISSUER, timedelta(minutes=5), now))
    for other in ("", "a.b.c", "a.e30.c", "x", "a.W10.c", "a.eyJzdWIiOiAxfQ.c", "a.é.c"):
        assert not is_jwt_svid(other)
