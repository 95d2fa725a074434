"""WebSocket frames, followed whole, byte by byte, and up to where one ends."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.worker.tunnel.frames import FrameFollower, close_frame

TEXT, CONTINUATION, CLOSE, PING = 0x81, 0x00, 0x88, 0x89


def frame(first: int, payload: bytes, mask: bytes = b"") -> bytes:
    flag, size = 0x80 if mask else 0, len(payload)
    if size < 126:
        return bytes((first, flag | size)) + mask + payload
    if size < 65_536:
        return bytes((first, flag | 126)) + size.to_bytes(2, "big") + mask + payload
    return bytes((first, flag | 127)) + size.to_bytes(8, "big") + mask + payload


FRAMES = [
    frame(TEXT, b""),
    frame(TEXT, b"x"),
    frame(PING, b"x" * 125),
    frame(TEXT, b"x" * 126),
    frame(0x02, b"x" * 65_535),
    frame(0x02, b"x" * 65_536),
    frame(TEXT, b"masked", b"\x01\x02\x03\x04"),
    frame(CONTINUATION, b"x" * 200, b"\xff\xff\xff\xff"),
]


@pytest.mark.parametrize("data", FRAMES, ids=range(len(FRAMES)))
def test_boundary_is_at_the_frames_end_and_nowhere_else(data: bytes) -> None:
    whole, bytewise = FrameFollower(), FrameFollower()
    assert whole.at_boundary
    whole.feed(data)
    for i in range(len(data)):
        bytewise.feed(data[i : i + 1])
        assert bytewise.at_boundary is (i == len(data) - 1)
    assert whole.at_boundary


@pytest.mark.parametrize("data", FRAMES, ids=range(len(FRAMES)))
@pytest.mark.parametrize("spare", [b"", b"\x81", frame(TEXT, b"next")])
def test_following_to_the_boundary_takes_one_frame(data: bytes, spare: bytes) -> None:
    for cut in {0, 1, 2, 3, 9, 13, len(data) - 1} & set(range(len(data))):
        follower = FrameFollower()
        follower.feed(data[:cut])
        assert follower.feed_to_boundary(data[cut:] + spare) == len(data) - cut
        assert follower.at_boundary


def test_following_to_the_boundary_takes_all_of_an_unfinished_frame() -> None:
    follower = FrameFollower()
    data = frame(TEXT, b"12345")
    assert follower.feed_to_boundary(data[:1]) == 1
    assert follower.feed_to_boundary(data[1:4]) == 3
    assert not follower.at_boundary
    assert follower.feed_to_boundary(b"") == 0
    assert follower.feed_to_boundary(data[4:]) == 3


@given(st.lists(st.sampled_from(FRAMES), max_size=6), st.randoms(use_true_random=False))
def test_cuts_do_not_matter(frames: list[bytes], chance: random.Random) -> None:
    data = b"".join(frames)
    follower = FrameFollower()
    ends = {0}
    for each in frames:
        ends.add(max(ends) + len(each))
    at = 0
    while at < len(data):
        step = chance.choice([1, 2, 3, 10, 1000, 100_000])
        follower.feed(data[at : at + step])
        at = min(at + step, len(data))
        assert follower.at_boundary is (at in ends)


def test_close_is_seen_from_its_header_on() -> None:
    follower = FrameFollower()
    follower.feed(frame(TEXT, b"x") + frame(PING, b""))
    assert not follower.close_seen
    follower.feed(close_frame(1000)[:2])
    assert follower.close_seen
    assert not follower.at_boundary
    follower.feed(close_frame(1000)[2:])
    assert follower.at_boundary


def test_impossible_length_is_no_websocket_any_more() -> None:
    follower = FrameFollower()
    follower.feed(bytes((TEXT, 127)) + b"\xff" * 8 + b"whatever")
    assert follower.lost
    assert not follower.at_boundary
    assert follower.feed_to_boundary(b"\x81\x00") == 2
    follower.feed(b"\x81\x00")
    assert not follower.at_boundary


def test_close_frame_is_a_servers() -> None:
    assert close_frame(1001) == b"\x88\x02\x03\xe9"
    assert close_frame(1012) == b"\x88\x02\x03\xf4"
