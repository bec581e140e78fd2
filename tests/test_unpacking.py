"""Answers that come compressed: inflated to a limit, whatever they claim to be."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.specs.unpacking import PackedError, unpack

TEXT = b"the same words again and again. " * 100


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("header", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
        ("gzip, identity", gzip.compress),
    ],
)
def test_what_was_packed_is_unpacked(header, pack):
    assert unpack(pack(TEXT), header, len(TEXT)) == TEXT


@given(st.binary(max_size=3000), st.integers(0, 2))
@settings(max_examples=50)
def test_any_bytes_survive(body, level):
    packed = gzip.compress(body, level) + gzip.compress(body) + b"\0" * level
    assert unpack(packed, "gzip", 10_000) == body * 2


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_bomb_is_inflated_to_just_over_the_limit(times):
    bomb = bytes(30_000_000)
    for _ in range(times):
        bomb = gzip.compress(bomb)
    assert len(unpack(bomb, ",".join(["gzip"] * times), 1_000_000)) == 1_000_001


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["gzip", "deflate", "gzip, deflate"]))
@settings(max_examples=100)
def test_what_is_not_packed_as_it_says_is_told(body, header):
    try:
        unpack(body, header, 1000)
    except PackedError as e:
        assert e.retryable
        assert "is not the" in str(e)


def test_a_body_that_breaks_off_is_told():
    with pytest.raises(PackedError, match="is not the gzip it says") as told:
        unpack(gzip.compress(TEXT)[:-9], "gzip", 10_000)
    assert told.value.retryable


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "aes128gcm"])
def test_what_nobody_here_can_unpack_is_told_with_what_to_ask_for(coding):
    with pytest.raises(PackedError, match=f"packed as '{coding}'.*Accept-Encoding") as told:
        unpack(b"x", coding, 10)
    assert not told.value.retryable


def test_packing_over_and_over_is_refused():
    with pytest.raises(PackedError, match="4 times over"):
        unpack(b"x", "gzip, gzip, gzip, gzip", 10)


def test_a_body_of_many_small_members_is_refused():
    with pytest.raises(PackedError):
        unpack(gzip.compress(b"") * 1000, "gzip", 10)
