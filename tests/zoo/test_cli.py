"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from zoonet import zoo
from zoonet.zoo.cli import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
FACTS = ["29.2", "k", "99.4", "top-1", "120", "kB", "Apache-2.0", "yes"]
EXAMPLE = str(ROOT / "examples" / "digit.png")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is broken, whatever width the runner of the tests has."""
    monkeypatch.setenv("COLUMNS", "1000")


def run(capfd: Capture, *arguments: str) -> str:
    """What a command that succeeds prints on standard output."""
    status = main(list(arguments))
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    return out


# -- run -------------------------------------------------------------------------------------------------------------


def test_run_prints_the_best_classes(capfd: Capture) -> None:
    lines = run(capfd, "run", "digits", EXAMPLE).splitlines()
    assert lines[0] == EXAMPLE
    assert len(lines) == 6
    assert re.fullmatch(r" 9\d\.\d\d%  █+[▏▎▍▌▋▊▉]? +4", lines[1])
    assert len(run(capfd, "run", "digits", EXAMPLE, "--top", "2").splitlines()) == 3
    assert len(run(capfd, "run", "digits", EXAMPLE, "--top", "99").splitlines()) == 11


def test_run_prints_json(capfd: Capture, picture: pathlib.Path, digits: Any) -> None:
    found = json.loads(run(capfd, "run", "digits", str(picture), EXAMPLE, "--json", "--top", "3"))
    assert [item["source"] for item in found] == [str(picture), EXAMPLE]
    assert [len(item["top"]) for item in found] == [3, 3]
    best = digits.run(EXAMPLE).top(1)[0]
    assert found[1]["top"][0] == {"label": "4", "score": round(best.score, 6), "index": 4}
    one = json.loads(run(capfd, "run", "digits", EXAMPLE, "--json"))
    assert isinstance(one, list)


def test_run_takes_folders_batches_and_devices(capfd: Capture, tmp_path: pathlib.Path, text_picture: Any) -> None:
    for digit in range(4):
        text_picture(str(digit), 50).save(tmp_path / f"{digit}.png")
    out = run(capfd, "run", "digits", str(tmp_path), EXAMPLE, "--batch", "3", "--device", "cpu", "--top", "1")
    blocks = out.strip().split("\n\n")
    assert [block.split()[-1] for block in blocks] == ["0", "1", "2", "3", "4"]


def test_run_takes_weights_of_ones_own(capfd: Capture, tmp_path: pathlib.Path, picture: pathlib.Path) -> None:
    made = zoo.create("resnet20", classes=3, seed=0)
    np.savez(tmp_path / "w.npz", **made.network.state_dict())
    out = run(capfd, "run", str(tmp_path / "w.npz"), str(picture), "--arch", "resnet20", "--json")
    labels = {p["label"] for p in json.loads(out)[0]["top"]}
    assert labels == {"class 0", "class 1", "class 2"}


# -- list and show ---------------------------------------------------------------------------------------------------


def test_list(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = run(capfd, "list").splitlines()
    assert lines[0].split() == ["name", "task", "params", "accuracy", "size", "licence", "cached"]
    assert lines[1].split() == ["digits", "image-classification", *FACTS]
    assert [line.split()[0] for line in lines[1:]] == zoo.list()
    assert [line.split()[0] for line in run(capfd, "list", "digit*").splitlines()[1:]] == ["digits", "digitnet"]
    assert "digitnet" not in run(capfd, "list", "digit*", "--pretrained")


def test_list_fits_a_narrow_terminal(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(capfd, "list").splitlines()
    assert max(map(len, lines)) <= 80
    indented = [line.split()[0] for line in lines[1:] if line.startswith("  ") and not line.startswith("   ")]
    assert sorted(indented) == sorted(zoo.list())
    headings = [line for line in lines[1:] if not line.startswith(" ")]
    assert headings[0] == "image-classification"
    assert headings[-1] == "your own weights (--arch)"
    assert len(headings) == len(set(headings)) > 5
    only = run(capfd, "list", "resnet50*", "--task", "image-classification", "--pretrained").splitlines()
    row = next(line for line in only if line.startswith("  resnet50.tv2_in1k "))
    assert row.split() == ["resnet50.tv2_in1k", "25.6", "M", "80.9", "top-1", "103", "MB", "unknown"]  # torchvision's
    long = [i for i, line in enumerate(lines) if line == "  distilbert-base-uncased-finetuned-sst-2-english"]
    assert "Apache-2.0" in lines[long[0] + 1]


def test_list_prints_json(capfd: Capture) -> None:
    entries = json.loads(run(capfd, "list", "--json"))
    assert [entry["name"] for entry in entries] == zoo.list()
    by_name = {entry["name"]: entry for entry in entries}
    assert by_name["resnet50"]["parameters"] == 25_557_032  # torchvision's documentation
    assert by_name["resnet18"]["parameters"] == 11_689_512
    assert by_name["digits"]["weights"] == "embedded"
    assert "Apache-2.0" in by_name["digits"]["licence"]


def test_show_a_model(capfd: Capture) -> None:
    out = run(capfd, "show", "digits")
    facts = dict(line.split(":", 1) for line in out.splitlines())
    assert facts["parameters"].strip() == "29,178"
    assert facts["labels"].strip() == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert "held-out" in facts["accuracy"]
    assert "CC BY 4.0" in facts["licence"]
    assert "conv3" in run(capfd, "show", "digits", "--layers")
    shown = json.loads(run(capfd, "show", "digits", "--json", "--layers"))
    assert shown["summary"]["parameters"] == 29_178


def test_show_an_architecture_and_weights_of_the_catalog(capfd: Capture) -> None:
    assert "--arch resnet18" in run(capfd, "show", "resnet18")
    assert json.loads(run(capfd, "show", "resnet18", "--json"))["parameters"] == 11_689_512
    out = run(capfd, "show", "resnet50.tv_in1k")  # told without a download
    assert "resnet50-0676ba61.pth" in out
    assert "76.13 % top-1 on ImageNet-1K" in out
    assert "resnet50.tv_in1k" in run(capfd, "show", "resnet50")
    assert "not for commercial use" in run(capfd, "show", "vit_l_16.tv_swag_e2e_in1k")


def test_names_of_weights_that_are_architectures_too(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOONET_OFFLINE", "1")
    assert zoo.list().count("gpt2") == 1
    facts = json.loads(run(capfd, "show", "gpt2", "--layers", "--json"))
    assert "hf://openai-community/gpt2" in facts["sources"][0]
    assert facts["summary"]["parameters"] == facts["parameters"] == 124_439_808  # transformers' count


def test_show_a_folder_of_a_text_model(capfd: Capture, tmp_path: pathlib.Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 4}
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    np.savez(tmp_path / "w.npz", x=np.zeros(1, np.float32))
    zoo.convert(tmp_path / "w.npz", tmp_path / "model.safetensors", verify=False)
    facts = json.loads(run(capfd, "show", str(tmp_path), "--json"))
    assert (facts["architecture"], facts["task"]) == ("gpt2", "text-generation")
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    assert "cannot run:" in run(capfd, "show", str(tmp_path))


@pytest.mark.parametrize("name", ["digits", "resnet50", "resnet50.keras_in1k", "all-MiniLM-L6-v2", "yolox_s.onnx_coco"])
def test_cards_fit_a_narrow_terminal(capfd: Capture, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(capfd, "show", name).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["name:", name]
    assert json.loads(run(capfd, "show", name, "--json"))["name"] == name


@pytest.mark.parametrize("name", ["m.safetensors", "m.npz", "m.pt", "folder"])
def test_show_a_file(capfd: Capture, tmp_path: pathlib.Path, digits: Any, name: str) -> None:
    digits.save(tmp_path / name)
    out = run(capfd, "show", str(tmp_path / name))
    assert re.search(r"^architecture: +digitnet$", out, re.M)
    assert re.search(r"^conv2.weight +float32 +32×16×3×3 +18,432$", out, re.M)
    facts = json.loads(run(capfd, "show", str(tmp_path / name), "--json"))
    assert facts["classes"] == 10
    assert {t["name"] for t in facts["tensors"]} == set(digits.network.state_dict())


def test_show_a_file_of_no_known_architecture(capfd: Capture, tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "w.npz", **{"a\x1b[2Jb": np.zeros((2, 3), np.float32)})
    out = run(capfd, "show", str(tmp_path / "w.npz"))
    assert "no architecture of the zoo" in out
    assert "\x1b" not in out
    assert "2×3" in out


# -- the program -----------------------------------------------------------------------------------------------------


def test_help(capfd: Capture) -> None:
    out = run(capfd, "--help")
    assert {"list", "show", "run"} <= set(re.findall(r"^  (\w+)", out, re.M))
    for command in ("list", "show", "run"):
        assert f"zoonet {command}" in run(capfd, command, "--help")
    assert main([]) == 2
    assert "Usage" in "".join(capfd.readouterr())
    assert run(capfd, "--version").startswith("zoonet ")


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "zoonet.zoo.cli", *arguments]


def test_as_a_program() -> None:
    done = subprocess.run(program("run", "digits", EXAMPLE), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].endswith(" 4")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in `zoonet list | head -1`."""
    with subprocess.Popen(program("list", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_a_terminal_shows_progress(tmp_path: pathlib.Path, text_picture: Any) -> None:
    """A bar on standard error, where that is a terminal; the results on standard output are the same."""
    for n in range(6):
        text_picture(str(n), 40).save(tmp_path / f"{n}.png")
    ours, theirs = pty.openpty()
    command = program("run", "digits", str(tmp_path), "--batch", "1", "--top", "1")
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=False)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "pictures" in shown
    assert "100%" in shown
    assert [block.split()[-1] for block in done.stdout.decode().strip().split("\n\n")] == list("012345")


def test_names_and_terminals_of_any_encoding(tmp_path: pathlib.Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\x1b.png"  # not UTF-8, and an escape character
    with open(name, "wb") as file:
        file.write(pathlib.Path(EXAMPLE).read_bytes())
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [*map(os.fsencode, program("run", "digits")), name]
    for extra in ([], [b"--json"]):
        done = subprocess.run([*command, *extra], capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\x1b" not in done.stdout
        assert rb"\udcff" in done.stdout
    assert json.loads(done.stdout)[0]["top"][0]["label"] == "4"
    done = subprocess.run([*command, b"\x1b[2J"], capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr


def test_standard_output_that_is_full() -> None:
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(program("list"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("zoonet: ")
    assert "Traceback" not in done.stderr


# -- bench -----------------------------------------------------------------------------------------------------------


def test_bench_times_a_model(capfd: Capture) -> None:
    found = json.loads(run(capfd, "bench", "digits", "--batch", "3", "--rounds", "4", "--json"))
    assert (found["name"], found["device"], found["batch"]) == ("digits", "cpu", 3)
    assert len(found["seconds"]) == 4
    assert 0 < found["minimum"] <= found["median"] <= max(found["seconds"])
    assert found["per_second"] == pytest.approx(3 / found["median"])
    assert "median of 2 runs" in run(capfd, "bench", "resnet20", "--rounds", "2")
