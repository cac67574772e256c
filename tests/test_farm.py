"The made-up farm: its habits, its truth, and the same bytes from the same seed."
import io
import json
import re
import unicodedata
import zipfile

import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import CORNERS, InputError, box_table, image_table
from livestock_nb.farm import (
    answer_table,
    farm_cameras,
    herd_sizes,
    leave_out,
    make_farm,
    mark_missing,
    overshoot,
    plan_frames,
    read_back,
    render_scene,
    run_lengths,
    write_zip,
    zip_name,
)

RAW = [f'raw_{c}' for c in CORNERS]


@pytest.fixture(scope='module')
def farm(tmp_path_factory):
    home = tmp_path_factory.mktemp('farm')
    complete, tested = make_farm(home/'farm', home/'truth.parquet', frames=24, test_frames=8, seed=0)
    return home, complete, tested


@pytest.fixture(scope='module')
def plan(): return plan_frames(farm_cameras(), 1000, 1, 1, np.random.default_rng(0))


def all_bytes(home): return {p.relative_to(home).as_posix(): p.read_bytes() for p in sorted(home.rglob('*')) if p.is_file()}


def members(path):
    with zipfile.ZipFile(path) as z: return {n: z.read(n) for n in z.namelist()}


def test_same_seed_same_bytes(farm, tmp_path):
    make_farm(tmp_path/'farm', tmp_path/'truth.parquet', frames=24, test_frames=8, seed=0)
    assert all_bytes(tmp_path) == all_bytes(farm[0])


def test_other_seed_other_pixels(farm, tmp_path):
    make_farm(tmp_path/'farm', tmp_path/'truth.parquet', frames=8, test_frames=4, seed=1)
    old, new = (members(h/'farm'/'train'/zip_name('cow', 'images')) for h in (farm[0], tmp_path))
    assert set(new) < set(old)
    assert not any(old[n] == new[n] for n in new)


def test_run_again_over_a_finished_farm(farm):
    before = all_bytes(farm[0])
    (farm[0]/'farm'/'train'/'.1.half.tmp.zip').write_bytes(b'what a killed run leaves')
    make_farm(farm[0]/'farm', farm[0]/'truth.parquet', frames=24, test_frames=8, seed=0)
    assert all_bytes(farm[0]) == before  # and nothing temporary stays behind


def test_zip_names(farm):
    home = farm[0]/'farm'
    korean = {f'[{k}]{s}_bbox.zip' for k in ('원천', '라벨') for s in ('소', '돼지')}
    assert {p.name for p in (home/'train').iterdir()} == korean
    assert {p.name for p in (home/'test').iterdir()} == {unicodedata.normalize('NFD', n) for n in korean} | {'answer.csv'}


def test_ratio_and_sizes(farm):
    images, _ = read_back(farm[0]/'farm'/'train')
    assert images.species.value_counts().to_dict() == dict(cow=18, pig=6)
    assert {tuple(v) for v in images[images.species == 'cow'][['width', 'height']].to_numpy()} == {(1920, 1080)}
    assert images[images.species == 'pig'][['width', 'height']].value_counts().to_dict() == {(1920, 1080): 4, (1280, 960): 2}


def test_images_and_labels_belong_together(farm):
    for part, form in (('train', 'NFC'), ('test', 'NFD')):
        for species in ('cow', 'pig'):
            home = farm[0]/'farm'/part
            pictures, labels = (members(home/zip_name(species, kind, form)) for kind in ('images', 'labels'))
            assert [n[:-4] for n in pictures] == [n[:-5] for n in labels] == sorted(n[:-4] for n in pictures)
            assert all(re.fullmatch(rf'livestock_{species}_bbox_\d{{6}}\.jpg', n) for n in pictures)
            for name, text in labels.items():
                about = json.loads(text)['label_info']['image']
                assert about['file_name'] == name.replace('.json', '.jpg')


def test_category_id_misleads(farm):
    ids = {}
    for species in ('cow', 'pig'):
        infos = [json.loads(t)['label_info'] for t in members(farm[0]/'farm'/'train'/zip_name(species, 'labels')).values()]
        ids[species] = {a['category_id'] for i in infos for a in i['annotations']}
        assert all([k['name'] for k in i['categories']] == ['a', 'b', 'c'] for i in infos)
    assert ids == dict(cow={3}, pig={1})


def test_one_jpeg_is_cut_off(farm):
    whole = {part: [d.endswith(b'\xff\xd9') for s in ('cow', 'pig') for d in members(farm[0]/'farm'/part/zip_name(s, 'images', f)).values()]
             for part, f in (('train', 'NFC'), ('test', 'NFD'))}
    assert (whole['train'].count(False), whole['test'].count(False)) == (1, 0)


