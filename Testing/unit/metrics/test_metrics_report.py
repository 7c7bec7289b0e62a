"""The page stands alone, says what it shows and lets no text through as markup."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from MedXlateCore.metrics.evaluation import evaluate
from MedXlateCore.metrics.plots import bland_altman_svg, curves_svg, histogram_svg
from MedXlateCore.metrics.report import evaluation_page, format_value, write_evaluation_report

HOSTILE = '<script>alert("x")</script>&<img src=x onerror=y>'


class Collector(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    collector = Collector()
    collector.feed(page)
    return collector


@pytest.fixture
def page(head):
    reference, synthetic, labels = head
    result = evaluate(reference, synthetic, regions=labels)
    return evaluation_page(result, reference, synthetic, [reference], labels, {"model": {"name": "tlp-demo"}})


def test_the_page_needs_nothing_from_outside(page):
    found = parsed(page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    addresses = [a.get(key, "") for _, a in found.tags for key in ("src", "href") if a.get(key)]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"https?://", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))


def test_the_page_says_synthetic_and_research_use_only(page):
    text = " ".join(parsed(page).text)
    assert "SYNTHETIC IMAGE" in text
    assert "research use only, not for diagnosis" in text
    assert "Protocol volume3d" in text
    assert "radiological convention" in text.lower()
    assert "tlp-demo" in text


def test_every_region_has_its_row_with_voxels(page, head):
    text = " ".join(parsed(page).text)
    voxels = str(np.count_nonzero(head[2].array == 4))
    assert re.search(rf"enhancing\s+{voxels}\b", text)


def test_texts_from_files_and_records_are_escaped(volume_of, head):
    reference, synthetic, labels = head
    hostile = volume_of(synthetic.array, "T1ce", name=HOSTILE)
    record = {HOSTILE: HOSTILE}
    result = evaluate(reference, hostile, regions=labels, region_labels={HOSTILE: [2, 1, 4], "none": [9]})
    page = evaluation_page(
        result, reference, hostile, [hostile], labels, record, region_labels={HOSTILE: [2, 1, 4], "none": [9]}
    )
    found = parsed(page)
    assert not {"script"} & {tag for tag, _ in found.tags}
    assert not any("onerror" in attributes for _, attributes in found.tags)
    assert HOSTILE in "".join(found.text)


def test_warnings_are_shown(head):
    reference, _, labels = head
    result = evaluate(reference, reference, regions=labels)
    text = " ".join(parsed(evaluation_page(result, reference, reference, regions=labels)).text)
    assert "MX-MET-101" in text
    assert "–" in text  # PSNR has no value


@pytest.mark.parametrize("protocol", ["tlp", "medprompt", "hinet", "brasyn", "synthrad2025"])
def test_every_protocol_has_a_page(head, protocol):
    reference, synthetic, labels = head
    result = evaluate(reference, synthetic, protocol, mask=labels, regions=labels)
    assert f"Protocol {protocol}" in " ".join(parsed(evaluation_page(result, reference, synthetic)).text)


def test_matched_images_are_plotted_as_matched(head):
    reference, _, _ = head
    tripled = reference.with_array(reference.array * np.float32(3))
    result = evaluate(reference, tripled, match_intensity=True)
    text = " ".join(parsed(evaluation_page(result, reference, tripled)).text)
    bias = re.search(r"bias (\S+)", text)
    assert abs(float(bias.group(1))) < 1e-3


def test_a_source_on_another_grid_is_resampled_for_display(volume_of, head):
    reference, synthetic, _ = head
    coarse = volume_of(reference.array[::2, ::2, ::2], "T1", spacing=(2.0, 2.0, 2.0))
    page = evaluation_page(evaluate(reference, synthetic), reference, synthetic, [coarse])
    assert "source: T1" in page


def test_the_page_is_written_whole_and_as_utf8(tmp_path, head):
    reference, synthetic, _ = head
    path = tmp_path / "page.html"
    write_evaluation_report(path, evaluate(reference, synthetic), reference, synthetic, record={"name": "\udcff"})
    assert path.read_text("utf-8").rstrip().endswith("</html>")
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]


def test_plots_show_bias_and_limits_of_agreement():
    reference = np.linspace(0, 100, 1000)
    svg = bland_altman_svg(reference, reference + 5.0, "HU")
    assert "bias 5" in svg
    assert "synthetic − reference (HU)" in svg
    assert "reference" in histogram_svg(reference, reference, "a < b")
    assert "a &lt; b" in histogram_svg(reference, reference, "a < b")


def test_plots_of_constant_images_do_not_fail():
    flat = np.zeros(10)
    assert bland_altman_svg(flat, flat, "HU").startswith("<svg")
    assert histogram_svg(flat, flat, "HU").startswith("<svg")


@pytest.mark.parametrize(
    "name, value, text",
    [("psnr", 21.8716, "21.87"), ("ssim", 0.77113, "0.7711"), ("voxels", 1135151, "1 135 151"), ("mae", None, "–"),
     ("mse", 123456.7, "123456.7")],
)  # fmt: skip
def test_figures_are_shown_with_few_digits(name, value, text):
    assert format_value(name, value) == text


def test_curves_go_through_their_points_from_left_to_right_and_bottom_to_top():
    chart = curves_svg(
        {"ours": [(1, 10.0), (10, 20.0), (100, 30.0)], "theirs": [(1, 12.0), (100, 12.0)]}, "steps", "dB", True
    )
    lines = re.findall(r'<polyline points="([^"]+)"', chart)
    points = [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]
    (left, low), (middle, _), (right, high) = points[0]
    assert left < middle < right
    assert middle - left == pytest.approx(right - middle, abs=0.2)  # even steps of the logarithm
    assert low > high  # SVG counts from the top
    assert len({y for _, y in points[1]}) == 1
    assert "theirs" in chart


@pytest.mark.parametrize(("heights", "anchor"), [((10.0, 20.0), "start"), ((20.0, 10.0), "end")])
def test_the_legend_of_curves_is_where_they_are_not(heights, anchor):
    chart = curves_svg({"ours": list(zip((1, 10), heights, strict=True))}, "steps", "dB")
    assert re.search(r'text-anchor="(\w+)"[^>]*>ours<', chart).group(1) == anchor
