"""The published mixtures as data: their shares against the published tables, and how such files are read."""

from __future__ import annotations

import json
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import ConfigError
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.training.data import (
    FORMATS,
    DataSet,
    Encoder,
    Mixture,
    Passed,
    Source,
    Steps,
    Tally,
    read,
    read_mixture,
    read_sources,
    shares,
)

RECIPES = Path(__file__).parents[1] / "recipes"
SHARES = RECIPES / "mixtures" / "published_shares.toml"
MIXTURES = [file for file in sorted((RECIPES / "mixtures").glob("*.toml")) if file != SHARES]
POINTS = 0.15  # percent: the card rounds to a tenth, and its counts are a little older

# The list of SmolVLM's last published weights, in its order; "_new_prompt" and the like are left off the names.
MIX_9 = """
screen2words .5, vistext .3, textcaps 1, sharegpt4o .1, iiw400 2, localized_narratives .02, ny_cc_explanation .05,
ny_cc_matching .01, ny_cc_ranking .01, vqav2 .4, lnqa .05, visual7w 1, okvqa 2, cocoqa 1, vsr 4, rendered_text .08,
iam 1, cord 2, textvqa 2, st_vqa 2, diagram_image_to_text 1, large_docvqa .008, docvqa 2, infographic_vqa 2, chartqa 2,
visualmrc 1, ai2d 4, figureqa .06, dvqa .2, plotqa .03, ocrvqa .03, scienceqa 2, aokvqa 1, nlvr2 .5, iconqa 2, clevr .1,
clevr_math .2, tallyqa .15, mapqa .01, mimic_cgd .02, spot_the_diff .5, hateful_memes 1, raven 1.25, intergps 4,
geomverse .3, geo170k .05, vqarad 2, websight .001, datikz .0001, lima .25, openhermes .01, orca_math .005,
metamathqa .01, math_instruct .01, camel_ai_math .0005, atlas_math_sets .0015, goat .001, dolly .1, tabmwp .25, tqa 4,
hitab 1, multihiertt 1, robut_sqa .1, tat_qa 1.5, chart2text .3, finqa .8, robut_wikisql .02, robut_wtq .015
"""
THE_CAULDRON = 50  # sets of it, all of which are in mix_9

# What the card's sources are in smolvlm2_2b.toml. "other" and "other-video" are what is left of their kind.
ONEVISION, VIDEO_178K = "LLaVA-OneVision-Data", "LLaVA-Video-178K"
CARD = {
    "llava-onevision/magpie_pro_ft3_80b_mt": f"{ONEVISION}/magpie_pro(l3_80b_mt)",
    "llava-onevision/magpie_pro_ft3_80b_tt": f"{ONEVISION}/magpie_pro(l3_80b_st)",
    "llava-onevision/magpie_pro_qwen2_72b_tt": f"{ONEVISION}/magpie_pro(qwen2_72b_st)",
    "llava-onevision/mathqa": f"{ONEVISION}/mathqa",
    "m4-instruct-data/m4_instruct_multiimage": "m4-instruct-data/*",
    "mammoth/multiimage-cap6": "mammoth/*multiimage*_6_images.json",
    "llava-onevision/vision_flan": f"{ONEVISION}/vision_flan(filtered)",
    "llava-onevision/mavis_math_metagen": f"{ONEVISION}/mavis_math_metagen",
    "llava-onevision/mavis_math_rule_geo": f"{ONEVISION}/mavis_math_rule_geo",
    "llava-onevision/sharegpt4o": f"{ONEVISION}/sharegpt4o",
    "llava-onevision/sharegpt4v_coco": f"{ONEVISION}/sharegpt4v(coco)",
    "llava-onevision/image_textualization": f"{ONEVISION}/image_textualization(filtered)",
    "llava-onevision/sharegpt4v_llava": f"{ONEVISION}/sharegpt4v(llava)",
    "llava-onevision/mapqa": f"{ONEVISION}/mapqa(cauldron,llava_format)",
    "llava-onevision/qa": f"{ONEVISION}/tqa(cauldron,llava_format)",
    "llava-onevision/textocr": f"{ONEVISION}/textocr(gpt4v)",
    "llava-video-178k/1-2m": f"{VIDEO_178K}/1_2_m_*",
    "llava-video-178k/2-3m": f"{VIDEO_178K}/2_3_m_*",
    "llava-video-178k/hound": f"{VIDEO_178K}/llava_hound/*",
    "llava-video-178k/0-30s": f"{VIDEO_178K}/0_30_s_*",
    "video-star/starb": "video-star/starb_*",
    "vript/long": "vript/vript_long*",
    "ShareGPT4Video/all": "ShareGPT4Video/*",
}
# The card shows a part of Vista-400K (6.5 %) as "vista-400k" and the rest in "other-video": only their sum can be held.
REST = {"image": ("llava-onevision/other",), "video": ("other-video/combined", "vista-400k/combined")}


