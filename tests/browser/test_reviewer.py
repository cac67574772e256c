"The reviewer in JupyterLab: keys, mouse, undo, and a kernel that is killed amid a review."
import json
import os
import signal

import nbformat

# the name of the third image is a tag; the journal lies beside the notebook
SETUP = """
import os
from pathlib import Path
import cv2
from livestock_nb.data import CORNERS, box_table, clip_boxes, image_table
from livestock_nb.farm import farm_cameras, render_scene
from livestock_nb.review import link_suspects, order_suspects, review
names, rows, truth = ['barn.jpg', 'yard.jpg', '<img src=x onerror=alert(1)>.jpg'], [], []
for i, name in enumerate(names):
    frame, found = render_scene(farm_cameras()[0], 4, i, image=name)
    Path('frames').mkdir(exist_ok=True)
    (Path('frames')/name).write_bytes(cv2.imencode('.jpg', frame[..., ::-1])[1].tobytes())
    rows.append(dict(image=name, species='cow', width=frame.shape[1], height=frame.shape[0], zip=str(Path('frames').resolve()), member=name))
    truth += found
images, truth = image_table(rows), box_table(truth)
first = truth.index[~truth.image.duplicated()]  # of each image
boxes, kinds = truth.drop(first[:2]).reset_index(drop=True), ['missing', 'missing', 'misplaced']
"""
ASK = """
suspects = truth.loc[first, ['image', 'label', *CORNERS]].assign(kind=kinds, probability=[.9, .8, .4])
found = truth.assign(confidence=.9, source='model')
linked, problems = link_suspects(suspects, images, boxes)
asked = order_suspects(linked, clip_boxes(boxes, images), found)
reviewer = review(images, boxes, asked, Path('decisions.jsonl').resolve(), found)
Path('pid').write_text(str(os.getpid()))
Path('asked.json').write_text(asked[['image', 'box', *CORNERS]].to_json(orient='records'))
"""


def notebook(folder):
    cells = [nbformat.v4.new_code_cell(s, id=f'c{i}') for i, s in enumerate((SETUP.strip(), ASK.strip(), 'reviewer'))]
    kernel = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))  # else JupyterLab asks for one
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder/'review_here.ipynb')
    return folder/'review_here.ipynb'


def place(page, x: float, y: float) -> tuple[float, float]:
    "Where a pixel of the image is on the screen."
    return tuple(page.locator('.nb-review svg').evaluate(
        "(svg, [x, y]) => { const p = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM()); return [p.x, p.y] }", [x, y]))


def drag(page, start: tuple, end: tuple) -> None:
    page.mouse.move(*place(page, *start))
    page.mouse.down()
    page.mouse.move(*place(page, *end), steps=8)
    page.mouse.up()


def test_a_review_outlives_its_kernel(run_nb, lab, tmp_path):
    from playwright.sync_api import expect
    root, asked_for = lab[1], []
    journal = lambda: [json.loads(line) for line in (root/'decisions.jsonl').read_text().splitlines()]
    def heard(dialog) -> None:
        if dialog.type != 'beforeunload': asked_for.append(f'dialog {dialog.message}')  # JupyterLab's own, as the notebook is not saved
        dialog.accept()
    page = run_nb(notebook(tmp_path))
    page.on('dialog', heard)
    page.on('request', lambda r: asked_for.append(r.url) if not r.url.startswith((lab[0], lab[0].replace('http', 'ws'), 'blob:', 'data:')) else None)
    asked = json.loads((root/'asked.json').read_text())
    ready = lambda: expect(page.locator('.nb-review.waiting')).to_have_count(0)  # no key counts while an answer is on its way
    page_is, done, said = page.locator('.nb-review'), page.locator('.nb-review .done'), page.locator('.nb-review .said')
    expect(done).to_have_text('0 of 3 answered')
    cells = page.locator('.jp-Notebook .jp-Cell').count()
    natural = page.locator('.nb-review svg image').evaluate(
        "async i => { const p = new Image(); p.src = i.href.baseVal; await p.decode(); return [p.naturalWidth, p.naturalHeight] }")
    viewbox = [float(v) for v in page.locator('.nb-review svg').get_attribute('viewBox').split()]
    assert natural[0] == 1600 and viewbox[2] > 1600  # a shrunk picture in a frame of its own size

    page_is.focus()
    page.keyboard.press('k')  # accept one
    expect(done).to_have_text('1 of 3 answered')
    assert [(d['action'], d['box'], d['source']) for d in journal()] == [('keep', asked[0]['box'], 'human')]

    page.keyboard.press('n')  # draw one
    drag(page, (700, 300), (900, 450))
    expect(said).to_contain_text('Saved: draw')
    drawn = journal()[-1]
    assert drawn['action'] == 'draw' and drawn['image'] == asked[1]['image'] and drawn['label'] == 'cow'
    assert all(abs(drawn[c] - v) <= 3 for c, v in zip(('x1', 'y1', 'x2', 'y2'), (700, 300, 900, 450), strict=True)), drawn

    corner = drawn['x2'], drawn['y2']  # a corner of it is dragged, then the arrows move it
    drag(page, corner, (corner[0] + 60, corner[1] + 40))
    expect(said).to_contain_text('Saved: move')
    ready()
    page.keyboard.press('Shift+ArrowRight')
    ready()
    moved = journal()[-1]
    assert moved['box'] == drawn['box'] and abs(moved['x2'] - corner[0] - 70) <= 3 and abs(moved['y2'] - corner[1] - 40) <= 3

    page.locator(f'.nb-review rect[data-box="{asked[1]["box"]}"]').dispatch_event('pointerdown', dict(button=0))  # choose the suspect again
    ready()
    page.keyboard.press('d')  # drop one, and take it back
    expect(done).to_have_text('2 of 3 answered')
    page.keyboard.press('u')
    expect(done).to_have_text('1 of 3 answered')
    expect(said).to_contain_text('Taken back: drop')
    assert [d['action'] for d in journal()[-2:]] == ['drop', 'undo'] and journal()[-1]['undoes'] == journal()[-2]['id']
    page_is.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path/'review.png')

    page.keyboard.press('z')
    assert float(page.locator('.nb-review svg').get_attribute('viewBox').split()[2]) < viewbox[2]
    page.screenshot(path=tmp_path/'zoom.png')
    assert page.locator('.jp-Notebook .jp-Cell').count() == cells  # no key reached JupyterLab

    before = journal()
    os.kill(int((root/'pid').read_text()), signal.SIGKILL)
    page.wait_for_timeout(1000)
    page = run_nb(tmp_path/'review_here.ipynb')  # reopened
    done = page.locator('.nb-review .done')
    expect(done).to_have_text('1 of 3 answered')
    expect(page.locator('.nb-review .name')).to_have_text(asked[1]['image'])
    assert journal() == before
    expect(page.locator('.nb-review svg rect.human')).to_have_count(1)  # what was drawn
    page.locator('.nb-review button.skip').click()
    expect(page.locator('.nb-review .name')).to_have_text(asked[2]['image'])
    page.locator('.nb-review button.keep').click()
    expect(done).to_have_text('2 of 3 answered, 1 skipped')
    page.screenshot(path=tmp_path/'reopened.png')
    assert page.locator('.nb-review img').count() == 0 and not asked_for, asked_for  # names are text, and nothing is fetched from elsewhere
