"""`quantchat report`, as it is called from a shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fakes.saved_measurement import measured
from fakes.saved_snapshots import snapshot
from quantchat.cli import main
from quantchat.document import drawing
from quantchat.document.document import Plot
from quantchat.snapshot import store

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved measurement in the user's folder; the test runs in an empty one."""
    monkeypatch.setenv("QUANTCHAT_SNAPSHOTS", str(tmp_path / "snapshots"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return store.save(measured(tmp_path), tmp_path / "snapshots")


@pytest.fixture(name="sketched")
def _sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds; where files go and which are replaced does not depend on it."""

    def png(plot: Plot) -> bytes:
        return f"\x89PNG of {plot.name}".encode()

    def svg(plot: Plot) -> str:
        return f'<svg aria-label="{plot.name}"/>'

    monkeypatch.setattr(drawing, "png", png)
    monkeypatch.setattr(drawing, "svg", svg)


sketched = pytest.mark.usefixtures("sketched")


def test_a_page(saved: Path, capsys: Capture) -> None:
    assert main(["report", saved.stem, "-o", "r.html"]) == 0
    assert capsys.readouterr().err == "wrote r.html\n"
    page = Path("r.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert saved.name in page
    assert list(Path().iterdir()) == [Path("r.html")]


def test_markdown_with_its_plots(saved: Path) -> None:
    assert main(["report", str(saved), "-o", "r.MD"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["r.MD", "r_files"]
    text = Path("r.MD").read_text(encoding="utf-8")
    plots = sorted(path.name for path in Path("r_files").glob("*.png"))
    assert len(plots) == 6
    assert all(f"(r_files/{name})" in text for name in plots)


@sketched
@pytest.mark.parametrize("name", ["out", "out/", "v1.2/"])
def test_a_folder(saved: Path, name: str) -> None:
    assert main(["report", str(saved), "-o", name]) == 0
    names = {path.name for path in Path(name).iterdir()}
    assert {"answers.csv", "tokens.csv", "ratios.png", "memory-ledger.png"} <= names


@sketched
def test_several_snapshots_in_one(saved: Path, tmp_path: Path) -> None:
    other = store.save(snapshot(), tmp_path / "other")
    assert main(["report", saved.name, str(other), "-o", "r.html"]) == 0
    page = Path("r.html").read_text(encoding="utf-8")
    assert "2 comparisons" in page
    assert other.name in page
    assert main(["report", saved.name, str(other), "-o", "out/"]) == 0
    assert Path("out/snapshot-2-memory-ledger.png").exists()


@sketched
def test_a_report_is_written_anew(saved: Path) -> None:
    for output in ("r.html", "r.md", "out"):
        for _ in range(2):
            assert main(["report", str(saved), "-o", output]) == 0


@sketched
def test_what_is_no_report_stays(saved: Path, capsys: Capture) -> None:
    for name in ("r.html", "r.md"):
        Path(name).write_text("<p>a letter", encoding="utf-8")
        assert main(["report", str(saved), "-o", name]) == 2
        assert "exists and is not a report" in capsys.readouterr().err
        assert Path(name).read_text(encoding="utf-8") == "<p>a letter"
        assert main(["report", str(saved), "-o", name, "--force"]) == 0
    Path("letters").mkdir()
    Path("letters/mine.txt").touch()
    assert main(["report", str(saved), "-o", "letters"]) == 2
    assert "has files that do not belong to a report" in capsys.readouterr().err
    assert main(["report", str(saved), "-o", "letters", "--force"]) == 0
    assert Path("letters/mine.txt").exists()


@sketched
def test_markdown_is_not_written_without_its_plots(saved: Path, capsys: Capture) -> None:
    Path("r_files").mkdir()
    Path("r_files/mine.txt").touch()
    assert main(["report", str(saved), "-o", "r.md"]) == 2
    assert not Path("r.md").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing argument"),
        (["SAVED"], "Missing option '-o'"),
        (["SAVED", "-o", "r.pdf"], "r.pdf: a report cannot be written as .pdf (use .html or .md"),
        (["nowhere", "-o", "r.html"], "nowhere: no such snapshot"),
        (["nowhere", "-o", "-"], "-: a report is not written to the standard output"),
        (["SAVED", "broken.json", "-o", "r.html"], "broken.json: is cut short"),
        (["SAVED", "-o", "no/r.html"], "no: no such folder"),
        (["SAVED", "-o", "no/out/"], "no: no such folder"),
        (["SAVED", "-o", "broken.json/"], "broken.json: is not a folder"),
        (["SAVED", "-o", "a\0b.html"], "cannot be written"),
        (["SAVED", "-o", "\x1b]0;x\x07.html/y.md"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line(saved: Path, capsys: Capture, args: list[str], said: str) -> None:
    Path("broken.json").write_text('{"schema_version":', encoding="utf-8")
    assert main(["report", *(str(saved) if arg == "SAVED" else arg for arg in args)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert "\x1b" not in error
    assert list(Path().iterdir()) == [Path("broken.json")]


def test_the_help_needs_no_drawing() -> None:
    code = (
        "import sys; from quantchat.cli import main; status = main(['report', '--help']);"
        "print(status, *sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    status, *modules = result.stderr.split()
    assert status == "0"
    assert not {"matplotlib", "jinja2", "numpy", "rich", "torch"} & set(modules)