def mixture(name: str) -> list[Source]:
    return read_mixture(RECIPES / "mixtures" / f"{name}.toml")


def published_shares() -> dict[str, Any]:
    return tomllib.loads(SHARES.read_text(encoding="utf-8"))


def taken(sources: list[Source]) -> float:
    """Samples of an epoch."""
    return float(sum(one.samples * one.share for one in sources))


# ---- the mixtures ----


@pytest.mark.parametrize("file", MIXTURES, ids=lambda file: file.stem)
def test_every_mixture_is_read_and_says_where_it_is_from(file: Path) -> None:
    header = file.read_text(encoding="utf-8").split("\n\n")[0]
    for said in ("# Source: ", "# Not published: ", "# How to get the data"):
        assert said in header
    for one in read_mixture(file, "data"):
        assert one.path.startswith("data/") and one.kind
        assert one.format in ("", *FORMATS)


@pytest.mark.parametrize(
    ("name", "sources", "samples", "kinds"),
    [
        ("smolvlm2_2b", 110, 3_353_818, {"text": 20.2, "image": 34.4, "video": 33.0, "multi-image": 12.3}),
        ("smolvlm2_small", 107, 3_027_020, {"text": 21.5, "image": 33.8, "video": 33.1, "multi-image": 11.6}),
    ],
)
def test_smolvlm2s_mixtures_have_the_published_shares(
    name: str, sources: int, samples: int, kinds: dict[str, float]
) -> None:
    read_ones = mixture(name)
    assert len(read_ones) == sources
    assert taken(read_ones) == pytest.approx(samples, abs=1)
    found = shares(read_ones)
    assert sum(found.values()) == pytest.approx(1)
    assert {kind: 100 * share for kind, share in found.items()} == pytest.approx(kinds, abs=POINTS)


def test_the_small_models_mixture_has_nothing_of_mammoth() -> None:
    assert not [one.path for one in mixture("smolvlm2_small") if "mammoth" in one.path]
    assert len([one.path for one in mixture("smolvlm2_2b") if "mammoth" in one.path]) == 3


@pytest.mark.parametrize("name", CARD)
def test_a_source_of_smolvlm2_has_the_share_of_the_card(name: str) -> None:
    whole = mixture("smolvlm2_2b")
    meant = [one for one in whole if fnmatchcase(one.path, CARD[name])]
    assert len(meant) == 1
    expected = published_shares()["smolvlm2"]["sources"][name]
    assert 100 * taken(meant) / taken(whole) == pytest.approx(expected, abs=POINTS)


@pytest.mark.parametrize("kind", REST)
def test_what_the_card_calls_other_is_the_rest(kind: str) -> None:
    whole = mixture("smolvlm2_2b")
    rest = [one for one in whole if one.kind == kind and not any(fnmatchcase(one.path, path) for path in CARD.values())]
    expected = sum(published_shares()["smolvlm2"]["sources"][name] for name in REST[kind])
    assert 100 * taken(rest) / taken(whole) == pytest.approx(expected, abs=POINTS)


