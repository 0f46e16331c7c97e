"""The Merkle tree of RFC 9162 §2.1, held to the vectors of Certificate Transparency and to itself."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.audit import tree

# The reference leaves and roots of Certificate Transparency's own test suite (RFC 6962 reference implementation).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
HASHES = [tree.leaf_hash(leaf) for leaf in LEAVES]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_roots_are_those_of_certificate_transparency(size: int) -> None:
    """RFC 9162 §2.1.1."""
    assert tree.root_of(HASHES[:size]).hex() == ROOTS[size - 1]


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    """RFC 9162 §2.1.1."""
    assert tree.root_of([]) == hashlib.sha256(b"").digest()


def test_the_example_proofs_of_the_rfc_have_its_shape() -> None:
    """RFC 9162 §2.1.5: a tree of seven leaves."""
    hashes = HASHES[:7]
    node = tree.root_of
    assert tree.inclusion_proof(hashes, 0) == [hashes[1], node(hashes[2:4]), node(hashes[4:7])]
    assert tree.inclusion_proof(hashes, 6) == [node(hashes[4:6]), node(hashes[0:4])]
    assert tree.consistency_proof(hashes, 3) == [hashes[2], hashes[3], node(hashes[0:2]), node(hashes[4:7])]
    assert tree.consistency_proof(hashes, 4) == [node(hashes[4:7])]
    assert tree.consistency_proof(hashes, 6) == [node(hashes[4:6]), hashes[6], node(hashes[0:4])]


def some(count: int) -> list[bytes]:
    return [tree.leaf_hash(str(number).encode()) for number in range(count)]


def test_every_proof_of_every_small_tree_is_good_and_every_bent_one_is_not() -> None:
    for size in range(1, 34):
        hashes = some(size)
        root = tree.root_of(hashes)
        for position in range(size):
            proof = tree.inclusion_proof(hashes, position)
            tree.check_inclusion(hashes[position], position, size, proof, root)
            for bent in ([*proof, root], proof[:-1] if proof else [root], [root, *proof[1:]]):
                if bent != proof:
                    with pytest.raises(tree.ProofRefused):
                        tree.check_inclusion(hashes[position], position, size, bent, root)
            with pytest.raises(tree.ProofRefused):
                tree.check_inclusion(tree.leaf_hash(b"other"), position, size, proof, root)
        for first in range(1, size + 1):
            proof, first_root = tree.consistency_proof(hashes, first), tree.root_of(hashes[:first])
            tree.check_consistency(first, size, proof, first_root, root)
            for wrong in (tree.leaf_hash(b"other"), root if first_root != root else first_root[::-1]):
                with pytest.raises(tree.ProofRefused):
                    tree.check_consistency(first, size, proof, wrong, root)


@given(sizes=st.lists(st.integers(0, 40), max_size=6))
def test_leaves_may_come_in_any_parts(sizes: list[int]) -> None:
    hashes = some(sum(sizes))
    grown, start = tree.Tree(), 0
    for size in sizes:
        grown, start = grown.with_leaves(hashes[start : start + size]), start + size
    assert (grown.size, grown.root()) == (len(hashes), tree.root_of(hashes))


def test_there_is_no_proof_of_what_is_not_there() -> None:
    hashes = some(5)
    for position in (-1, 5):
        with pytest.raises(IndexError):
            tree.inclusion_proof(hashes, position)
    for size in (0, 6):
        with pytest.raises(IndexError):
            tree.consistency_proof(hashes, size)
