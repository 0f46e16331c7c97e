"""The DPoP package as others would use it: the RFC's own proofs, and both sides of one made here."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from authserver.dpop import Nonces, Proof, ProofKey, SeenProofs, SharedSeenProofs, read_proof, token_hash
from authserver.errors import Refusal

# RFC 9449 §4.1 (figure 2) and §7.1 (figure 12), by the key of its other examples.
_KEY = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVV"
    "FVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)
AT_THE_TOKEN_ENDPOINT = (
    f"{_KEY}."
    "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNT"
    "YyMjYyNjE2fQ."
    "2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
AT_THE_RESOURCE = (
    f"{_KEY}."
    "eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdX"
    "JjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9."
    "2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RESOURCE = "https://resource.example.org/protectedresource"
THEN = datetime.fromtimestamp(1562262618, UTC)


def test_the_proof_of_section_4_1_is_taken() -> None:
    proof = read_proof(
        AT_THE_TOKEN_ENDPOINT, method="POST", url="https://server.example.com/token", now=THEN, nonces=None
    )
    assert (proof.jkt, proof.jti) == (JKT, "-BwC3ESc6acc2lTc")


def test_the_proof_of_section_7_1_is_taken_for_its_token_alone() -> None:
    assert token_hash(TOKEN) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
    proof = read_proof(AT_THE_RESOURCE, method="GET", url=RESOURCE, now=THEN, nonces=None, access_token=TOKEN)
    assert (proof.jkt, proof.jti) == (JKT, "e1j3V_bKic8-LAEB")
    for token in ("another", TOKEN[:-1], "ÿ"):
        with pytest.raises(Refusal) as refused:
            read_proof(AT_THE_RESOURCE, method="GET", url=RESOURCE, now=THEN, nonces=None, access_token=token)
        assert (refused.value.error, refused.value.rule) == ("invalid_dpop_proof", "dpop.ath")


def test_a_proof_for_a_token_is_refused_where_one_without_it_came() -> None:
    with pytest.raises(Refusal, match="invalid_dpop_proof"):
        read_proof(
            AT_THE_TOKEN_ENDPOINT,
            method="POST",
            url="https://server.example.com/token",
            now=THEN,
            nonces=None,
            access_token=TOKEN,
        )


def test_both_sides_agree() -> None:
    now, key, url = datetime.now(UTC), ProofKey.generate(), "https://api.example/things"
    nonces, seen = Nonces(bytes(32), timedelta(minutes=5)), SeenProofs()
    first = key.proof("POST", f"{url}?page=2#top", now=now, access_token="abc")
    with pytest.raises(Refusal) as due:
        read_proof(first, method="POST", url=url, now=now, nonces=nonces, access_token="abc")
    assert due.value.error == "use_dpop_nonce"
    second = key.proof("POST", url, now=now, access_token="abc", nonce=due.value.headers["DPoP-Nonce"])
    proof = read_proof(second, method="POST", url=url, now=now, nonces=nonces, access_token="abc")
    assert proof.jkt == key.jkt
    seen.use(proof, now)
    with pytest.raises(Refusal, match="invalid_dpop_proof"):
        seen.use(proof, now)
    assert "PRIVATE" not in repr(key)
    assert str(key.key.as_dict(private=True)["d"]) not in repr(key)


# --- memories against replay ------------------------------------------------------------------------------------------

USE_THEM_ALL = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from authserver.dpop import Proof, SharedSeenProofs
from authserver.errors import Refusal
now, seen, used = datetime.fromtimestamp(1_800_000_000, UTC), SharedSeenProofs(Path(sys.argv[1])), 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    try:
        seen.use(Proof("key", str(number), now + timedelta(minutes=5)), now)
        used += 1
    except Refusal as refused:
        assert refused.rule == "dpop.replayed", refused
print(used)
"""


def test_A100_of_processes_that_share_a_memory_one_uses_each_proof(tmp_path: Path) -> None:
    command = [sys.executable, "-c", USE_THEM_ALL, str(tmp_path / "proofs.db")]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    used = [int(worker.communicate("go\n", timeout=60)[0]) for worker in workers]
    assert sum(used) == 200


@pytest.mark.parametrize("shared", [False, True], ids=["one process", "shared"])
def test_A100_of_threads_one_uses_a_proof(tmp_path: Path, shared: bool) -> None:
    now, together = datetime.now(UTC), threading.Barrier(8)
    seen = SharedSeenProofs(tmp_path / "proofs.db") if shared else SeenProofs()
    proof = Proof("key", "once", now + timedelta(minutes=5))

    def use(_: int) -> bool:
        together.wait()
        try:
            seen.use(proof, now)
        except Refusal:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 1


def test_a_memory_forgets_what_can_no_longer_be_replayed(tmp_path: Path) -> None:
    now, seen = datetime.now(UTC), SharedSeenProofs(tmp_path / "proofs.db")
    for number in range(256):
        seen.use(Proof("key", str(number), now + timedelta(minutes=5)), now)
    later = now + timedelta(minutes=6)
    seen.use(Proof("key", "later", later + timedelta(minutes=5)), later)
    with closing(sqlite3.connect(tmp_path / "proofs.db")) as looking:
        assert looking.execute("SELECT count(*) FROM seen").fetchone() == (1,)
    seen.close()
    with pytest.raises(Refusal) as refused:  # nobody knows any more: that is a no, and not for ever
        seen.use(Proof("key", "last", later + timedelta(minutes=5)), later)
    assert (refused.value.error, refused.value.status) == ("temporarily_unavailable", 503)