def test_the_card_names_no_other_sources() -> None:
    rest = [name for names in REST.values() for name in names]
    assert set(published_shares()["smolvlm2"]["sources"]) == {*CARD, *rest}


def test_the_shares_are_kept_as_printed() -> None:
    """The numbers of the document: v1's tasks add up to 101, and SmolVLM2's kinds to 99.9."""
    printed = published_shares()
    assert list(printed["task_shares"].values()) == [17, 1, 18, 13, 8, 11, 25, 8]
    assert sum(printed["task_shares"].values()) == 101
    assert printed["smolvlm2"]["kinds"] == {"text": 20.2, "image": 34.4, "video": 33.0, "multi-image": 12.3}
    assert list(printed["smolvlm2"]["sources"].values()) == [
        6.8, 6.8, 5.8, 0.9, 10.4, 1.9, 17.4, 3.9, 2.6, 2.5, 1.7, 1.5, 1.3, 0.9, 0.9, 0.8, 0.8,
        7.3, 7.0, 5.7, 4.4, 2.4, 2.2, 2.2, 1.0, 0.8,
    ]  # fmt: skip


def test_smolvlms_weights_are_the_published_ones() -> None:
    listed = [one.split() for one in MIX_9.replace("\n", " ").split(",")]
    expected = [("images" if name == "large_docvqa" else name, float(weight)) for name, weight in listed]
    sources = mixture("smolvlm_mix_9")
    assert [(Path(one.path).name, one.weight) for one in sources] == expected
    assert sum(one.path.startswith("the_cauldron/") for one in sources) == THE_CAULDRON


def test_stage_1_is_six_tenths_captions_and_four_tenths_ocr() -> None:
    assert {one.path: one.weight for one in mixture("smolvlm_stage1")} == {"laion_coco/*.tar": 0.6, "ocr/*.tar": 0.4}


def test_later_stages_take_in_the_list_of_weights() -> None:
    inner = mixture("smolvlm_mix_9")
    *same, ocr = mixture("smolvlm_stage2")
    assert same == inner
    assert ocr.weight / (1 + ocr.weight) == pytest.approx(0.3, abs=1e-4)
    *same, docmatix, handwritten = mixture("smolvlm_sft")
    assert same == inner
    assert taken([docmatix]) == pytest.approx(250_000, abs=100)
    assert handwritten.path == "sft/mathwriting"


def test_context_extension_is_five_fifths_and_its_code_is_long() -> None:
    sources = {one.path.split("/")[0]: one for one in mixture("context_extension")}
    assert {name: 100 * one.weight for name, one in sources.items()} == published_shares()["context_extension"]
    assert {name: one.min_tokens for name, one in sources.items() if one.min_tokens} == {"code": 8000}


# ---- how such files are read ----


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def test_relative_paths_are_taken_from_the_data_root(tmp_path: Path) -> None:
    file = write(
        tmp_path / "m.toml",
        """
        data = [
          { path = "a/*.jsonl", media_root = "pictures" },
          { path = "/elsewhere/b.jsonl" },
          { path = "hub:owner/name" },
          { path = "~/c.jsonl" },
        ]
        """,
    )
    assert [(one.path, one.media_root) for one in read_mixture(file, "root")] == [
        ("root/a/*.jsonl", "root/pictures"), ("/elsewhere/b.jsonl", ""), ("hub:owner/name", ""), ("~/c.jsonl", ""),
    ]  # fmt: skip
    assert [one.path for one in read_mixture(file)][0] == "a/*.jsonl"


