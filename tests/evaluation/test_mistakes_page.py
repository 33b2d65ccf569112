"""The page on mistakes is one safe, complete file of bearable size."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from breakhis_search.data.taxonomy import class_names
from breakhis_search.errors import DataError
from breakhis_search.evaluation.mistakes import most_confident_mistakes
from breakhis_search.evaluation.mistakes_page import (
    ClassMap,
    Explanations,
    build_mistakes_page,
)
from breakhis_search.evaluation.mistakes_pictures import PICTURE_WIDTH_PX

EVIL = "<script>alert('x')</script>"
NO_MAPS = Explanations(absence="the architecture has no convolutional layer")


def field_of_view(path: str) -> np.ndarray:
    """Noise of the size of a real image: no picture compresses worse."""
    seed = int.from_bytes(path.encode()[-6:], "big") % 2**32
    return np.random.default_rng(seed).integers(0, 256, (460, 700, 3), dtype=np.uint8)


def maps_for(table: pd.DataFrame) -> Explanations:
    rng = np.random.default_rng(0)
    maps = {
        (m.image, m.predicted_class): ClassMap(rng.random((64, 96), dtype=np.float32), seed=0)
        for m in most_confident_mistakes(table)
    }
    return Explanations(maps, grid=(7, 10))


def page_of(table, *, explanations=NO_MAPS, title="Trial 3", trials=(), **facts) -> str:
    return build_mistakes_page(
        table,
        title=title,
        subtitle_facts=facts or {"a": "b"},
        image_of=field_of_view,
        explanations=explanations,
        tables_of_trials=trials,
    )


def own_part(page: str) -> str:
    """Return the page without plotly.js."""
    return page.replace(get_plotlyjs(), "")


def images_in(page: str, kind: str) -> list[np.ndarray]:
    codes = re.findall(rf'href="data:image/{kind};base64,([^"]+)"', page)
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(c), np.uint8), cv2.IMREAD_UNCHANGED)
        for c in codes
    ]


@pytest.fixture(scope="module")
def full_page(full_tables) -> str:
    table = full_tables["multiclass"]
    return page_of(table, explanations=maps_for(table))


@pytest.fixture
def binary(make_table) -> pd.DataFrame:
    malignant = [0.97, 0.2, 0.6, 0.1]
    return make_table(
        ["benign", "benign", "benign", "malignant"],
        [[1 - p, p] for p in malignant],
        accessions=["14-1", "14-1", "14-2", "14-3"],
        magnifications=[40, 100, 200, 400],
    )


def test_page_of_the_full_set_stays_below_six_megabytes(full_page):
    assert full_page.count(get_plotlyjs()) == 1
    assert len(full_page.encode()) < 6_000_000


def test_page_asks_the_network_for_nothing(full_page):
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]{5})', own_part(full_page))
    assert set(links) == {"data:", "#pict"}
    assert not re.search(r"@import|url\(", own_part(full_page))
    assert "default-src 'none'" in full_page


def test_every_mistake_has_a_picture_and_an_overlay_of_it(full_page):
    pictures, maps = images_in(full_page, "jpeg"), images_in(full_page, "png")
    assert {p.shape for p in pictures} == {(269, PICTURE_WIDTH_PX, 3)}
    assert len(pictures) == len(maps) == 24
    assert all(m.shape[2] == 4 for m in maps)
    used = re.findall(r'<use href="#(picture-\d+)"/>', full_page)
    assert used == [f"picture-{number}" for number in range(1, 25)]
    assert all(full_page.count(f'id="{name}"') == 1 for name in used)


def test_picture_keeps_its_colours(binary):
    """Red stays red on its way through OpenCV's BGR; a small picture is not enlarged."""
    red = np.zeros((60, 90, 3), np.uint8)
    red[..., 0] = 220
    page = build_mistakes_page(
        binary,
        title="t",
        subtitle_facts={},
        image_of=lambda _: red,
        explanations=NO_MAPS,
    )
    picture = images_in(page, "jpeg")[0][..., ::-1]
    assert picture.shape == red.shape
    np.testing.assert_allclose(picture.mean(axis=(0, 1)), [220, 0, 0], atol=6)


