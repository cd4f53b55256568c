"""Engines of other packages: the documentation's example, and broken packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.tiny_folder import tiny_folder
from quantchat.engines.registry import engines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = Path(__file__).parents[2] / "docs/how-to/add-an-engine.md"
GROUP = "quantchat.engines"


def extracted(folder: Path) -> Path:
    """Write the page's files below `folder`, by the name in the first line of each."""
    blocks = re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for name, text in blocks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def install(folder: Path, name: str, points: dict[str, str]) -> None:
    """Put beside the modules in `folder` what pip would: the metadata with its entry points."""
    metadata = folder / f"{name.replace('-', '_')}-0.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = "".join(f"{point} = {value}\n" for point, value in points.items())
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")


def run(code: str, folder: Path, tmp_path: Path, *arguments: str) -> str:
    """Run `code` where `folder` is on the path, and return what it prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "QUANTCHAT_CACHE": str(tmp_path / "cache"),
        "QUANTCHAT_LOGS": str(tmp_path / "logs"),
    }
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def example(tmp_path: Path) -> Path:
    folder = extracted(tmp_path / "example")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(folder, project["name"], project["entry-points"][GROUP])
    return folder


LOADED = """
import asyncio, sys
from pathlib import Path
from quantchat.checkpoints.provider import PreparedModel
from quantchat.checkpoints.variant_files import estimate_of, files_to_load
from quantchat.host.worker_process import Place, start_worker
from quantchat.profile.load import loads
from quantchat.profile.model import Generation
from quantchat.session.reference import reference_of
from quantchat.session.requests import load_request, single_prompt_request
from quantchat.wire.messages import Failed, Finished, Ready

def variants(text):
    other = text.replace('"int8"', '"whole"') + "per_row = false\\n"
    return loads('name = "x"\\n' + text + other, where="x", folder=Path("/"))

text = Path(sys.argv[1]).read_text().replace("Qwen/Qwen3-8B", sys.argv[2])
profile = variants(text)
spec = profile.variants[0]
files, _ = files_to_load(spec, fetch=False)
planned = estimate_of(spec, files, False, 64).weights

async def main():
    worker = await start_worker(Place("example"))
    try:
        worker.send(load_request(spec, PreparedModel(spec.model)))
        async for event in worker.events():
            assert not isinstance(event, Failed), event
            if isinstance(event, Ready):
                print(event.model_info.engine, event.model_info.kernel, sep="|")
                print("torchao" in event.model_info.libraries, planned, event.ledger.weights)
                settings = Generation(max_new_tokens=4)
                worker.send(single_prompt_request(1, "a", settings, threads=1, ignore_eos=True))
            if isinstance(event, Finished):
                print(event.reason)
                return
    finally:
        await worker.close()

asyncio.run(main())
print(reference_of(profile, None).engine)
"""


def test_the_example_of_the_page_loads_and_answers(example: Path, tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model")
    told = run(LOADED, example, tmp_path, str(example / "variant.toml"), str(model)).splitlines()
    assert told[0] == "torchao-int8|torchao Int8Tensor"
    version, planned, held = told[1].split()
    assert version == "True" and int(planned) == pytest.approx(int(held), rel=0.05)
    assert told[2:] == ["length", "transformers"]


TOLD = """
from pathlib import Path
from quantchat.engines.registry import broken, engines
from quantchat.profile.load import ProfileError, loads
print(sorted(engines()))
print(broken())
text = 'name = "x"\\n' + 2 * '[[variants]]\\nlabel = "a"\\nengine = "broken"\\nmodel = "org/a"\\n'
try:
    loads(text, where="x.toml", folder=Path("/"))
except ProfileError as error:
    print(error.lines[0])
"""


def test_a_broken_package_disables_its_engine_alone(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    install(
        folder,
        "broken",
        {
            "broken": "no_such_module:ENGINE",
            "gptq-again": "quantchat.engines.gptq:ENGINE",
            "none": "os:sep",
        },
    )
    names, broken, mistake = run(TOLD, folder, tmp_path).splitlines()
    assert names == str(sorted(engines())), "those of quantchat stay, and no other comes"
    assert "another engine is called gptq" in broken and "os:sep is no" in broken
    assert mistake.startswith('x.toml:4: variants[1].engine: "broken" cannot be used')
    assert "no_such_module" in mistake
