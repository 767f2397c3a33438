"""The four forms of a model on disk: reading, writing and converting them. All have the tensors under official names.

official     a torch file, .pth: the state dict, bare or under `model`             (official.py)
safetensors  one file, whose header has shape and vocabulary under `dnagpt`; without it the tensors' shapes are used.
             Packaged models are such files in bfloat16, with equal rows stored once (packaged.py, unique_rows.py)
folder       config.json + model.safetensors; a checkpoint of a run, or a run folder, whose newest checkpoint is used
hf           config.json + model.safetensors of Hugging Face, and its tokenizer     (hub/)
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from dnagpt_fast.json_files import read_json
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.products import use_products
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.ops.traits import refuse_products
from dnagpt_fast.output_files import is_stream, whole, whole_folder, write_json
from dnagpt_fast.training.run_folder import FORMAT
from dnagpt_fast.training.tensor_files import StateDict, os_errors, write_safetensors, write_torch
from dnagpt_fast.training.torch_files import CheckpointError
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights.official import build, config_of, load_official, refuse_misfits
from dnagpt_fast.weights.packaged import is_packaged, known_names, packaged_file
from dnagpt_fast.weights.unique_rows import whole_shapes, with_repeats, without_repeats

FORMS = ("official", "safetensors", "folder", "hf")
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer_config.json"
HEADER = "dnagpt"
# Tensors with a row for each token.
TABLES = ("transformer.wte.weight", "mlm_head.3.weight")


def load_model(
    path: str | Path,
    *,
    num_heads: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    products: str = "float32",
) -> tuple[DNAGPT, KmerTokenizer]:
    """The model (in eval mode) and tokenizer of a published checkpoint, a run folder, one of its checkpoints, a Hugging
    Face folder or a .safetensors file, or of a packaged model by its name. transformers is not needed. No code from a
    file is run: a file from an unknown source can waste time, but cannot do more harm.

    num_heads  needed for bare files whose shape is not a published one; folders contain it
    products   float32, or bfloat16 or int8 for the matrix products of a float32 CPU model: model/products.py
    Raises CheckpointError that names the file and the fault, FileNotFoundError, ValueError for products that cannot be
    used here.

    >>> model, tokenizer = load_model("dna_gpt6m_m")
    >>> model.max_len, tokenizer.k
    (256, 6)
    """
    refuse_products(products)
    path = Path(path)
    if is_packaged(path):
        path = packaged_file(str(path))
    elif not path.exists() and not path.suffix:
        raise FileNotFoundError(f"{path} is no file, no folder and no packaged model: {known_names()}")
    if path.is_dir():
        model, tokenizer, _ = load_folder(path)
    elif path.suffix == ".safetensors" or _is_safetensors(path):
        model, tokenizer = _load_file(path, num_heads)
    else:
        model, tokenizer = load_official(path, num_heads=num_heads)
    return use_products(model.to(device=device, dtype=dtype).eval(), products), tokenizer


def load_pretrained(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    products: str = "float32",
) -> tuple[DNAGPT, KmerTokenizer]:
    """A packaged model (in eval mode, float32 by default) and its tokenizer; needs no network.

    `dnagpt-fast models` lists the names; products as in `load_model`. Raises FileNotFoundError for another name,
    CheckpointError for a damaged file, ValueError for products that cannot be used here.
    """
    refuse_products(products)
    model, tokenizer = _load_file(packaged_file(name), None)
    return use_products(model.to(device=device, dtype=dtype).eval(), products), tokenizer


def form_of(path: str | Path) -> str:
    """The form, one of FORMS, of a file or folder. Raises CheckpointError."""
    path = Path(path)
    if not path.is_dir():
        return "safetensors" if _is_safetensors(path) else "official"
    return "hf" if _read_json(path / CONFIG).get("model_type") == "dnagpt" else "folder"


def save_model(model: DNAGPT, tokenizer: KmerTokenizer, path: str | Path, form: str) -> None:
    """Writes one of FORMS, completely or not at all. Raises FileExistsError, ValueError for an unknown form."""
    path = Path(path)
    if form not in FORMS:
        raise ValueError(f"form {form!r}: wanted one of {', '.join(FORMS)}")
    if path.exists() and not is_stream(path):
        raise FileExistsError(f"{path} is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "official":
        with whole(path) as temporary:
            write_torch(temporary, _tensors(model))
    elif form == "safetensors":
        header = {"format": "pt", HEADER: json.dumps(_description(model, tokenizer))}
        with whole(path) as temporary:
            write_safetensors(temporary, _tensors(model), header)
    else:
        with whole_folder(path) as temporary:
            (_write_hf if form == "hf" else _write_folder)(model, tokenizer, temporary)


def save_compact(model: DNAGPT, tokenizer: KmerTokenizer, path: str | Path) -> None:
    """Writes the form of packaged models: one .safetensors file, float32 tensors as bfloat16, equal rows of TABLES
    stored once. Loading it gives float32 again. Raises FileExistsError, OSError."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    tensors = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in _tensors(model).items()
    }
    description = {**_description(model, tokenizer), "dtype": "float32"}
    with whole(path) as temporary:
        write_safetensors(
            temporary, without_repeats(tensors, TABLES), {"format": "pt", HEADER: json.dumps(description)}
        )


def convert(source: str | Path, target: str | Path, form: str, *, num_heads: int | None = None) -> None:
    """Reads a model in any form and writes it in `form`; bits and dtype of every tensor are kept."""
    model, tokenizer = load_model(source, num_heads=num_heads)
    save_model(model, tokenizer, target, form)