def test_overlay_is_opaque_and_yellow_only_where_the_map_is_high(binary):
    places = np.zeros((64, 96), np.float32)
    places[:32] = 1.0
    found = {("image-000.png", "malignant"): ClassMap(places, seed=0)}
    page = page_of(binary, explanations=Explanations(found, (7, 10)))
    blue, green, red, opacity = np.moveaxis(images_in(page, "png")[0].astype(int), -1, 0)
    assert (opacity[:20] > 150).all()
    assert (opacity[-20:] == 0).all()
    assert (red[:20] > 200).all()
    assert (green[:20] > 200).all()
    assert (blue[:20] < 100).all()


def test_case_states_what_is_known_of_it(binary):
    page = own_part(page_of(binary))
    assert "3 of 4 images (75%) are given to a wrong class; they are of 3 of 3 patients" in page
    assert "<b>1. Taken for malignant, p = 0.970</b><br>truth: benign (adenosis), p = 0.030" in page
    assert "40×, patient 14-1: 1 of its 2 images is wrong" in page
    assert "400×, patient 14-3: its only image" in page
    assert "<code>image-000.png</code>" in page


def test_maps_that_cannot_be_made_are_reported_in_words(binary):
    page = own_part(page_of(binary))
    assert "Grad-CAM maps are not available: the architecture has no convolutional layer." in page
    assert page.count("no map, see above") == 3
    assert "What Grad-CAM cannot tell" not in page


def test_map_of_another_class_is_not_shown(binary):
    found = {("image-000.png", "benign"): ClassMap(np.ones((8, 8), np.float32), seed=0)}
    page = page_of(binary, explanations=Explanations(found, (7, 10)))
    assert images_in(page, "png") == []
    assert page.count("No map: for no single model") == 3
    assert "The map has 7 × 10 cells" in page


def test_empty_map_is_said_to_be_empty(binary):
    found = {("image-000.png", "malignant"): ClassMap(np.zeros((8, 8), np.float32), seed=0)}
    page = page_of(binary, explanations=Explanations(found, (7, 10)))
    assert "An empty map: no place raised the score of malignant." in page


def test_pairs_and_hard_patients_are_said_in_words(binary):
    page = own_part(page_of(binary, trials=[binary, binary]))
    assert (
        "<li>ductal carcinoma is taken for benign: 1 of 1 image, from 1 of 1 patient (too few "
        "patients to speak of the type)</li>" in page
    )
    assert "3 of 3 patients are wrong in every one of 2 trials." in page
    assert "<li>14-3 (ductal carcinoma, 1 image) is taken for benign by all 2 trials;" in page


def test_seeds_are_compared_where_there_are_no_trials(binary):
    page = own_part(page_of(pd.concat([binary, binary.assign(seed=1)])))
    assert "3 of 3 patients are wrong in every one of 2 seeds." in page
    assert "means over 2 seeds" in page


def test_trials_of_other_images_are_refused(binary):
    with pytest.raises(DataError, match="did not score the same images"):
        page_of(binary, trials=[binary, binary[:2]])


def test_page_without_mistakes_says_so(make_table):
    page = own_part(page_of(make_table(["benign", "malignant"], [[0.9, 0.1], [0.1, 0.9]])))
    assert "There is nothing to show." in page
    assert "No image is given to a wrong class." in page
    assert "None of 2 patients is wrong in the one seed." in page


def test_rare_pairs_are_counted_where_they_are_left_out(make_table):
    names = class_names("multiclass")
    true = [name for name in names[:2] for _ in range(7)]
    given = [name for own in names[:2] for name in names if name != own]
    sure = np.eye(8) * 0.92 + 0.01
    table = make_table(true, [sure[names.index(name)] for name in given], names=names)
    assert "2 rarer pairs are left out." in page_of(table)


def test_texts_from_outside_are_escaped(binary):
    table = binary.assign(
        accession=EVIL,
        slide=EVIL,
        image=[f"{i}{EVIL.replace('/', '')}" for i in range(4)],
    ).rename(columns={"logit_malignant": f"logit_{EVIL}"})
    explanations = Explanations(absence=EVIL)
    page = own_part(page_of(table, title=EVIL, explanations=explanations, **{EVIL: EVIL}))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_same_input_gives_the_same_bytes(binary):
    explanations = maps_for(binary)
    assert page_of(binary, explanations=explanations) == page_of(binary, explanations=explanations)
