"""What `auto` means for precision and compiler on a device, and on resuming."""

import json

import pytest
import torch

from dnagpt_fast.finetune.settings import FinetuneConfig
from dnagpt_fast.pretrain.settings import PretrainConfig, load_config
from dnagpt_fast.training import devices
from dnagpt_fast.training.checkpoint import Checkpoint
from dnagpt_fast.training.devices import compiler_fault, compiles, with_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("kind", [PretrainConfig, FinetuneConfig])
@pytest.mark.parametrize(
    ("device", "multiplies_bf16", "means"), [(CPU, True, "fp32"), (CUDA, True, "bf16"), (CUDA, False, "fp32")]
)
def test_auto_is_bf16_on_cuda_and_fp32_on_the_cpu(monkeypatch, kind, device, multiplies_bf16, means):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: multiplies_bf16)
    assert kind().run.precision == "auto"
    assert with_precision(kind(), device).run.precision == means


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_given_precision_stays(precision):
    config = load_config(None, [f"run.precision={precision}"])
    assert with_precision(config, CUDA) == config


@pytest.mark.parametrize(("then", "device"), [("fp32", CUDA), ("bf16", CPU)])
def test_a_resumed_run_keeps_its_precision_on_any_device(tmp_path, then, device):
    record = {"settings": load_config(None, [f"run.precision={then}"]).to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert with_precision(PretrainConfig(), device, Checkpoint(tmp_path, 1)).run.precision == then


@pytest.mark.parametrize("text", ["true", "false", "auto"])
def test_compile_blocks_is_a_bool_or_auto(text):
    config = load_config(None, [f"parallel.compile_blocks={text}"])
    assert config.parallel.compile_blocks == {"true": True, "false": False, "auto": "auto"}[text]


def test_when_blocks_are_compiled(monkeypatch):
    monkeypatch.setattr(devices, "compiler_fault", lambda device: "")
    assert compiles("auto", CUDA, 1000) == (True, "on CUDA")
    assert compiles("auto", CUDA, 999) == (False, "in a run of fewer than 1,000 steps")
    assert compiles("auto", CPU, 1000) == (False, "on cpu")
    assert compiles(True, CPU, 1) == (True, "parallel.compile_blocks = true")
    assert compiles(False, CUDA, 1000)[0] is False
    monkeypatch.setattr(devices, "compiler_fault", lambda device: "OSError: no gcc")
    assert compiles("auto", CUDA, 1000) == (False, "torch.compile does not work here: OSError: no gcc")


def test_a_compiler_that_fails_says_why(monkeypatch):
    def refuse(*arguments, **options):
        def fail(*_):
            raise OSError("no C compiler\nmore lines")

        return lambda function: fail

    monkeypatch.setattr(torch, "compile", refuse)
    assert compiler_fault(CPU) == "OSError: no C compiler"