def _tensors(model: DNAGPT) -> StateDict:
    if model.products != "float32":
        raise ValueError(
            f"this model has {model.products} products, for inference only: save the float32 model it was made from"
        )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _description(model: DNAGPT, tokenizer: KmerTokenizer) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": "converted",
        "model": model.config.to_dict(),
        "vocabulary": asdict(tokenizer.vocabulary),
    }


def _write_folder(model: DNAGPT, tokenizer: KmerTokenizer, folder: Path) -> None:
    write_json(folder / CONFIG, _description(model, tokenizer))
    write_safetensors(folder / WEIGHTS, _tensors(model))


def _write_hf(model: DNAGPT, tokenizer: KmerTokenizer, folder: Path) -> None:
    from dnagpt_fast.hub import DNAGPTForCausalLM, DNAGPTTokenizer
    from dnagpt_fast.hub.bars import without_bars

    converted = DNAGPTForCausalLM.from_dnagpt(model)
    with os_errors(folder / WEIGHTS), without_bars():
        converted.save_pretrained(folder)
        DNAGPTTokenizer(tokenizer.k, tokenizer.dynamic_kmer, model_max_length=model.max_len).save_pretrained(
            folder
        )


def load_folder(folder: Path) -> tuple[DNAGPT, KmerTokenizer, dict[str, Any]]:
    """The model (eval mode, CPU), the tokenizer and the content of config.json of a folder. Raises CheckpointError."""
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        source: Callable[[], StateDict] = partial(_read_weights, folder)
    elif (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds a PEFT adapter, not a whole model: merge it into its base model first, by peft's "
            f"merge_and_unload() and save_pretrained()"
        )
    else:
        # imported late: torch's checkpoint module takes half as long to import as torch
        from dnagpt_fast.training.checkpoint import open_checkpoint

        try:
            found = open_checkpoint(folder)
        except CheckpointError as error:
            raise CheckpointError(f"{folder} has no {WEIGHTS} and no checkpoint: {error}") from error
        folder, source = found.path, found.weights
    content = _read_json(folder / CONFIG)
    if content.get("model_type") == "dnagpt":
        names = ModelConfig.__dataclass_fields__
        shape = {name: value for name, value in content.items() if name in names}
        vocabulary = _hf_vocabulary(folder)
    elif isinstance(content.get("model"), dict):
        shape = content["model"]
        vocabulary = content.get("vocabulary")
    else:
        raise CheckpointError(
            f"{folder / CONFIG} is not of a DNAGPT model: no model_type 'dnagpt', no part 'model'"
        )
    config, tokenizer = config_and_tokenizer(shape, vocabulary, folder / CONFIG)
    return build(config, source(), folder).eval(), tokenizer, content


def _load_file(path: Path, num_heads: int | None) -> tuple[DNAGPT, KmerTokenizer]:
    state = _read_safetensors(path)
    with safe_open(path, "pt") as file:
        header = (file.metadata() or {}).get(HEADER)
    if header is None:
        config = config_of(state, path, num_heads)
        return build(config, state, path), KmerTokenizer.from_vocab_size(config.vocab_size)
    try:
        content = json.loads(header)
        shape, vocabulary = content["model"], content["vocabulary"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: part {HEADER!r} of its header cannot be read: {error}") from error
    config, tokenizer = config_and_tokenizer(shape, vocabulary, path)
    try:
        shapes = whole_shapes(state)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if shapes.keys() != state.keys() and config.vocab_size != len(tokenizer):
        raise CheckpointError(
            f"{path}: vocab_size is {config.vocab_size}, but its vocabulary has {len(tokenizer)} tokens"
        )
    refuse_misfits(config, shapes, path)
    state = with_repeats(state)
    if "dtype" in content:
        dtype = getattr(torch, str(content["dtype"]), None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise CheckpointError(
                f"{path}: part {HEADER!r} of its header names no dtype of weights: {content['dtype']!r}"
            )
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    return build(config, state, path), tokenizer


def config_and_tokenizer(shape: Any, vocabulary: Any, where: Path) -> tuple[ModelConfig, KmerTokenizer]:
    """A model's shape and its tokenizer from what a JSON file holds; without a vocabulary the one of this size. `where`
    is for messages. Raises CheckpointError."""
    try:
        config = ModelConfig.from_dict(shape)
        if vocabulary is None:
            return config, KmerTokenizer.from_vocab_size(config.vocab_size)
        tokenizer = KmerTokenizer.of(Vocabulary(**vocabulary))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"{where}: vocab_size is {config.vocab_size}, but its vocabulary has {len(tokenizer)} tokens"
        )
    return config, tokenizer


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins like a safetensors file: 8 bytes for the length of a JSON object, then its brace."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _hf_vocabulary(folder: Path) -> dict[str, Any] | None:
    if not (folder / TOKENIZER).is_file():
        return None
    content = _read_json(folder / TOKENIZER)
    return {"k": content.get("k", 6), "dynamic": content.get("dynamic_kmer", True)}


def _read_weights(folder: Path) -> StateDict:
    if (folder / WEIGHTS).is_file():
        return _read_safetensors(folder / WEIGHTS)
    places = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in places.values()
    ):
        raise CheckpointError(f"{folder / INDEX} has no 'weight_map' with names of files in the same folder")
    parts = sorted(set(places.values()))
    return {name: tensor for part in parts for name, tensor in _read_safetensors(folder / part).items()}


def _read_safetensors(path: Path) -> StateDict:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
