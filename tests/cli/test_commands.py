"""What every command has: help with an example, a group, -h, -q, -v and --json with documented keys."""

import importlib.metadata
import inspect
import json
import os
import re
import subprocess
import sys
import warnings

import pytest
import typer

from dnagpt_fast.cli import main
from dnagpt_fast.cli.command import KEYS, Report, command, help_and_examples, json_line, prints
from dnagpt_fast.cli.command_line import COMMANDS as MODULES
from dnagpt_fast.cli.command_line import GROUPS, command_line, function_of
from dnagpt_fast.finetune.settings import FinetuneConfig, load_finetune_config
from dnagpt_fast.pretrain.settings import PretrainConfig, load_config
from dnagpt_fast.training.settings_toml import documented, settings_toml

COMMANDS = {name: function_of(name) for name in MODULES}
GENOME = "dnagpt_fast/data/hg19_chr22_20-21Mb.2bit"


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of one command in this process."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return left.value.code or 0, out.out, out.err


def parameters(name):
    return {
        name: parameter for parameter in CLICKED[name].params for name in [*parameter.opts, parameter.name]
    }


CLICKED = typer.main.get_command(command_line()).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_examples_and_common_options(name):
    text, examples = help_and_examples(COMMANDS[name])
    assert text
    assert examples
    for example in examples:
        assert f"dnagpt-fast {name} " in f"{example} "
        assert len(example) <= 76, f"{example}: it is broken in a terminal of 80 columns"
    options = parameters(name)
    assert {"-q", "--quiet", "-v", "--verbose", "--json"} <= set(options)
    assert getattr(COMMANDS[name], "keys", ()), f"{name}: no @prints"
    assert set(COMMANDS[name].keys) <= set(KEYS)
    texts = [text, *examples, *(parameter.help or "" for parameter in options.values())]
    assert not re.search(r"[\[\]]", "".join(texts)), "square brackets are markup in the help"


def test_every_documented_key_is_one_of_a_command():
    assert {key for function in COMMANDS.values() for key in function.keys} == set(KEYS)


def test_help_shows_the_groups_and_each_command_once(capsys):
    code, out, err = run(capsys, "-h")
    assert (code, err) == (0, "")
    assert [group for group in GROUPS if group in out] == list(GROUPS)
    for name in COMMANDS:
        assert len(re.findall(rf"^│ {name} ", out, re.MULTILINE)) == 1, name
    assert run(capsys, "--help")[1] == out
    assert run(capsys)[1].rstrip() == out.rstrip()
    code, out, err = run(capsys, "pack", "-h")
    assert (code, err) == (0, "")
    assert "$ dnagpt-fast pack genome.fa genome.2bit" in out
    assert "Keys of --json: output, contigs, bases, file_bytes, seconds" in out


