"""Common uses of a transformers model: PEFT's defaults, TRL, Trainer on two processes, datasets, and servers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.hub.strong import strong_model

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")

from dnagpt_fast import hub  # noqa: E402 after the check for transformers
from dnagpt_fast.hub.serving import save_for_serving  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.tensor([[21, 60, 80, 100, 120, 33, 44, 55]])


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "hf"
    hub.DNAGPTForCausalLM.from_dnagpt(strong_model()).save_pretrained(path)
    hub.DNAGPTTokenizer(3, eos_token="<P>").save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", ["LoraConfig", "IA3Config", "PromptTuningConfig", "PrefixTuningConfig"])
def test_peft_without_naming_layers_or_sizes(folder, kind, tmp_path):
    peft = pytest.importorskip("peft", reason="needs the extra [hf]")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    wanted = model(IDS).logits
    settings = {"task_type": "CAUSAL_LM"}
    if "Tuning" in kind:
        settings["num_virtual_tokens"] = 4
    adapted = peft.get_peft_model(model, getattr(peft, kind)(**settings))
    adapted(input_ids=IDS, labels=IDS, attention_mask=torch.ones_like(IDS)).loss.backward()
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    adapted.eval(), again.eval()
    with torch.no_grad():
        found = [m(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits for m in (adapted, again)]
    torch.testing.assert_close(found[0], found[1])
    if kind in ("LoraConfig", "IA3Config"):  # which begin as nothing
        torch.testing.assert_close(found[0], wanted)
        assert all("c_attn" in name or "c_proj" in name for name in trained)
    if kind == "PrefixTuningConfig":
        return  # PEFT 0.21 hands generate of transformers 5.24 its prefix beside another cache: two, which are refused
    made = again.generate(
        input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3, eos_token_id=None
    )
    assert made.shape[1] >= 3


class Instances(dict):
    """The state that a server passes to its attention function, by layer number."""


def served_attention(module, query, key, value, attention_mask, scaling=None, attention_instances=None, **_):
    """An attention function like vLLM's: it finds its state by `layer_idx`, gets the sequences separately, and returns
    (T, H * K)."""
    assert attention_mask is None
    state = attention_instances[module.layer_idx]
    state["calls"] += 1
    assert scaling == module.head_dim**-0.5
    lengths = state["lengths"]
    parts = [x.split(lengths, 2) for x in (query, key, value)]
    o = [
        nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(o, 2).transpose(1, 2).reshape(query.shape[2], -1), None


class ServedLinear(nn.Linear):
    """A server's layer in place of each nn.Linear."""


def put_served_layers(module):
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            layer = ServedLinear(child.in_features, child.out_features, child.bias is not None)
            layer.load_state_dict(child.state_dict())
            setattr(module, name, layer)
        else:
            put_served_layers(child)


def as_vllm_names(names, trunk):
    """The names that vLLM's transformers backend gives to a folder's tensors: the base model under `model.`, what its
    class wants to be ignored left out, anything else as it is."""
    ignored = [re.compile(pattern) for pattern in trunk._keys_to_ignore_on_load_unexpected]
    children = tuple(name for name, _ in trunk.named_children())
    for name in names:
        if any(pattern.match(name) for pattern in ignored):
            continue
        bare = name.removeprefix(f"{trunk.base_model_prefix}.")
        # as its pattern has it: by the first letters, so that a head must not begin like a part of the trunk
        yield name, f"model.{bare}" if bare != name or name.startswith(children) else name


@pytest.mark.parametrize("bias", [False, True])
def test_generation_as_vllm_runs_it(tmp_path, bias):
    """A folder by `save_for_serving`, read as the backend does: base model by AutoModel, one linear layer on it."""
    transformers.AttentionInterface.register("served", served_attention)
    whole = hub.DNAGPTForCausalLM.from_dnagpt(strong_model("tiny_bias" if bias else "tiny_nobias")).eval()
    save_for_serving(whole, tmp_path / "served")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "served")
    assert config.architectures == ["DNAGPTForCausalLM"]
    config._attn_implementation = "served"
    with torch.device("meta"):
        trunk = transformers.AutoModel.from_config(config)
    trunk.to_empty(device="cpu").eval()
    put_served_layers(trunk)
    tensors = load_file(tmp_path / "served" / "model.safetensors")
    named = {new: tensors[old] for old, new in as_vllm_names(tensors, trunk)}
    assert named.keys() == tensors.keys() - {n for n in tensors if n.startswith("transformer.")} | {
        n.replace("transformer.", "model.", 1) for n in tensors if n.startswith("transformer.")
    }
    trunk.load_state_dict({n.removeprefix("model."): t for n, t in named.items() if n.startswith("model.")})
    rest = {n: t for n, t in named.items() if not n.startswith("model.")}
    assert rest.keys() == {"lm_head.weight", *(["lm_head.bias"] if bias else [])}
    instances = Instances({i: {"calls": 0, "lengths": [8, 5]} for i in range(config.num_hidden_layers)})
    with torch.no_grad():
        hidden = trunk(
            input_ids=torch.cat((IDS, IDS[:, :5]), 1),
            position_ids=torch.cat((torch.arange(8), torch.arange(5)))[None],
            use_cache=False,
            attention_instances=instances,
            return_dict=False,
        )[0][0]
        logits = nn.functional.linear(hidden, rest["lm_head.weight"], rest.get("lm_head.bias"))
        wanted = torch.cat((whole(IDS).logits[0], whole(IDS[:, :5]).logits[0]))
    torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=2e-5)
    with pytest.raises(ValueError, match="this folder is for servers"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "served")