def test_one_image_without_a_box(farm):
    images, labelled = read_back(farm[0]/'farm'/'train')
    empty = images[~images.image.isin(labelled.image)]
    assert empty.species.tolist() == ['cow']


def test_labels_are_part_of_the_truth(farm):
    home, complete, tested = farm
    _, labelled = read_back(home/'farm'/'train')
    fate = mark_missing(complete, labelled).groupby('label').fate.value_counts()
    cows = (complete.label == 'cow').sum()
    assert fate['cow', 'missed'] == round(.2*cows) and fate['pig'].to_dict() == dict(gold=(complete.label == 'pig').sum())
    pd.testing.assert_frame_equal(pd.read_parquet(home/'truth.parquet'), complete)
    _, test_labelled = read_back(home/'farm'/'test')
    assert test_labelled[CORNERS].to_numpy().tolist() == tested.sort_values(['image', *RAW])[RAW].to_numpy().tolist()


def test_answer_is_the_challenges(farm):
    home, _, tested = farm
    answer = pd.read_csv(home/'farm'/'test'/'answer.csv')
    assert answer.columns.tolist() == ['ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax'] and len(answer) == len(tested)
    assert answer.ImageID.str.endswith('.jpg').all()
    assert answer[answer.LabelName == 'pig'].XMax.max() > 1 >= answer[answer.LabelName == 'cow'].XMax.max()


@pytest.mark.parametrize('label, corners, expected, why', [
    ('cow', (192, 108, 1920, 1080), (.1, 1, .1, 1), 'a cow over its own size'),
    ('pig', (128, 96, 1280, 960), (.1, 1, .1, 1), 'a pig in the old size over its own size'),
    ('pig', (128, 96, 1920, 1080), (.1, 1.5, .1, 1.125), 'a pig in the big size over the old size: beyond 1')])
def test_answer_constants(label, corners, expected, why):
    row = answer_table(box_table([dict(image='a.jpg', label=label, **dict(zip(CORNERS, corners, strict=True)))])).iloc[0]
    assert tuple(row[['XMin', 'XMax', 'YMin', 'YMax']]) == pytest.approx(expected), why


def test_plan_of_a_bigger_farm(plan):
    assert plan.species.value_counts().to_dict() == dict(cow=750, pig=250)
    widths = pd.Series([farm_cameras()[c].width for c in plan.camera])
    assert widths[plan.species == 'pig'].eq(1920).mean() == pytest.approx(.73, abs=.005)
    counts = plan.groupby('species')['count'].mean()
    assert counts.cow*.8 == pytest.approx(3.2, abs=.2) and counts.pig == pytest.approx(10.8, abs=.4)
    pigs = plan[plan.species == 'pig']['count']
    assert (pigs.lt(8).mean(), pigs.ge(13).mean()) == pytest.approx((.12, .24), abs=.05)  # the reference's little and many
    assert (plan['count'] == 0).sum() == 1


def test_runs(plan):
    lengths = plan[plan['count'] > 0].groupby('run').size()
    assert lengths.between(3, 6).all()
    assert plan.groupby('run')[['camera', 'seed', 'count']].nunique().eq(1).all(axis=None)
    numbers = plan.sort_values(['run', 't']).groupby('run').image.apply(lambda s: s.str[-10:-4].astype(int).diff().dropna().eq(1).all())
    assert numbers[lengths.index].mean() < .02  # file numbers are no frame order


@pytest.mark.parametrize('frames', range(0, 40))
def test_run_lengths_add_up(frames):
    lengths = run_lengths(frames, np.random.default_rng(frames))
    assert sum(lengths) == frames and (frames < 3 or all(3 <= n <= 6 for n in lengths))


def test_train_and_test_share_cameras_but_no_run():
    cameras = farm_cameras()
    train, test = (plan_frames(cameras, n, first, e, np.random.default_rng([0, part])) for n, first, e, part in ((24, 1, 1, 1), (8, 25, 0, 2)))
    assert set(test.camera) <= set(train.camera) and not set(test.seed) & set(train.seed) and not set(test.image) & set(train.image)


def test_missing_share(plan):
    rows = [dict(image=p.image, label=p.species, x1=i, y1=0, x2=i+9, y2=9) for p in plan.itertuples() for i in range(p.count)]
    boxes = box_table(rows)
    labelled = leave_out(boxes, .2, np.random.default_rng(0))
    share = labelled.label.value_counts()/boxes.label.value_counts()
    assert share.cow == pytest.approx(.8, abs=.001) and share.pig == 1
    assert set(labelled.image) == set(boxes.image)  # no image loses its last box
    assert len(leave_out(boxes, 0., np.random.default_rng(0))) == len(boxes)


