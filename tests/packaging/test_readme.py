"""What README.md says is what happens: its Python blocks run, its commands exist, its links lead somewhere."""

from __future__ import annotations

import pathlib
import re

import pytest

from zoonet.zoo.cli import application, main

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_python_blocks_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(block.replace("/tmp/", f"{tmp_path}/"), names)
    printed = capsys.readouterr().out
    assert "= matmul(" in printed  # the graph
    assert names["best"].label == "4"  # type: ignore[attr-defined]
    assert names["model"].architecture == "digitnet"  # type: ignore[attr-defined]


def test_the_first_command_runs_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^pip install \. && zoonet (.*)$", README, flags=re.MULTILINE)
    assert main(command.split()) == 0
    assert "4" in capsys.readouterr().out.splitlines()[1]


def test_commands_are_those_of_the_program() -> None:
    (usage,) = [block for block in blocks("") if block.startswith("zoonet list")]
    named = {line.split()[1] for line in usage.splitlines()}
    program = application()
    assert named == {command.name for command in [*program.registered_commands, *program.registered_groups]}


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert len(links) >= 4