def test_the_trunk_as_vllm_runs_it(folder):
    """The documented requirements of vLLM's transformers backend
    (https://docs.vllm.ai/en/latest/models/supported_models/#writing-custom-models): attention through the interface,
    keyword arguments down to it, `layer_idx`, `is_causal`, `_supports_attention_backend`, the `auto_map`, no cache of
    its own, sequences laid end to end with positions and without a mask, every nn.Linear replaceable."""
    transformers.AttentionInterface.register("served", served_attention)
    config = transformers.AutoConfig.from_pretrained(folder)
    assert "AutoModel" in config.auto_map
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="served")
    assert model.is_backend_compatible()
    assert all(block.attn.is_causal and block.attn.layer_idx == i for i, block in enumerate(model.h))
    put_served_layers(model)
    model.get_input_embeddings().to(torch.float32)
    lengths = [8, 5]
    instances = Instances({i: {"calls": 0, "lengths": lengths} for i in range(config.num_hidden_layers)})
    ids = torch.cat((IDS[0], IDS[0, :5]))
    positions = torch.cat((torch.arange(8), torch.arange(5)))
    with torch.no_grad():
        hidden = model(
            input_ids=ids[None],
            position_ids=positions[None],
            use_cache=False,
            attention_instances=instances,
            return_dict=False,
        )[0][0]
        plain = hub.DNAGPTModel.from_pretrained(folder)
        wanted = torch.cat((plain(IDS).last_hidden_state[0], plain(IDS[:, :5]).last_hidden_state[0]))
    torch.testing.assert_close(hidden, wanted, atol=2e-5, rtol=2e-5)
    assert [instances[i]["calls"] for i in instances] == [1] * config.num_hidden_layers
    # the server skips tensors of the heads, which this list names
    (unused,) = model._keys_to_ignore_on_load_unexpected
    heads = [name for name in strong_model().state_dict() if not name.startswith("transformer.")]
    assert heads
    assert all(re.match(unused, name) for name in heads)
    # logits of chosen places, as servers ask for them
    whole = hub.DNAGPTForCausalLM.from_pretrained(folder)
    chosen = torch.tensor([2, 5])
    torch.testing.assert_close(whole(IDS, logits_to_keep=chosen).logits, whole(IDS).logits[:, chosen])


TWO_PROCESSES = """
import os, torch, transformers, dnagpt_fast.hub as hub
folder, out = os.environ["FOLDER"], os.environ["OUT"]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
tokenizer.padding_side = "right"
rows = [tokenizer("<R>" + unit * n) for unit in ("ACGTTG", "GGATCC", "TTTAAA", "CACACA") for n in (3, 6)]
ways = [(4, 1), (2, 2)] if os.environ.get("WORLD_SIZE") == "2" else [(8, 1), (4, 2), (2, 4)]
for batch, steps in ways:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    arguments = transformers.TrainingArguments(
        output_dir=out, max_steps=4, per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
        learning_rate=1e-3, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
        gradient_checkpointing=True, seed=0, dataloader_num_workers=0,
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows,
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if trainer.is_world_process_zero():
        print("LOSSES", batch, steps, *losses, flush=True)
"""


@pytest.mark.slow
def test_trainer_on_two_processes_with_gradient_checkpointing(folder, tmp_path):
    """Four steps (a second step used to hang); the losses of one process for every division of the eight rows."""
    pytest.importorskip("accelerate", reason="needs accelerate, which comes with peft")
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "FOLDER": str(folder),
        "OUT": str(tmp_path / "out"),
        "OMP_NUM_THREADS": "1",
    }
    found = []
    for way in (["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"], []):
        done = subprocess.run(
            [sys.executable, *way, str(script)], env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found += [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("LOSSES")]
    assert len(found) == 5
    first = [float(loss) for loss in found[-1][2:]]
    assert first[-1] < first[0]
    for *_, a, b, c, d in found:
        assert [float(x) for x in (a, b, c, d)] == pytest.approx(first, rel=1e-3), found


@pytest.mark.slow
@pytest.mark.parametrize("way", ["SFT of a path", "DPO of a model"])
def test_trl(folder, tmp_path, way):
    trl = pytest.importorskip("trl", reason="pip install trl")
    datasets = pytest.importorskip("datasets", reason="pip install datasets")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    settings = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "max_length": 32,
    }
    if way.startswith("SFT"):
        rows = datasets.Dataset.from_dict({"text": ["<R>" + unit * 6 for unit in ("ACGTTG", "GGATCC")]})
        trainer = trl.SFTTrainer(
            str(folder), args=trl.SFTConfig(**settings), train_dataset=rows, processing_class=tokenizer
        )
    else:
        rows = datasets.Dataset.from_dict(
            {"prompt": ["<R>ACG", "<R>GGA"], "chosen": ["TTGTTG", "TCCTCC"], "rejected": ["AAAAAA", "CCCCCC"]}
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        trainer = trl.DPOTrainer(
            model, args=trl.DPOConfig(**settings), train_dataset=rows, processing_class=tokenizer
        )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_datasets_map_on_two_processes(folder):
    datasets = pytest.importorskip("datasets", reason="pip install datasets")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = datasets.Dataset.from_dict({"text": ["<R>" + "ACG" * n for n in range(1, 9)]})
    mapped = rows.map(lambda row: tokenizer(row["text"]), num_proc=2)
    assert mapped["input_ids"][2] == [21, 106, 106, 106]


@pytest.mark.slow
def test_loader_with_spawned_workers(folder):
    """Spawned as on macOS and in Python 3.14: the collator and its tokenizer are pickled."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    rows = [tokenizer("<R>" + "ACG" * n) for n in (1, 3)]
    loader = torch.utils.data.DataLoader(
        rows, batch_size=2, collate_fn=collate, num_workers=1, multiprocessing_context="spawn"
    )
    (batch,) = loader
    assert batch["input_ids"].shape == (2, 4)
