"""The commands that use a model: generate, embed, score, convert, and their common options."""

from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.output_files import is_stream, refuse_inputs

Model = Annotated[
    Path,
    typer.Argument(
        help="packaged model (see `models`), published .pth, run folder, its checkpoint, or Hugging Face folder"
    ),
]

Source = Annotated[Path, typer.Argument(help=".2bit or FASTA (plain, gzip, BGZF)")]

Device = Annotated[str | None, typer.Option(help="cpu or cuda; default cuda if available")]

Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default as stored")]

Products = Annotated[
    str,
    typer.Option(
        help="matrix products on the CPU: float32, or bfloat16 or int8 where the processor has instructions for them"
    ),
]

Heads = Annotated[
    int | None,
    typer.Option(help="attention heads; needed for a bare file whose shape is not a published one"),
]

Prefix = Annotated[str, typer.Option(help="tokens before every sequence; the species token of the training")]

WindowBp = Annotated[
    int | None, typer.Option(help="cut contigs or ranges into windows of so many bases, one row each")
]

Regions = Annotated[
    list[str] | None,
    typer.Option("--region", help="CONTIG or CONTIG:START-END, 0-based and half-open; repeat for more"),
]

Bed = Annotated[
    Path | None, typer.Option(help="BED file of intervals, plain or gzip; strand and name are used")
]

BothStrands = Annotated[bool, typer.Option(help="average with the reverse complement")]

Resume = Annotated[bool, typer.Option(help="continue an unfinished job of this output")]

MaxTokens = Annotated[int, typer.Option(help="tokens at once; limits the memory")]


def generate(
    model: Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="FASTA; default standard output")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="text to continue; repeat for more")] = None,
    genome: Annotated[
        Path | None, typer.Option(help=".2bit or FASTA; its --region or --bed intervals are the prompts")
    ] = None,
    region: Regions = None,
    bed: Bed = None,
    prefix: Annotated[str, typer.Option(help="tokens before a prompt from a genome")] = "<R>",
    samples: Annotated[int, typer.Option(help="sequences for each prompt")] = 1,
    max_tokens: Annotated[int, typer.Option(help="length to reach in tokens, including the prompt")] = 256,
    greedy: Annotated[bool, typer.Option(help="always the most likely token")] = False,
    temperature: Annotated[float, typer.Option()] = 1.0,
    top_k: Annotated[int, typer.Option(help="draw from the k most likely tokens; 0: off")] = 0,
    top_p: Annotated[
        float, typer.Option(help="draw from the most likely tokens up to this share; 0: off")
    ] = 0.95,
    seed: Annotated[int, typer.Option(help="same seed, prompt and sample number: same sequence")] = 0,
    bases_only: Annotated[
        bool, typer.Option(help="draw k-mers of A, C, G, T only, up to the full length")
    ] = False,
    crop_to: Annotated[
        int | None,
        typer.Option(help="beyond max_len: keep so many tokens of context (fast); default as the original"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="sequences at once")] = 16,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
) -> None:
    """Sample sequences from a model into FASTA."""
    from dnagpt_fast.cli.sequence_jobs import Where, generate_fasta, open_model, prompts_of

    where = Where(tuple(region or ()), bed)
    if where.is_given != (genome is not None):
        raise typer.BadParameter("wanted together with --region or --bed", param_hint="--genome")
    if genome is not None and prompt:
        raise typer.BadParameter("wanted prompts as text or from a genome, not both", param_hint="--prompt")
    refuse_inputs(output, model, genome, bed)
    opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    settings = {
        "max_tokens": max_tokens,
        "num_samples": samples,
        "do_sample": not greedy,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "bases_only": bases_only,
        "crop_to": crop_to,
        "batch_size": batch_size,
    }
    prompts, names = (prompt or ["<R>"], None) if genome is None else prompts_of(genome, where, prefix)
    count = generate_fasta(opened, tokenizer, prompts, output, settings, names)
    if output is not None:
        typer.echo(f"{output}: {count} sequences", err=is_stream(output))


