"""Documents against the code: links lead somewhere, the options are those of the commands, Python blocks compile."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from runtime.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_to_files_and_headings(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?:", target):
            continue
        file, _, heading = target.partition("#")
        linked = (path.parent / file) if file else path
        assert linked.exists(), target
        if heading:
            found = {
                re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).strip().replace(" ", "-")
                for line in linked.read_text().splitlines()
                if line.startswith("#")
            }
            assert heading in found, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_python_blocks_compile(path):
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        compile(block, str(path), "exec")


def test_usage_lists_the_options_of_every_command():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "docs" / "usage.md").read_text(), re.MULTILINE))
    commands = typer.main.get_command(app).commands
    assert set(rows) == set(commands)
    for name, command in commands.items():
        options = {
            option
            for parameter in command.params
            if parameter.param_type_name == "option" and parameter.name != "help"
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--")
        }
        assert set(re.findall(r"`(--[\w-]+)`", rows[name])) == options, name


def test_the_pages_build_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theory, api = ((tmp_path / "site" / name / "index.html").read_text() for name in ("theory", "api"))
    assert "<math" in theory
    assert "arithmatex" not in theory
    assert "Scene.orbit" in api or "orbit(" in api
    # A page asks no other host.
    for page in (theory, api):
        assert not re.findall(r'<(?:script|link rel="stylesheet"|img)[^>]*(?:src|href)="https?://', page)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 110
