"""A method that the page has no words for, the worked one of docs/extend.md, is shown beside those that it knows."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from playwright.sync_api import Page, expect

from tests.browser.test_flows import LEMON, choose, to_view
from tests.test_extend import client, extended  # noqa: F401

Open = Callable[..., Page]


def test_a_method_that_was_added_is_asked_for_and_told_in_both_languages(
    open_page: Open,
    client: httpx.Client,  # noqa: F811
) -> None:
    page = open_page(str(client.base_url))
    choose(page, LEMON)
    expect(page.locator(".bar")).to_have_count(5)
    to_view(page, "Why")
    figure = page.locator("[data-method=occlusion]")
    drawn = figure.get_by_role("img", name="The picture with what Occlusion finds to count for Lemon")
    expect(drawn).to_be_visible()
    expect(figure.locator("figcaption")).to_have_text("Occlusiona method that was added here")
    expect(page.locator("#call code")).to_contain_text("method=occlusion&style=heatmap")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download Occlusion").click()
    assert download.value.suggested_filename == "lemon-Lemon-occlusion.png"
    page.get_by_text("What is Occlusion?").click()
    expect(page.locator("#how-occlusion [lang=en]")).to_contain_text("where a grey square hides a part")
    page.get_by_role("button", name="Deutsch").click()
    expect(figure.get_by_role("img", name="Das Bild mit dem, was nach Occlusion bei Lemon zählt")).to_be_visible()
    expect(page.locator("#how-occlusion summary")).to_have_text("Was ist Occlusion?")
    expect(page.locator("#how-occlusion [lang=en]")).to_be_visible()