def test_version(capsys, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2.3")
    assert run(capsys, "--version") == (0, "dnagpt-fast 1.2.3\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_options(shell):
    asked = {
        "_DNAGPT_FAST_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "dnagpt-fast emb", "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "dnagpt-fast emb", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-m", "dnagpt_fast"], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert "embed" in ran.stdout
    assert "pack" not in ran.stdout


def test_json_quiet_and_verbose(capsys, tmp_path):
    fasta, packed = tmp_path / "x.fa", tmp_path / "x.2bit"
    fasta.write_text(">a\nACGTN\n>b\nGG\n")
    code, out, err = run(capsys, "pack", fasta, packed, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert tuple(found) == COMMANDS["pack"].keys
    assert (found["output"], found["contigs"], found["bases"]) == (str(packed), 2, 7)
    assert run(capsys, "pack", fasta, packed, "-q") == (0, "", "")
    code, out, err = run(capsys, "pack", fasta, packed, "-v")
    assert out.startswith(f"{packed}: 2 contigs")
    assert re.fullmatch(r"dnagpt-fast: pack: \S+ s, processor \S+ s, peak memory \S+ GiB\n", err)
    # what was asked for is printed; in JSON one object a line
    assert len(run(capsys, "info", packed, "-q")[1].splitlines()) == 4
    rows = [json.loads(line) for line in run(capsys, "info", packed, "--json")[1].splitlines()]
    assert [tuple(row) for row in rows] == [COMMANDS["info"].keys] * 2
    code, _, err = run(capsys, "info", packed, "-q", "-v")
    assert code == 2
    assert "not both" in err
    # with --quiet errors stay, warnings do not
    fasta.write_text(">a\nACGR\n")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert "warning" in run(capsys, "pack", fasta, packed)[2]
        assert run(capsys, "pack", fasta, packed, "-q") == (0, "", "")
    code, _, err = run(capsys, "pack", tmp_path / "none.fa", packed, "-q")
    assert code == 1
    assert "no such file" in err


def test_a_report_goes_beside_data_on_standard_output(capfd, tmp_path):
    fasta = tmp_path / "x.fa"
    fasta.write_text(">a\nACGT\n")
    with pytest.raises(SystemExit):
        main(["pack", str(fasta), "-", "--json"])
    out = capfd.readouterr()
    assert json.loads(out.err)["bases"] == 4
    assert "{" not in out.out


def test_numbers_that_json_does_not_have_are_null():
    assert json.loads(json_line({"gc": float("nan"), "name": "x", "report": {"a": [float("inf"), 1]}})) == {
        "gc": None, "name": "x", "report": {"a": [None, 1]},
    }  # fmt: skip
    with pytest.raises(TypeError, match="not documented"):
        json_line({"other": 1})


def test_a_command_must_name_the_keys_that_it_prints(capsys):
    @prints("name")
    def one() -> Report:
        """About it."""
        return Report("x", {"name": "x", "gc": 1.0})

    command(one)(as_json=False)
    assert capsys.readouterr().out == "x\n"
    with pytest.raises(TypeError, match="gc"):
        command(one)(as_json=True)


# ------------------------------------------------------------------------------------------------------ config

SETTINGS = [
    pytest.param("pretrain", PretrainConfig, load_config, id="pretrain"),
    pytest.param(
        "finetune",
        FinetuneConfig,
        lambda path: load_finetune_config(path, ["data.path=x.tsv"]),
        id="finetune",
    ),
]


@pytest.mark.parametrize(("kind", "config", "load"), SETTINGS)
def test_config_prints_a_file_that_is_the_defaults(capsys, tmp_path, kind, config, load):
    code, out, err = run(capsys, "config", kind)
    assert (code, err) == (0, "")
    path = tmp_path / "all.toml"
    assert run(capsys, "config", kind, "-o", path)[0] == 0
    assert path.read_text() == out
    assert load(path) == load(None)
    # with a value changed it is read too: the file is not ignored
    path.write_text(re.sub(r"\nlr = .*", "\nlr = 12", out))
    assert load(path).optimizer.lr == 12
    assert json.loads(run(capsys, "config", kind, "--json")[1])["settings"] == json.loads(
        json.dumps(config().to_dict())
    )


@pytest.mark.parametrize(("kind", "config", "load"), SETTINGS)
def test_every_setting_has_its_meaning_in_the_docs_of_its_section(kind, config, load):
    text = settings_toml(config())
    for section in inspect.signature(config).parameters:
        settings = type(getattr(config(), section))
        head, about = documented(settings)
        assert head
        for name in inspect.signature(settings).parameters:
            assert about.get(name), f"{section}.{name} of {kind}"
        assert f"\n[{section}]\n" in f"\n{text}"
    assert max(map(len, text.splitlines())) <= 120


def test_a_list_of_sections_is_shown_as_an_example():
    text = settings_toml(PretrainConfig())
    assert "# [[data.genomes]]\n" in text
    assert '# species = "human"\n' in text


def test_config_of_another_kind(capsys):
    code, _, err = run(capsys, "config", "train")
    assert code == 2
    assert "wanted pretrain or finetune" in err


# ----------------------------------------------------------------------------------------------- standard input


@pytest.fixture
def feed():
    """feed(text): what standard input, a pipe, has; at most as much as a pipe holds."""
    kept = os.dup(0)

    def fill(text: str) -> None:
        read, write = os.pipe()
        os.write(write, text.encode())
        os.close(write)
        os.dup2(read, 0)
        os.close(read)

    yield fill
    os.dup2(kept, 0)
    os.close(kept)


def test_a_genome_comes_from_standard_input(capsys, feed, tmp_path):
    fasta = tmp_path / "x.fa"
    fasta.write_text(">a\nACGTN\n")
    wanted = run(capsys, "info", fasta)
    feed(fasta.read_text())
    assert run(capsys, "info", "-") == wanted
    feed(fasta.read_text())
    assert run(capsys, "pack", "-", tmp_path / "x.2bit", "-q")[0] == 0
    assert run(capsys, "info", tmp_path / "x.2bit") == wanted


def test_standard_input_is_read_by_one_parameter_and_once(capsys, feed, tmp_path):
    code, _, err = run(capsys, "score", "dna_gpt6m_m", "-", "--bed", "-")
    assert code == 2
    assert "only one parameter" in err
    feed("##fileformat=VCFv4.2\n")
    fasta = tmp_path / "x.fa"
    fasta.write_text(">a\nACGTN\n")
    code, _, err = run(
        capsys, "variants", "dna_gpt6m_m", fasta, "-", "-o", tmp_path / "y.vcf", "--device", "cpu"
    )
    assert code == 1
    assert "cannot be read twice" in err
    assert not (tmp_path / "y.vcf").exists()
