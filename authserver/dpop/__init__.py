"""DPoP (RFC 9449) for either side of it: proofs made, proofs checked, nonces, and a memory against replay.

A server that has requests of its own to check needs nothing else of this project:

    nonces, seen = Nonces(secret, timedelta(minutes=5)), SeenProofs()
    proof = read_proof(header, method="POST", url=url, now=now, nonces=nonces, access_token=token)
    seen.use(proof, now)
    # proof.jkt is the thumbprint that the token's `cnf` must have

and its client:

    key = ProofKey.generate()
    headers = {"DPoP": key.proof("POST", url, now=now, access_token=token, nonce=nonce)}

What is not good is an `authserver.errors.Refusal`: its `error` is the code of RFC 9449, its `headers` have the nonce.
"""

from authserver.dpop.keys import ProofKey
from authserver.dpop.nonces import Nonces
from authserver.dpop.proofs import ALGORITHMS, Proof, read_proof, token_hash
from authserver.dpop.replay import ReplayMemory, SeenProofs, SharedSeenProofs

__all__ = [
    "ALGORITHMS",
    "Nonces",
    "Proof",
    "ProofKey",
    "ReplayMemory",
    "SeenProofs",
    "SharedSeenProofs",
    "read_proof",
    "token_hash",
]
