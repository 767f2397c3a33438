"""What the planner is asked about the settings of a pre-training run."""

from dataclasses import replace

from dnagpt_fast.model.initial_values import model_shape
from dnagpt_fast.planning.plan import Request
from dnagpt_fast.pretrain.batches import Template
from dnagpt_fast.pretrain.settings import PretrainConfig
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights.forms import load_model


def with_settings(request: Request, config: PretrainConfig) -> Request:
    """The request with the model, batch, steps and way of working of a run. Genomes are not read.

    Raises ValueError (ConfigError), and OSError for a model of `start.path` that is not there.
    """
    vocabulary = Vocabulary(config.vocabulary.k, config.vocabulary.dynamic)
    if config.start.path:
        model, tokenizer = load_model(config.start.path, num_heads=config.start.num_heads or None)
        shape, vocabulary, name = model.config, tokenizer.vocabulary, config.start.path
    else:
        shape = model_shape(config.model, vocabulary)
        name = f"{shape.num_layers} blocks, width {shape.embedding_dim}, {shape.num_heads} heads, k = {vocabulary.k}"
    names = config.template
    extra = Template.build(vocabulary, names.gc_prompt, names.order_prompt, names.order_answers).n_extra
    return replace(
        request,
        model=name,
        shape=shape,
        steps=config.run.steps,
        tokens=config.data.n_kmers + extra if config.data.n_kmers else shape.max_len,
        template=extra,
        kmer_bp=vocabulary.k,
        batch_size=config.run.batch_size,
        micro_batch=config.run.micro_batch_size,
        precision="" if config.run.precision == "auto" else config.run.precision,
        sharded=config.parallel.sharding == "fsdp" if request.gpus > 1 else None,
        checkpointing=config.parallel.activation_checkpointing,
        keep=config.checkpoint.keep,
    )
