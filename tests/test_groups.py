"""Near-duplicate frames: hashes, pairs, and the groups they make."""
import cv2
import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import InputError, image_table
from livestock_nb.farm import Camera, render_scene
from livestock_nb.groups import WAVES, find_groups, hash_bits, image_hash, image_hashes, near_pairs, same_moment

CAMERAS = [Camera("f", f"c{i}", species, 640, 360, i == 1, i) for i, species in enumerate(["cow", "pig"])]


def filmed(run: int, t: int) -> bytes:
    "A frame of a run, with its own shift, light, noise and JPEG quality."
    rng = np.random.default_rng([run, t])
    camera = CAMERAS[run % 2]
    frame, _ = render_scene(camera, 3 + run % 4 + 4*(run % 2), 100 + run, t)
    frame = cv2.warpAffine(frame, np.float32([[1, 0, rng.integers(-2, 3)], [0, 1, rng.integers(-2, 3)]]), (640, 360), borderMode=cv2.BORDER_REPLICATE)
    frame = np.clip(frame*rng.uniform(.85, 1.15) + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))])[1].tobytes()


def test_planted_runs_are_found_from_the_pixels_alone(tmp_path):
    order = np.random.default_rng(0).permutation(48)
    truth = {f"{n:03d}.jpg": int(i)//4 for n, i in enumerate(order)}
    for (name, run), i in zip(truth.items(), order, strict=True): (tmp_path/name).write_bytes(filmed(run, int(i) % 4))
    images = image_table([dict(image=n, species="cow", width=640, height=360, zip=str(tmp_path), member=n) for n in truth])
    group = find_groups(images, image_hashes(images))
    same_run = np.equal.outer(images.image.map(truth).to_numpy(), images.image.map(truth).to_numpy())
    same_group = np.equal.outer(group.to_numpy(), group.to_numpy())
    assert (same_group & same_run).sum() >= .99*same_run.sum()  # pairs found
    assert (same_group & ~same_run).sum() <= .01*same_group.sum()  # false merges


def bits(*flipped: int) -> str:
    "A hash of noise with some bits flipped."
    b = np.random.default_rng(0).random(WAVES**2) < .5
    b[list(flipped)] ^= True
    return np.packbits(b).tobytes().hex()


def table(**columns: list) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return image_table([dict(image=f"{i}.jpg", species="cow", width=9, height=9, **{k: v[i] for k, v in columns.items()}) for i in range(n)])


NOTHING = pd.DataFrame(columns=["image", "hash"], dtype=str)


@pytest.mark.parametrize(("columns", "expected"), [
    (dict(sha=["a", "b", "a"]), "010"),  # the same bytes
    (dict(group=["x", "", "x"]), "010"),  # somebody said so
    (dict(sha=["", "", ""]), "012"),  # nothing is known: nothing belongs together
    (dict(farm=["f"]*3, time=["2022-01-01 10:00:00", "2022-01-01 10:00:50", "2022-01-01 10:03:00"]), "002"),
    (dict(farm=["f"]*3, time=["2022-01-01 10:00:00", "2022-01-01 10:01:00", "2022-01-01 10:02:00"]), "000"),  # a run may be long
    (dict(farm=["f", "g", "f"], time=["2022-01-01 10:00:00"]*3), "010"),  # another farm
    (dict(farm=["f"]*3, time=["2022-01-01"]*3), "012"),  # a date is no moment
    (dict(farm=["f"]*3, time=["20220101100000", "20220101100030", "later: 9:99"]), "002"),  # other spellings, and none
    (dict(farm=[""]*3, time=["2022-01-01 10:00:00"]*3), "012"),  # nobody says which camera
    (dict(sha=["a", "a", "b"], group=["", "x", "x"]), "000"),  # a chain
])
def test_what_is_known_of_images_joins_them(columns: dict, expected: str):
    assert find_groups(table(**columns), NOTHING).tolist() == [f"{c}.jpg" for c in expected]


def test_near_hashes_chain_and_far_ones_do_not():
    hashes = pd.DataFrame(dict(image=["0.jpg", "1.jpg", "2.jpg", "3.jpg"], hash=[bits(), bits(*range(40)), bits(*range(80)), bits(*range(200))]))
    images = table(sha=["", "", "", ""])
    assert find_groups(images, hashes, 40).tolist() == ["0.jpg"]*3 + ["3.jpg"]
    assert find_groups(images, hashes, 39).nunique() == 4
    assert find_groups(images, hashes.assign(hash=["", *hashes.hash[1:]]), 40).tolist() == ["0.jpg", "1.jpg", "1.jpg", "3.jpg"]  # unreadable
    assert near_pairs(hashes, 40).to_numpy().tolist() == [["0.jpg", "1.jpg", 40], ["1.jpg", "2.jpg", 40]]
    side = pd.Series(["train", "train", "valid"], ["0.jpg", "1.jpg", "2.jpg"])
    assert near_pairs(hashes, 40, side).other.tolist() == ["2.jpg"]


def test_pairs_are_all_pairs_whatever_the_block():
    from livestock_nb.groups import pair_blocks
    rng = np.random.default_rng(1)
    hashes = pd.Series([np.packbits(rng.random(256) < .5).tobytes().hex() for _ in range(57)])
    apart = (WAVES**2 - hash_bits(hashes) @ hash_bits(hashes).T)/2
    expected = {(i, j, int(apart[i, j])) for i in range(57) for j in range(i + 1, 57) if apart[i, j] <= 120}
    got = [(int(i), int(j), int(d)) for block in pair_blocks(hashes, 120, block=10) for i, j, d in zip(*block, strict=True)]
    assert len(got) == len(set(got)) and set(got) == expected and expected


def apart(a: str, b: str) -> int:
    "Bits in which two hashes differ."
    return int((hash_bits(pd.Series([a, b])).prod(axis=0) < 0).sum())


def test_a_hash_hardly_changes_where_a_file_is_cut_off_and_small_images_have_one():
    data = filmed(0, 0)
    assert apart(image_hash(data), image_hash(data[:-28])) < 10
    assert len(image_hash(data[:len(data)//2])) == WAVES**2//4
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), 1)
    small, large = (cv2.imencode(".png", cv2.resize(frame, None, fx=f, fy=f, interpolation=cv2.INTER_AREA))[1].tobytes() for f in (.2, 3))
    assert apart(image_hash(small), image_hash(large)) < 48


@pytest.mark.parametrize("data", [b"", b"no image", filmed(0, 0)[:100], b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBP"])
def test_bytes_that_are_no_image_are_named(data: bytes):
    with pytest.raises(InputError, match="a.jpg"): image_hash(data, "a.jpg")


def test_unreadable_images_have_no_hash_and_the_rest_goes_on(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: (_ for _ in ()).throw(ImportError("pi_heif")))  # what another library may put there
    (tmp_path/"0.jpg").write_bytes(b"no image")
    (tmp_path/"2.jpg").write_bytes(filmed(0, 0))
    images = table(sha=["", "", ""]).assign(zip=str(tmp_path), member=["0.jpg", "away.jpg", "2.jpg"])
    hashes = image_hashes(images)
    assert hashes.hash.ne("").tolist() == [False, False, True]
    assert find_groups(images, hashes).tolist() == images.image.tolist()


def test_a_moment_has_a_key_and_nothing_else_has():
    assert same_moment(table(farm=["f", "f"], time=["2022-01-01 10:00", ""])).tolist()[1] == ""
