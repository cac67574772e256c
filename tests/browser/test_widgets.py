"The browser and the slider of 03b in JupyterLab: pictures follow the slider and the filters."
import hashlib
from pathlib import Path

NB = Path(__file__).parents[2]/'nbs'/'03b_browse.ipynb'


def shown(page, panel):
    "Caption and a hash of the picture that a panel shows."
    picture = panel.locator('.picture')
    data = picture.evaluate("async i => { await i.decode(); const b = await (await fetch(i.src)).arrayBuffer(); return [...new Uint8Array(b)]; }")
    return panel.locator('.caption').inner_text(), hashlib.sha256(bytes(data)).hexdigest(), len(data)


def changed(page, panel, before):
    "As `shown`, once the picture is another than before; it may come after its caption."
    for _ in range(50):
        after = shown(page, panel)
        if after[1] != before[1]: return after
        page.wait_for_timeout(100)
    raise AssertionError('the picture did not change within 5 s')


def test_browser_pages_and_filters(run_nb, tmp_path):
    from playwright.sync_api import expect
    page = run_nb(NB)
    panels = page.locator('.jp-OutputArea-output .widget-vbox')
    expect(panels).to_have_count(2)
    threshold, browser = panels.nth(0), panels.nth(1)
    caption, menus = browser.locator('.caption'), browser.locator('.widget-dropdown select')
    expect(caption).to_contain_text('images 1 to 8 of 14')
    first = shown(page, browser)
    assert first[2] < 400_000  # small enough to page with

    handle = browser.locator('.noUi-handle').first  # the next page
    handle.focus()
    handle.press('ArrowRight')
    expect(caption).to_contain_text('images 9 to 14 of 14')
    second = changed(page, browser, first)

    menus.nth(0).select_option('cow')  # a filter goes back to the first page
    expect(caption).to_contain_text('images 1 to 6 of 6')
    assert changed(page, browser, second)[1] != first[1]
    menus.nth(3).select_option('labels missing')
    expect(caption).not_to_contain_text('of 6')
    menus.nth(1).select_option('little')
    browser.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path/'browse.png')

    before = shown(page, threshold)
    handle = threshold.locator('.noUi-handle').first
    handle.focus()
    for _ in range(4): handle.press('ArrowRight')  # far enough for boxes of these very pictures to go
    after = changed(page, threshold, before)
    assert int(after[0].split()[0]) < int(before[0].split()[0])
    threshold.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path/'threshold.png')