@pytest.mark.parametrize('label, corners, sides, why', [
    ('cow', (0, 0, 1920, 1080), dict(raw_x1=(-2, -1), raw_y1=(-2, -1), raw_x2=(1921, 1922), raw_y2=(1081, 1082)), 'cows by 1 or 2 px on every side'),
    ('pig', (0, 0, 1920, 1080), dict(raw_x1=(0, 0), raw_y1=(-15, -1), raw_x2=(1920, 1920), raw_y2=(1080, 1080)), 'pigs only upwards, 1 to 15 px'),
    ('cow', (5, 6, 70, 80), dict(raw_x1=(5, 5), raw_y1=(6, 6), raw_x2=(70, 70), raw_y2=(80, 80)), 'a box inside the frame stays')])
def test_overshoot(label, corners, sides, why):
    images = image_table([dict(image='a.jpg', species=label, width=1920, height=1080)])
    boxes = box_table([dict(image='a.jpg', label=label, **dict(zip(CORNERS, corners, strict=True)))]*200)
    b = overshoot(boxes, images, np.random.default_rng(0))
    assert b[CORNERS].equals(boxes[CORNERS])
    assert {c: (b[c].min(), b[c].max()) for c in RAW} == sides, why


def test_labels_overshoot_the_frame(farm):
    _, complete, _ = farm
    assert (complete[CORNERS] >= 0).all(axis=None) and (complete[['x2', 'y2']] <= [1920, 1080]).all(axis=None)
    outside = (complete[RAW].to_numpy() != complete[CORNERS].to_numpy()).any(axis=1)
    assert set(complete[outside].label) == {'cow', 'pig'}


@pytest.mark.parametrize('camera', [0, 2, 4, 8])
def test_scene_boxes_are_tight(camera):
    camera = farm_cameras()[camera]
    frame, boxes = render_scene(camera, 3, seed=5)
    empty, none = render_scene(camera, 0, seed=5)
    assert frame.shape == empty.shape == (camera.height, camera.width, 3) and frame.dtype == np.uint8 and none == []
    assert {b['label'] for b in boxes} == {camera.species} and 1 <= len(boxes) <= 3
    for b in boxes:
        assert 0 <= b['x1'] < b['x2'] <= camera.width and 0 <= b['y1'] < b['y2'] <= camera.height
        inside = np.abs(frame[b['y1']:b['y2'], b['x1']:b['x2']].astype(int) - empty[b['y1']:b['y2'], b['x1']:b['x2']]).max(axis=2)
        assert (inside > 25).mean() > .2  # an animal is there


def test_frames_of_a_run_are_near_duplicates():
    camera = farm_cameras()[0]
    (a, boxes_a), (b, boxes_b), (c, _) = (render_scene(camera, 4, seed=s, t=t) for s, t in ((3, 0), (3, 1), (4, 0)))
    assert boxes_a != boxes_b
    small = [f[::30, ::30].astype(float) for f in (a, b, c)]
    assert np.abs(small[0]-small[1]).mean() < np.abs(small[0]-small[2]).mean()


def test_herd_sizes_stay_in_range():
    for species, low, high in (('cow', 1, 9), ('pig', 5, 17)):
        sizes = herd_sizes(species, 500, np.random.default_rng(0))
        assert (sizes.min(), sizes.max()) == (low, high)
    assert len(herd_sizes('cow', 0, np.random.default_rng(0))) == 0


@pytest.mark.parametrize('wrong, message', [
    (dict(frames=7), '7 train'), (dict(test_frames=3), '3 test'), (dict(missing=1.), 'missing is 1.0'), (dict(missing=-.1), 'missing is -0.1')])
def test_impossible_farms_are_refused(tmp_path, wrong, message):
    with pytest.raises(InputError, match=re.escape(message)): make_farm(tmp_path/'farm', tmp_path/'truth.parquet', **wrong)
    assert not (tmp_path/'farm').exists()


def test_zip_is_whole_or_nothing(tmp_path):
    def breaking():
        yield 'a.txt', 'a'
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): write_zip(tmp_path/'a.zip', breaking())
    assert list(tmp_path.iterdir()) == []
    write_zip(tmp_path/'a.zip', [('a.txt', 'a')])
    with zipfile.ZipFile(io.BytesIO((tmp_path/'a.zip').read_bytes())) as z: assert [i.compress_type for i in z.infolist()] == [zipfile.ZIP_STORED]
