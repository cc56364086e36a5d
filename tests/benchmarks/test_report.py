"""A report says what its records say, whole, on one machine, and needs nothing but itself."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bench_records import BUSY, WHY, every_mode, latency, record, write_records
from bundles import write_scan, write_two_stages

from kits_bench.cli import main
from kits_bench.report.blocks import duration
from kits_bench.report.gather import gather
from kits_bench.report.write import write_report
from kits_bench.suite import latency as latency_mode
from kits_runtime.errors import UsageError

_ALONE = {"meta", "br"}


class Page(HTMLParser):
    """The tables of a page by caption, its texts, and whether each element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.scopes: list[str | None] = []
        self.text = ""
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _ALONE:
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        if tag == "th":
            self.scopes.append(dict(attrs).get("scope"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data

    def cell(self, table: str, row: str, column: str) -> str:
        head, *rows = self.tables[table]
        found = [each for each in rows if each[0] == row]
        assert len(found) == 1, (row, rows)
        return found[0][head.index(column)]

    def why(self, table: str, row: str) -> str:
        (found,) = [each for each in self.tables[table] if each[0] == row]
        assert len(found) == 2
        return found[1]


def report(folder: Path, records: Sequence[dict[str, Any]]) -> tuple[str, str]:
    paths = write_report(write_records(folder / "here", records), folder / "out")
    markdown, html = (path.read_text(encoding="utf-8") for path in paths)
    return markdown, html


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return report(tmp_path_factory.mktemp("whole"), every_mode())


@pytest.fixture(scope="module")
def page(whole: tuple[str, str]) -> Page:
    return Page(whole[1])


def test_the_story_has_the_mean_the_ratios_and_the_machine(page: Page) -> None:
    # (1712.4 + 801.3 + 553.9) / 3 = 1022.5 ms; the baselines are 6.13 and 1.47 times as slow.
    first = page.text[page.text.index("On Some") :].split("\n")[0]
    assert first.startswith("On Some <Processor> & Co with 2 cores, kits-trt takes 1.02 s a case")
    assert "(B0) takes 6.27 s, 6.13 times as long" in first
    assert "(B1) takes 1.50 s, 1.47 times as long" in first
    assert "interval" not in first, "each round gave the same ratio"
    assert first.endswith("Other processes used the machine meanwhile.")


def test_the_headline_has_a_row_for_each_system_and_says_why_two_are_unrun(page: Page) -> None:
    table = "Mean seconds a case"
    assert [row[0] for row in page.tables[table][1:]] == [
        "cascaded-vnet",
        "resunet-msvnet",
        "unet3d",
    ]
    assert page.cell(table, "unet3d", "kits-trt") == "1.02 s *"
    assert page.cell(table, "unet3d", "B0 takes") == "6.13 x"
    assert page.cell(table, "unet3d", "cases") == "3"
    for system in ("cascaded-vnet", "resunet-msvnet"):
        why = page.why(table, system)
        assert why.startswith(f"unrun: no record; kits-bench latency --bundle {system}:paper")
        assert why.endswith("17.52 s")


def test_each_case_has_its_medians_ratios_and_published_seconds(page: Page) -> None:
    table = "Median of each case"
    assert page.cell(table, "case_00036", "kits-trt/openvino") == "1.71 s"
    assert page.cell(table, "case_00036", "b0") == "10.5 s"
    assert page.cell(table, "case_00036", "b1 / kits-trt/openvino") == "1.47 x"
    assert page.cell(table, "case_00036", "published unet3d, another machine: context") == "24.24 s"
    assert page.cell(table, "case_00041 *", "kits-trt/openvino") == "801 ms"
    ratios = "Ratios over all cases"
    found = page.cell(ratios, "b0 beside kits-trt/openvino", "without the way back")
    assert found == "6.13 x"
    repeats = "Every contestant and case"
    assert page.cell(repeats, "case_00061, kits-trt/openvino", "p99") == "585 ms"
    assert page.cell(repeats, "case_00061, b1", "mask differs by") == "2.73 %"


def test_stages_add_up_to_the_wall(page: Page) -> None:
    rows = page.tables["Stages of kits-trt/openvino, unet3d:paper"][1:]
    assert [row[0] for row in rows] == ["read", "net", "way_back", "all else"]
    assert [row[1] for row in rows] == ["205 ms", "614 ms", "153 ms", "51.1 ms"]
    assert sum(float(row[2]) for row in rows) == pytest.approx(100, abs=0.2)


def test_other_modes_have_their_figures(page: Page) -> None:
    case = "unet3d:paper case_00061, openvino"
    cold = "From the start of a process; medians"
    assert page.cell(cold, case, "first window") == "1.01 s"
    assert page.cell("Peak of resident memory", case, "peak") == "498 MB"
    cohort = "As kits-infer runs a folder"
    assert page.cell(cohort, "unet3d:paper, openvino", "busy in nets") == "77.7 %"
    assert page.cell(cohort, "unet3d:paper, openvino", "cases a minute") == "52.1"
    assert page.cell("Share of voxels that differ", f"{case} bf16", "foreground") == "0.123 %"
    line = "Seconds against slices, unet3d:paper"
    assert page.cell(line, "b0", "a slice") == "52.8 ms"
    assert page.cell(line, "b0", "at no slices") == "1.92 s"
    roof = "Roofline, unet3d:paper"
    assert page.cell(roof, "net, openvino", "GFLOP/s") == "181"
    assert page.cell(roof, "net, openvino", "measured peak") == "388"
    assert page.cell("Windows of 128 x 128 x 128 voxels", "openvino", "windows/s") == "0.200"


def test_whatever_did_not_run_says_why(page: Page, whole: tuple[str, str]) -> None:
    assert page.tables["Did not run"][1] == ["kits-trt/ort-cuda", f"unrun (all cases): {WHY}"]
    told = f"unrun: {WHY}"
    case = "unet3d:paper case_00061, ort-cuda"
    assert page.why("From the start of a process; medians", case) == told
    assert page.why("Peak of resident memory", case) == told
    assert page.why("As kits-infer runs a folder", "unet3d:paper, ort-cuda") == told
    assert page.why("Share of voxels that differ", f"{case} fp16") == told
    assert page.why("Roofline, unet3d:paper", "ort-cuda") == told
    assert page.why("Windows of 128 x 128 x 128 voxels", "ort-cuda") == told
    line = "Seconds against slices, unet3d:paper"
    assert page.why(line, "torch") == "unrun: fewer than two numbers"
    assert whole[0].count(r"\<no\> driver & no GPU") == 7


def test_load_by_others_is_told_by_record(page: Page) -> None:
    table = "What other processes used"
    assert page.cell(table, "latency unet3d:paper case_00041", "marked") == "yes *"
    assert page.cell(table, "latency unet3d:paper case_00041", "cores taken, most") == "1.23"
    assert page.cell(table, "latency unet3d:paper case_00036", "marked") == "no"
    assert "1 of 10 records are marked *" in page.text


def test_the_commands_name_bundle_cases_rounds_and_commit(page: Page) -> None:
    assert "git checkout abc123" in page.text
    assert (
        "kits-bench latency --bundle unet3d:paper --cases published:36,41,61 --repeats 3 "
        "--threads 2 --backends openvino,ort-cuda --baselines b0,b1"
    ) in page.text


def test_the_page_needs_nothing_but_itself(page: Page, whole: tuple[str, str]) -> None:
    html = whole[1].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript", html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    names = [value for name, value in page.attributes if name == "id"]
    assert len(names) == len(set(names))
    assert set(page.scopes) == {"row", "col"}


def test_every_drawing_is_xml_with_a_title_and_inside_its_frame(whole: tuple[str, str]) -> None:
    drawings = re.findall(r"<svg.*?</svg>", whole[1], re.DOTALL)
    assert len(drawings) == 6  # bars, three waterfalls, scaling, roofline
    space = "{http://www.w3.org/2000/svg}"
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        title, told = root.find(f"{space}title"), root.find(f"{space}desc")
        assert title is not None
        assert told is not None
        assert root.get("aria-labelledby") == f"{title.get('id')} {told.get('id')}"
        _, _, width, height = map(float, root.get("viewBox", "").split())
        for bar in root.iter(f"{space}rect"):
            assert 0 <= float(bar.get("x", "")) + float(bar.get("width", "")) <= width
            assert 0 <= float(bar.get("y", "")) + float(bar.get("height", "")) <= height


def test_bars_are_as_long_as_their_seconds(whole: tuple[str, str]) -> None:
    root = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", whole[1], re.DOTALL)[0])
    bars = list(root.iter("{http://www.w3.org/2000/svg}rect"))[4:]  # after the legend
    lengths = [float(bar.get("width", "")) for bar in bars[:4]]
    seconds = [1.7124, 6.13 * 1.7124, 1.47 * 1.7124, 24.24]
    assert lengths == pytest.approx([s / 24.24 * lengths[3] for s in seconds], abs=0.02)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    records = every_mode()
    first = report(tmp_path / "a", records)
    assert report(tmp_path / "b", records[::-1]) == first


def test_published_seconds_stand_only_beside_nets_of_the_published_size(tmp_path: Path) -> None:
    _, html = report(tmp_path, [latency("unet3d:small", 36, 500.0)])
    assert "24.24 s" not in html
    assert "another machine: context</th>" not in html


def test_dry_records_are_marked_and_never_counted(tmp_path: Path) -> None:
    records = [{**each, "dry": True} for each in every_mode()]
    markdown, html = report(tmp_path, records)
    assert "DRY RUN" in markdown
    assert "(a dry run: made-up nets), kits-trt/openvino takes 1.02 s" in markdown
    assert Page(html).why("Mean seconds a case", "unet3d").startswith("unrun: dry runs")
    assert html.count("--dry") == len({each["kind"] for each in records})


def test_a_run_without_latency_still_has_a_report(tmp_path: Path) -> None:
    backends = [{"backend": "x", "state": "failed", "why": "a < b"}]
    markdown, html = report(tmp_path, [record("memory", "unet3d:paper", backends=backends)])
    assert "no latency was measured" in markdown
    assert Page(html).why("Peak of resident memory", "unet3d:paper, x") == "failed: a < b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dry": True}, "of a dry run and of real measurements"),
        ({"machine": {"processor": "p", "cores": 9, "system": "s"}}, "p / 9 / s"),
        ({"config": {"bundle_sha256": "f" * 64}}, "with bundle ffffffffffff"),
        ({}, "more than one record of 0 unet3d:paper case_00036"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    one = latency("unet3d:paper", 36, 500.0)
    folder = write_records(tmp_path / "here", [one, {**one, **changes}])
    with pytest.raises(UsageError, match=message):
        gather(folder)


def test_records_of_other_measurements_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_records(tmp_path, [latency("unet3d:paper", 36, 500.0)])
    (folder / "other.json").write_text(json.dumps({"kind": "stages", "timings": []}))
    assert gather(folder).left_out == 1
    (folder / "latency-0.json").unlink()
    with pytest.raises(UsageError, match="none of the suite"):
        gather(folder)


def test_a_run_of_all_modes_ends_with_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kits_bench.suite.MODES", {"latency": latency_mode})
    bundle = write_two_stages(tmp_path / "tiny.kits")
    (tmp_path / "scans").mkdir()
    write_scan(tmp_path / "scans" / "one.nii.gz")
    plain = ["-q", "all", "--dry", "--bundle", bundle, "--cases", tmp_path / "scans"]
    more = ["--repeats", 1, "--results", tmp_path, "--machine", "here", "--cache", tmp_path / "c"]
    assert main([str(part) for part in (*plain, *more)]) == 0
    (path,) = (tmp_path / "here").glob("*.json")
    row = json.loads(path.read_text(encoding="utf-8"))["contestants"][0]
    page = Page((tmp_path / "here" / "report.html").read_text(encoding="utf-8"))
    shown = page.cell("Every contestant and case", f"one, {row['name']}", "p50")
    assert shown == duration(row["p50"])
    assert "b1" in page.text[page.text.index("What is missing?") :].split("\n")[0]


def test_the_command_writes_beside_the_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = latency("unet3d:paper", 36, 500.0, foreign_load=dict(BUSY))
    folder = write_records(tmp_path / "here", [marked])
    assert main(["-q", "report", "--records", str(folder)]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths == [folder / "report.md", folder / "report.html"]
    assert "1 of 1 records are marked" in paths[0].read_text(encoding="utf-8").replace("\\", "")
    assert main(["-q", "report", "--records", str(tmp_path / "none")]) == 2
