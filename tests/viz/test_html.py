"""The frame of the pages: no text can become a script."""

import json

import pytest

from viz.pages.html import data_uri, page, script_json

NASTY = "</script><script>alert(1)</script><!-- & \u2028"


FACTS = {"name": NASTY, "x": [1.5, None]}


def test_json_inside_a_script_reads_back():
    assert json.loads(script_json(FACTS)) == FACTS


def test_json_inside_a_script_has_no_character_that_could_end_it():
    assert not set(script_json(FACTS)) & set("<>&\u2028")


def test_a_page_has_one_script_whatever_its_texts_say():
    html = page(NASTY, "<p>body</p>", data=NASTY)
    assert html.count("<script") == html.count("</script>") == 1


def test_a_page_may_load_nothing():
    assert "default-src 'none'" in page(NASTY, "<p>body</p>", data=NASTY)


def test_figures_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_a_picture_becomes_an_address():
    assert data_uri(b"abc", "image/png") == "data:image/png;base64,YWJj"
