"""Where an option is a text, it is what the user typed, whatever Hydra's grammar would make of it."""

import itertools

import pytest
from conftest import SMALL, succeeded
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from conf.flags import OPTIONAL_TEXTS, TEXTS, to_overrides
from conf.store import composed

HOSTILE = [
    *("1.50", "1e3", "007", "1_000", "0x10", "-5", "nan", "inf", "true", "TRUE", "None", "no", "~", "-", "@"),
    *("a,b", "a,", "null,", "a=b", "=", "[x]", "[1,2", "{a:b}", "(x", "x)", "a:b", "a b", " a ", "", "#", "%", "!"),
    *("é", "中文", "😀", "it's", "a'b\"c", "\\", "a\\", "a\\'b", "\\n", "\\,", "a\\=b", "x\ty", "x\ny"),
    *("$x", "${x}", "\\${x}", "${oc.env:HOME}", "choice(a)", "range(1,3)", "sort(b,a)", "glob(*)", "C:\\it's (1)"),
]


def options(words, names):
    """The values of options, such as dataset.text, that a training has by this line."""
    config = composed("train", to_overrides(words))
    return [OmegaConf.select(config, name) for name in names]


def option(words, name):
    (value,) = options(words, [name])
    return value


FOUR = [
    "dataset.text",
    "dataset.font",
    "task_name",
    "resume",
]  # options of one line, because Hydra takes 0.2 s for each


@pytest.mark.parametrize("texts", [HOSTILE[i : i + 4] for i in range(0, len(HOSTILE), 4)])
def test_what_is_typed_is_what_is_drawn(texts):
    names = FOUR[: len(texts)]
    words = [f"{name}={text}" for name, text in zip(names, texts)]
    assert options(["dataset=text", *words], names) == texts


@pytest.mark.parametrize("text", ["1.50", "true", "a,b", "[x]", "${x}"])
def test_both_spellings_of_an_option_take_a_text(text):
    assert option(["dataset=text", "--dataset.text", text], "dataset.text") == text
    assert option(["dataset=text", f"--dataset.text={text}"], "dataset.text") == text


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("dataset=text dataset.font task_name resume", FOUR[1:]),
        ("dataset=file dataset.path dataset.label", ["dataset.path", "dataset.label"]),
        ("dataset=picture dataset.path", ["dataset.path"]),
        ("dataset=images dataset.test_root --data-path", ["dataset.test_root", "dataset.root"]),
    ],
)
@pytest.mark.parametrize("text", ["1.50", "true", "a=b", "a,b", "runs/[x] (1)/a b"])
def test_names_and_paths_are_texts(line, names, text):
    dataset, *words = line.split()
    assert options([dataset, *(f"{word}={text}" for word in words)], names) == [text] * len(names)


def test_null_is_no_text_where_an_option_may_have_no_value():
    assert option(["task_name=null"], "task_name") is None
    assert option(["task_name='null'"], "task_name") == "null"


def test_null_is_a_text_where_an_option_needs_one():
    assert option(["dataset=text", "dataset.text=null"], "dataset.text") == "null"


@pytest.mark.parametrize(("typed", "text"), [("'1.50'", "1.50"), ('"a,b"', "a,b"), ("\"'q'\"", "'q'")])
def test_quotes_of_hydra_still_enclose_a_text(typed, text):
    assert option(["dataset=text", f"dataset.text={typed}"], "dataset.text") == text


def test_texts_with_choices_are_left_to_hydra():
    assert "dataset.text" in TEXTS and "task_name" in OPTIONAL_TEXTS
    assert {"schedule", "optimizer", "dataset.name", "model.prediction"}.isdisjoint(TEXTS)


def swept(words):
    """The values of each option that a sweep tries, as texts."""
    overrides = [OverridesParser.create().parse_override(word) for word in to_overrides(words) if "=" in word]
    tried = {o.key_or_group: list(o.sweep_string_iterator()) for o in overrides if o.is_sweep_override()}
    runs = []
    for values in itertools.product(*tried.values()):
        runs.append([f"{name}={value}" for name, value in zip(tried, values)])
    return runs


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        ("a,b", ["a", "b"]),
        ("1.50,true,null", ["1.50", "true", "null"]),
        ("'a,b',c", ["a,b", "c"]),
        ("choice(a,b)", ["a", "b"]),
        ("a, b c", ["a", "b c"]),
    ],
)
def test_a_sweep_over_texts_tries_each_of_them(typed, texts):
    runs = swept(["-m", f"dataset.text={typed}"])
    assert [composed("train", ["dataset=text", *run]).dataset.text for run in runs] == texts


@pytest.mark.parametrize(
    ("typed", "labels"),
    [
        ("[1.50,true,null]", ["1.50", "true", "null"]),
        ("[ a b , 'c,d' , 007 ]", ["a b", "c,d", "007"]),
        ("[0,1]", ["0", "1"]),
        ("[]", []),
        ("1.50", "1.50"),
        ("all", "all"),
        ("null", None),
        ("it's", "it's"),
    ],
)
def test_names_of_labels_are_texts(typed, labels):
    assert composed("inference", to_overrides([f"labels={typed}"])).labels == labels


def test_a_sweep_over_labels_tries_each_list():
    runs = swept(["-m", "labels=[1.50],[true,x]"])
    assert [list(composed("inference", run).labels) for run in runs] == [["1.50"], ["true", "x"]]


@pytest.mark.slow
def test_commands_take_hostile_names(tmp_path):
    table = "x,y,a=b\n" + "".join(f"{i},{i % 7},{['true', '1.50', 'a=b'][i % 3]}\n" for i in range(300))
    (tmp_path / "a,b [1]=c.csv").write_text(table)
    words = [*SMALL.split(), "max_steps=2", "eval_samples=0", "conditional=true"]
    data = ["dataset=file", "dataset.path=a,b [1]=c.csv", "dataset.label=a=b"]
    succeeded(["train.py", *words, *data, "task_name=runs/x=1,y (2)"], tmp_path)
    line = ["inference.py", "checkpoint=runs/x=1,y (2)", "labels=[1.50,true]", "num_samples=4", "rerun=false"]
    succeeded([*line, "hydra.run.dir=out"], tmp_path)
    assert (tmp_path / "out" / "samples.npy").is_file()
