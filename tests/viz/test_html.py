"""The frame of the pages: texts of other people's cannot become scripts."""

import json

import pytest

from viz.pages.html import data_uri, page, script_json

NASTY = "</script><script>alert(1)</script><!-- & \u2028"


def test_json_inside_a_script_reads_back_and_cannot_end_it():
    text = script_json({"name": NASTY, "x": [1.5, None]})
    assert json.loads(text) == {"name": NASTY, "x": [1.5, None]}
    assert not set(text) & set("<>&\u2028")


def test_a_page_has_one_script_whatever_its_texts_say():
    html = page(NASTY, "<p>body</p>", data=NASTY)
    assert html.count("<script") == html.count("</script>") == 1 and "default-src 'none'" in html


def test_figures_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_a_picture_becomes_an_address():
    assert data_uri(b"abc", "image/png") == "data:image/png;base64,YWJj"