def test_a_mixture_in_a_mixture_has_its_weights_multiplied(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner" / "a.toml", 'data = [{ path = "a", weight = 0.1 }, { path = "b" }]')
    outer = write(tmp_path / "m.toml", 'data = [{ mixture = "inner/a.toml", weight = 0.7 }, { path = "c" }]')
    found = read_mixture(outer, "root")
    assert [(one.path, one.weight) for one in found] == [("root/a", 0.07), ("root/b", 0.7), ("root/c", 1.0)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('path = "a"\nwieght = 2.0', "unknown key 'wieght'; known are path, format, weight"),
        ("weight = 2.0", "needs a path"),
        ("path = 3", "needs a path"),
        ('path = "a"\nkind = "audio"', "kind='audio' of 'a' is unknown; there are text, image, multi-image, video"),
        ('path = "a"\nweight = 0', "must be above 0"),
        ('path = "a"\nweight = "half"', "weight='half' of 'a' must be a number"),
        ('path = "a"\nsamples = -1', "samples=-1 of 'a' must be a whole number"),
        ('path = "a"\nmin_tokens = 0.5', "min_tokens=0.5 of 'a' must be a whole number"),
        ('path = "a"\nformat = 1', "format=1 of 'a' must be a text"),
        ('mixture = "b.toml"\npath = "a"', "unknown key 'path'; known are mixture, weight"),
        ('mixture = "b.toml"', "There is no mixture"),
        ('mixture = "m.toml"', "names it"),
    ],
)
def test_a_wrong_table_is_refused_with_file_and_number(tmp_path: Path, table: str, message: str) -> None:
    file = write(tmp_path / "m.toml", f'[[data]]\npath = "right"\n[[data]]\n{table}\n')
    with pytest.raises(ConfigError) as caught:
        read_mixture(file)
    assert str(caught.value).startswith(f"{file}: data set 2") and message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"listed as tables \[\[data\]\]"),
        ('[data]\npath = "a"', r"listed as tables \[\[data\]\]"),
        ('date = 1\n[[data]]\npath = "a"', "unknown key 'date'"),
        ("[[data", "not valid TOML"),
    ],
)
def test_a_file_that_is_no_mixture_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_mixture(write(tmp_path / "m.toml", text))


def test_shares_need_counts() -> None:
    counted = [Source("a", kind="text", samples=30, weight=0.1), Source("b", kind="image", samples=1)]
    assert shares(counted) == {"text": 0.75, "image": 0.25}
    assert shares([*counted, Source("c", kind="video")]) == {"text": 0.75, "image": 0.25, "video": 0.0}
    with pytest.raises(ConfigError, match="no data set of this mixture says how many"):
        shares([Source("a", kind="text")])


def test_tables_of_a_recipe_are_read_as_those_of_a_mixture() -> None:
    assert read_sources([{"path": "a", "min_tokens": 3}], Path("r.toml")) == [Source("a", min_tokens=3)]


# ---- samples that are too short ----


def test_short_samples_are_passed_over_and_no_fault(tmp_path: Path, processor: SmolVLMProcessor) -> None:
    texts = ["one " * (40 if number % 4 == 0 else 2) for number in range(40)]
    write(tmp_path / "rows.jsonl", "\n".join(json.dumps({"text": text}) for text in texts))
    (source,) = read_sources([{"path": "rows.jsonl", "min_tokens": 20}], tmp_path / "r.toml", str(tmp_path))
    mixed, encoder, tally = Mixture([DataSet(source)]), Encoder(processor), Tally(0.0)
    steps = Steps(mixed, encoder, 8)
    for number in range(5):
        step = steps[number]
        assert len(step.learned) + step.passed == 8
        tally.add(step)
    assert (tally.passed, tally.seen, tally.skipped) == (30, 10, [])
    kept = {one.place.row for number in range(5) for one in steps[number].learned}
    assert kept == set(range(0, 40, 4))


def test_what_was_passed_over_says_why(tmp_path: Path, processor: SmolVLMProcessor) -> None:
    write(tmp_path / "rows.jsonl", json.dumps({"text": "one"}))
    found = read(Mixture([DataSet(Source(str(tmp_path / "rows.jsonl"), min_tokens=8000))]), Encoder(processor), 0)
    assert isinstance(found, Passed)
    assert "tokens, and at least 8,000 are wanted" in str(found)
