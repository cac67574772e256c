"The panel of 12c in JupyterLab: sliders move the numbers, the curve and the pictures, and no move takes long."
import hashlib
import time
from pathlib import Path

import nbformat

NB = Path(__file__).parents[2]/'nbs'/'12c_sweep.ipynb'


def shown(page, panel):
    "Caption of the panel and a hash of its picture, when both have come."
    picture = panel.locator('.picture')
    data = picture.evaluate("async i => { await i.decode(); const b = await (await fetch(i.src)).arrayBuffer(); return [...new Uint8Array(b)]; }")
    return panel.locator('.caption').inner_text(), hashlib.sha256(bytes(data)).hexdigest()


def without_its_stage(folder):
    "The notebook up to where its stage is run, with the panel of its made-up candidates shown last."
    nb = nbformat.read(NB, 4)
    nb.cells = nb.cells[:next(i for i, c in enumerate(nb.cells) if c.source.startswith('## Run the stage'))]
    nb.cells.append(nbformat.v4.new_code_cell('sure.value = .25\npanel', id='shown'))
    nbformat.write(nb, folder/'12c_panel.ipynb')
    return folder/'12c_panel.ipynb'


def test_sliders_move_numbers_curve_and_pictures(run_nb, tmp_path):
    from playwright.sync_api import expect
    page = run_nb(without_its_stage(tmp_path))
    panels = page.locator('.jp-OutputArea-output .widget-vbox')
    expect(panels).to_have_count(1)
    panel, took = panels.first, []
    caption, handles = panel.locator('.caption'), panel.locator('.noUi-handle')
    expect(caption).to_contain_text('boxes an image')
    seen = [shown(page, panel)]

    for handle, key in ((handles.nth(1), 'ArrowRight'), (handles.nth(1), 'ArrowRight'), (handles.nth(0), 'ArrowLeft')):  # confidence, overlap
        handle.focus()
        start = time.monotonic()
        handle.press(key)
        expect(caption).not_to_have_text(seen[-1][0])
        took.append(time.monotonic() - start)
        page.wait_for_timeout(300)
        seen.append(shown(page, panel))
    panel.locator('.widget-dropdown select').select_option('diou')
    page.wait_for_timeout(1500)
    seen.append(shown(page, panel))
    assert len({text for text, _ in seen}) >= 4 and len({picture for _, picture in seen}) >= 4, seen
    boxes_an_image = [float(text.split(' boxes an image')[0].split()[-1]) for text, _ in seen]
    assert boxes_an_image[0] > boxes_an_image[1] > boxes_an_image[2], 'a higher confidence shows fewer boxes'
    assert min(took) < 2, f'moves took {took} s'  # what a move costs without a browser is in benchmarks/sweep.py
    panel.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path/'sweep.png')
