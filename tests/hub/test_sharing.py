"""A saved folder without this package imported: its names, its module and its card, in separate processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import load_tiny

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")

from dnagpt_fast import hub  # noqa: E402 after the check for transformers
from dnagpt_fast.hub.shim import MODULE  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# the error of a package that is not installed
ABSENT = """
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "dnagpt_fast":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("hf") / "model"
    hub.DNAGPTForCausalLM.from_dnagpt(load_tiny("tiny_bias").model()).save_pretrained(path)
    hub.DNAGPTTokenizer(3).save_pretrained(path)
    return path


def run(code, folder, tmp_path, package=True):
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "FOLDER": str(folder),
    }
    head = "import os, sys; folder = os.environ['FOLDER']\n"
    if not package:
        head += ABSENT
    code = head + code
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_configuration_has_the_names_that_others_read(folder):
    written = json.loads((folder / "config.json").read_text())
    tiny = load_tiny("tiny_bias").config
    assert written["hidden_size"] == written["embedding_dim"] == tiny.embedding_dim
    assert written["num_hidden_layers"] == written["num_layers"] == tiny.num_layers
    assert written["num_attention_heads"] == written["num_heads"] == tiny.num_heads
    assert written["num_key_value_heads"] == tiny.num_heads
    assert written["max_position_embeddings"] == written["max_len"] == tiny.max_len
    assert written["intermediate_size"] == 4 * tiny.embedding_dim
    assert written["head_dim"] * tiny.num_heads == tiny.embedding_dim
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.model_config() == tiny
    assert config.bos_token_id is None
    assert config.head_dim == written["head_dim"]
    assert "AutoModelForCausalLM" in config.auto_map
    assert hub.DNAGPTConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_two_names_of_one_size():
    assert hub.DNAGPTConfig(hidden_size=48, num_heads=3).embedding_dim == 48
    assert hub.DNAGPTConfig(embedding_dim=48, hidden_size=48, num_heads=3).hidden_size == 48
    with pytest.raises(
        ValueError, match="embedding_dim and hidden_size are two names of one size: got 48 and 96"
    ):
        hub.DNAGPTConfig(embedding_dim=96, hidden_size=48)
    with pytest.raises(ValueError, match="labels_per_token = 0"):
        hub.DNAGPTConfig(labels_per_token=0)


@pytest.mark.slow
def test_the_import_line_of_the_card(folder, tmp_path):
    """Runs the card's code, with the name of this folder in it."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "import dnagpt_fast.hub" in code
    found = run(code.replace('folder = "path or name of this model"', ""), folder, tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("<R>ACGTTGACGGATTACCA")


def test_without_the_import_the_shim_loads_the_installed_package(folder, tmp_path):
    code = """
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
for auto in (AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification):
    model = auto.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("dnagpt_fast.hub."), type(model)
    assert not model.is_remote_code()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
assert tokenizer("<R>ACG")["input_ids"] == [21, 106]
model.save_pretrained("again")
tokenizer.save_pretrained("again")
assert sorted(os.listdir("again")) == sorted({*os.listdir(folder)} - {"generation_config.json"}), os.listdir("again")
AutoConfig.from_pretrained("again", trust_remote_code=True)
"""
    found = run(code, folder, tmp_path)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("package", [True, False], ids=["package", "no package"])
def test_the_errors_without_the_argument_or_the_package(folder, tmp_path, package):
    """Without the argument transformers names it; without the package the error names the package."""
    code = "from transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained(folder{})"
    found = run(code.format(""), folder, tmp_path, package)
    assert found.returncode != 0
    assert "trust_remote_code=True" in found.stderr
    assert "upgrade" not in found.stderr.splitlines()[-1].lower()
    if not package:
        found = run(code.format(", trust_remote_code=True"), folder, tmp_path, package)
        assert "pip install dnagpt_fast" in found.stderr


def test_an_existing_card_is_kept(folder, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    hub.DNAGPTConfig.from_pretrained(folder).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / f"{MODULE}.py").exists()