def embed(
    model: Model,
    genome: Source,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help=".npy or .safetensors, with names in OUTPUT.names; .parquet or .h5ad (AnnData)",
        ),
    ],
    layer: Annotated[
        list[int] | None,
        typer.Option(
            help="0 the embeddings, i after block i, -1 (default) the last; again for several in one pass"
        ),
    ] = None,
    pooling: Annotated[str, typer.Option(help="mean, last or max over the k-mers")] = "mean",
    region: Regions = None,
    bed: Bed = None,
    window_bp: WindowBp = None,
    both_strands: BothStrands = False,
    resume: Resume = False,
    prefix: Prefix = "<R>",
    max_tokens: MaxTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
) -> None:
    """One vector for each sequence of a file; with several layers one for each layer."""
    from dnagpt_fast.cli.embed_job import embed_file
    from dnagpt_fast.cli.sequence_jobs import Where, open_model

    refuse_inputs(output, model, genome, bed)
    opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    settings = {
        # one layer gives vectors, several give a matrix for each sequence
        "layer": layer[0] if layer and len(layer) == 1 else layer or -1,
        "pooling": pooling,
        "both_strands": both_strands,
        "prefix": prefix,
        "max_tokens": max_tokens,
    }
    where = Where(tuple(region or ()), bed, window_bp)
    rows, shape = embed_file(
        opened, tokenizer, genome, output, where, settings, resume=resume, name=str(model)
    )
    typer.echo(f"{output}: {rows} vectors of {' x '.join(map(str, shape))}", err=is_stream(output))


def score(
    model: Model,
    genome: Source,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="table; default standard output")
    ] = None,
    region: Regions = None,
    bed: Bed = None,
    window_bp: WindowBp = None,
    substitution: Annotated[
        list[str] | None,
        typer.Option(help="CONTIG:POSITION:BASE, 0-based; scores it instead of the sequences"),
    ] = None,
    both_strands: BothStrands = False,
    resume: Resume = False,
    prefix: Prefix = "<R>",
    overlap: Annotated[int | None, typer.Option(help="k-mers of context that windows share")] = None,
    max_tokens: MaxTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
) -> None:
    """Log-likelihood of each sequence of a file, or of single-base substitutions."""
    from dnagpt_fast.cli.sequence_jobs import (
        Where,
        open_model,
        substitution_lines,
        use_compared_products,
        write_lines,
        write_scores,
    )
    from dnagpt_fast.ops.traits import refuse_products

    where = Where(tuple(region or ()), bed, window_bp)
    if resume and (substitution or output is None or is_stream(output)):
        raise typer.BadParameter("wanted with -o FILE, and without --substitution", param_hint="--resume")
    if substitution and (where != Where() or both_strands or overlap is not None):
        raise typer.BadParameter("goes with --prefix only", param_hint="--substitution")
    refuse_inputs(output, model, genome, bed)
    refuse_products(products, "--products")
    opened, tokenizer = open_model(model, device, dtype, num_heads, products if substitution else "float32")
    if substitution:
        write_lines(substitution_lines(opened, tokenizer, genome, substitution, prefix), output)
        return
    if products != "float32":
        typer.echo(use_compared_products(opened, tokenizer, genome, where, prefix, products), err=True)
    settings = {"both_strands": both_strands, "prefix": prefix, "overlap": overlap, "max_tokens": max_tokens}
    write_scores(opened, tokenizer, genome, output, where, settings, resume=resume)


def convert(
    source: Model,
    target: Annotated[Path, typer.Argument(help="file or folder to write; must not exist")],
    to: Annotated[
        str, typer.Option(help="official (.pth), safetensors (one file), folder or hf (Hugging Face)")
    ],
    num_heads: Heads = None,
) -> None:
    """Convert a model from any of its forms on disk to another; the bits of every tensor are kept."""
    from dnagpt_fast.weights.forms import convert as convert_model

    convert_model(source, target, to, num_heads=num_heads)
    typer.echo(f"{target}: {to}", err=is_stream(target))
