"""datasets/README.md says what the table of data sets, the scripts and the reader say."""

import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

from mmovseg.data.datasets.catalog import SAR_TABLE, TABLE
from mmovseg.data.io import FileReader
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.projects.sartext.data.sets import TEXT_SETS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
ON_DISK = [entry for entry in TABLE if entry.layouts]
COMMANDS = [
    line.removeprefix("python ")
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python ")
]
SCRIPTS = sorted({Path(entry.prepare).name for entry in ON_DISK})
SAR_SCRIPTS = {Path(entry.prepare).name for entry in SAR_TABLE}
TEXT_SCRIPTS = {Path(known.prepare).name for known in TEXT_SETS}
FACTS = ("**Source**", "**Licence**", "**Size**", "**Download**", "**Verified**", "**Not verified**")


def test_every_set_has_a_script_and_every_script_a_set():
    assert {path.name for path in (ROOT / "datasets").glob("prepare_*.py")} == {*SCRIPTS, *SAR_SCRIPTS, *TEXT_SCRIPTS}


def table_rows(heading):
    """Cells of the first table after a heading, without its two head lines."""
    part = PAGE.split(f"\n{heading}", 1)[1]
    lines = [line for line in part.split("\n\n|", 1)[1].split("\n\n", 1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_the_table_of_registered_sets_is_that_of_the_code():
    rows = {row[0].strip("` "): row for row in table_rows("## Registered sets")}
    assert list(rows) == [entry.name for entry in TABLE]
    for entry in TABLE:
        _, splits, pairs, vocabulary, classes, made_by = rows[entry.name]
        assert splits.split(", ") == list(entry.splits), entry.name
        assert vocabulary == f"`{entry.vocabulary}`", entry.name
        words = get_vocabulary(entry.vocabulary)
        unseen = [words.names[index] for index in words.unseen_ids]
        assert classes == f"{len(words)}" + (f" ({', '.join(unseen)})" if unseen else ""), entry.name
        if entry.layouts:
            assert made_by == f"`{entry.prepare}`" and (ROOT / entry.prepare).is_file(), entry.name
        if entry.facts.pairs:
            assert pairs == ", ".join(str(count) for count in entry.facts.pairs.values()), entry.name


def test_the_tree_shows_the_folders_that_are_read():
    block = PAGE.split("```\n<DETECTRON2_DATASETS>/\n", 1)[1].split("```", 1)[0]
    shown = {}
    for line in block.splitlines():
        names, *groups = re.split(r"\s{2,}", line.strip())
        if " " in names and not groups[1:]:  # "name/ split/" on one line
            groups = [names.split(" ", 1)[1], *groups]
            names = names.split(" ", 1)[0]
        for name in names.split():
            shown[name.strip("/")] = (
                {part.strip("/") for part in groups[0].split()},
                set(groups[1].replace("/", "").split()),
            )
    for entry in ON_DISK:
        own = entry.layouts[0]
        for roles in own.folders.values():
            for folder in roles.values():
                name, split_folder, layer = folder.split("/")
                splits, layers = shown[name]
                assert split_folder in splits and layer in layers, folder


@pytest.mark.parametrize("name", [*SCRIPTS, *sorted(SAR_SCRIPTS), *sorted(TEXT_SCRIPTS)])
def test_every_script_is_explained_and_its_commands_are_accepted(name, monkeypatch, capsys, tmp_path):
    commands = [shlex.split(command)[1:] for command in COMMANDS if command.startswith(f"datasets/{name} ")]
    assert commands, f"datasets/README.md shows no command of {name}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    main = importlib.import_module(name.removesuffix(".py")).main
    for arguments in commands:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        # the options are known, and the first thing that is wrong is that there is no such download
        assert stop.value.code == 2
        assert f"error: source '{arguments[1]}' does not exist" in capsys.readouterr().err
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize("entry", ON_DISK, ids=lambda entry: entry.name)
def test_every_set_has_a_command_that_checks_it(entry):
    assert f"tools/check_data.py {entry.name}" in COMMANDS
    sections = [part for part in PAGE.split("\n## ") if "**Source**" in part]
    (section,) = [part for part in sections if f"tools/check_data.py {entry.name}\n" in part]
    for word in FACTS:
        assert word in section, f"section of {entry.name} lacks {word}"
    assert f"`{entry.name}`" in PAGE


def test_the_sets_of_sar_alone_are_those_of_the_code():
    rows = {row[0].strip("` "): row for row in table_rows("## SAR alone")}
    assert list(rows) == [entry.name for entry in SAR_TABLE]
    section = PAGE.split("\n## SAR alone")[1].split("\n## ")[0]
    for entry in SAR_TABLE:
        _, _, tiles, vocabulary, classes, made_by = rows[entry.name]
        assert tiles == ", ".join(str(count) for count in entry.facts.pairs.values()), entry.name
        assert vocabulary == f"`{entry.vocabulary}`" and classes == str(len(get_vocabulary(entry.vocabulary)))
        assert made_by == f"`{entry.prepare}`" and (ROOT / entry.prepare).is_file()
        name = Path(entry.prepare).stem.removeprefix("prepare_")
        assert {f"tools/check_data.py {entry.name}", f"tools/check_data.py {name}"} & set(COMMANDS)
    for word in FACTS:
        assert word in section


def test_the_sets_of_images_and_text_are_those_of_the_code():
    rows = {row[0].strip("` "): row for row in table_rows("## Images and text")}
    assert list(rows) == [known.name for known in TEXT_SETS]
    section = PAGE.split("\n## Images and text")[1].split("\n## ")[0]
    for known in TEXT_SETS:
        _, _, kind, splits, images, made_by = rows[known.name]
        own = [f"({split})" if split in known.own_splits else split for split in known.splits]
        assert (kind, splits) == (known.kind, ", ".join(own)), known.name
        assert made_by == f"`{known.prepare}`" and (ROOT / known.prepare).is_file()
        if known.facts.pairs:
            assert images == ", ".join(str(count) for count in known.facts.pairs.values()), known.name
    assert [word for word in FACTS if word not in section] == []


def test_the_options_of_the_reader_are_its_own():
    known = set(inspect.signature(FileReader).parameters)
    named = {
        option for row in table_rows("## What the reader has to be told") for option in re.findall(r"`(\w+)`", row[0])
    }
    assert named <= known and {"sar_channels", "decoder", "label_map"} <= named
    told = {option for row in table_rows("**What SAR files hold.**") for option in re.findall(r"(\w+)=", row[3])}
    assert told <= known


def test_every_set_has_a_config_that_tests_on_it():
    configs = {file.name for file in (ROOT / "configs").glob("*/*.py")}
    others = {"ddhr_ch": "ddhr_sk_to_ch_vitb16.py", "ombria": "ombria_xs.py"}
    assert {others.get(entry.name, f"{entry.name}_vitb16.py") for entry in ON_DISK} <= configs
