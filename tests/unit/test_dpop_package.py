"""The DPoP package as others would use it: the RFC's own proofs, and both sides of one made here."""

from datetime import UTC, datetime, timedelta

import pytest

from authserver.dpop import Nonces, ProofKey, SeenProofs, read_proof, token_hash
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
