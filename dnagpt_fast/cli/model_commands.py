"""The commands that use a model: generate, embed, score, convert."""

from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.command import Report, prints
from dnagpt_fast.cli.options import (
    BatchTokens,
    Bed,
    BothStrands,
    Device,
    Dtype,
    GenomeFile,
    Heads,
    Json,
    Model,
    Pooling,
    Prefix,
    Products,
    Regions,
    Resume,
    WindowBp,
    flag,
    option,
)
from dnagpt_fast.output_files import is_stream, refuse_inputs
from dnagpt_fast.progress import working


@prints("name", "prompt_bp", "new_tokens", "left_out_tokens", "sequence", "output", "sequences")
def generate(
    model: Model,
    output: Annotated[Path | None, option("--out", "FASTA; default standard output")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="text to continue; repeat for more")] = None,
    genome: Annotated[
        Path | None, option("--genome", "; its --region or --bed intervals are the prompts")
    ] = None,
    region: Regions = None,
    bed: Bed = None,
    prefix: Annotated[str, option("--prefix", "; of prompts from a genome", rich_help_panel=None)] = "<R>",
    samples: Annotated[int, typer.Option(help="sequences for each prompt")] = 1,
    max_tokens: Annotated[
        int | None, typer.Option(help="length to reach in tokens, including the prompt; default 256")
    ] = None,
    length_bp: Annotated[
        int | None, typer.Option(help="exact length in bases, including the prompt; in place of --max-tokens")
    ] = None,
    greedy: Annotated[
        bool, flag("--greedy", "always the most likely token", rich_help_panel="Sampling")
    ] = False,
    temperature: Annotated[
        float,
        typer.Option(
            help="above 1 more random, below 1 less; probabilities are raised to its inverse",
            rich_help_panel="Sampling",
        ),
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option(help="draw from the k most likely tokens; 0: off", rich_help_panel="Sampling")
    ] = 0,
    top_p: Annotated[
        float,
        typer.Option(
            help="draw from the most likely tokens up to this share; 0: off", rich_help_panel="Sampling"
        ),
    ] = 0.95,
    seed: Annotated[
        int,
        option("--seed", "; same seed, prompt and sample number: same sequence", rich_help_panel="Sampling"),
    ] = 0,
    bases_only: Annotated[
        bool,
        flag(
            "--bases-only",
            "draw k-mers of A, C, G, T only, up to the full length",
            rich_help_panel="Constraints",
        ),
    ] = False,
    gc: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LEAST MOST",
            help="share of G and C of every sequence, e.g. 0.4 0.6",
            rich_help_panel="Constraints",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POSITION:LETTERS",
            help="letters at a 0-based position, IUPAC codes allowed, e.g. 100:TATAWA; repeat for more",
            rich_help_panel="Constraints",
        ),
    ] = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MOTIF",
            help="motif that does not occur, e.g. GAATTC or GGNCC; repeat for more",
            rich_help_panel="Constraints",
        ),
    ] = None,
    forbid_both_strands: Annotated[
        bool,
        flag(
            "--forbid-both-strands",
            "the reverse complement of a motif does not occur either",
            rich_help_panel="Constraints",
        ),
    ] = False,
    crop_to: Annotated[
        int | None,
        typer.Option(help="beyond max_len: keep so many tokens of context (fast); default as the original"),
    ] = None,
    batch_size: Annotated[int, option("--batch-size")] = 16,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
    as_json: Json = False,
) -> Report | None:
    """Sample sequences from a model into FASTA.

    With --json and without -o an object for each sequence, in place of FASTA.

    $ dnagpt-fast generate dna_gpt6m_m --max-tokens 60 --bases-only
    $ dnagpt-fast generate dna_gpt6m_m --prompt '<R>ACGTGG' --samples 4 -o made.fa
    """
    from dnagpt_fast.cli.sequence_jobs import Where, constraints_of, generate_fasta, open_model, prompts_of

    where = Where(tuple(region or ()), bed)
    if where.is_given != (genome is not None):
        raise typer.BadParameter("wanted together with --region or --bed", param_hint="--genome")
    if genome is not None and prompt:
        raise typer.BadParameter("wanted prompts as text or from a genome, not both", param_hint="--prompt")
    if length_bp is not None and max_tokens is not None:
        raise typer.BadParameter("wanted --max-tokens or --length-bp", param_hint="--length-bp")
    if forbid_both_strands and not forbid:
        raise typer.BadParameter("wanted together with --forbid", param_hint="--forbid-both-strands")
    constraints = constraints_of(gc, fix or [], forbid or [], both_strands=forbid_both_strands)
    refuse_inputs(output, model, genome, bed)
    opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    settings = {
        "max_tokens": max_tokens or 256 if length_bp is None else None,
        "length_bp": length_bp,
        "constraints": constraints,
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
    count = generate_fasta(
        opened, tokenizer, prompts, output, settings, names, as_json=as_json and output is None
    )
    if output is None:
        return None
    return Report(f"{output}: {count} sequences", {"output": output, "sequences": count}, output=output)


@prints("output", "vectors", "shape")
def embed(
    model: Model,
    genome: GenomeFile,
    output: Annotated[
        Path,
        option("--out", ".npy or .safetensors, with names in OUT.names; .parquet or .h5ad (AnnData)"),
    ],
    layer: Annotated[
        list[int] | None,
        option("--layer", "; 0 the embeddings; default -1; repeat for more in one pass"),
    ] = None,
    pooling: Pooling = "mean",
    region: Regions = None,
    bed: Bed = None,
    window_bp: WindowBp = None,
    both_strands: BothStrands = False,
    resume: Resume = False,
    prefix: Prefix = "<R>",
    max_tokens: BatchTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
) -> Report:
    """One vector for each sequence of a file; with several layers one for each layer.

    $ dnagpt-fast embed dna_gpt6m_m promoters.fa -o promoters.npy
    $ dnagpt-fast embed dna_gpt6m_m genome.2bit --bed peaks.bed -o peaks.parquet
    """
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
    return Report(
        f"{output}: {rows} vectors of {' x '.join(map(str, shape))}",
        {"output": output, "vectors": rows, "shape": shape},
        output=output,
    )


@prints(
    "name", "contig", "start_bp", "end_bp", "strand", "length_bp", "scored_bp", "log_likelihood",
    "log_likelihood_per_bp", "position", "reference", "alternative", "log_ratio", "control_mean", "control_sd",
    "z", "output", "rows",
)  # fmt: skip
def score(
    model: Model,
    genome: GenomeFile,
    output: Annotated[Path | None, option("--out", "table; default standard output")] = None,
    region: Regions = None,
    bed: Bed = None,
    window_bp: WindowBp = None,
    substitution: Annotated[
        list[str] | None,
        typer.Option(
            help="CONTIG:POSITION:BASE, 0-based; scores it instead of the sequences; repeat for more"
        ),
    ] = None,
    shuffles: Annotated[
        int,
        typer.Option(
            help="dinucleotide shuffles of each sequence scored beside it; adds their mean, sd and z"
        ),
    ] = 0,
    seed: Annotated[int, option("--seed", "; of the shuffles")] = 0,
    both_strands: BothStrands = False,
    resume: Resume = False,
    prefix: Prefix = "<R>",
    overlap: Annotated[int | None, option("--overlap")] = None,
    max_tokens: BatchTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
    as_json: Json = False,
) -> Report | None:
    """Log-likelihood of each sequence of a file, or of single-base substitutions.

    With --json and without -o an object for each row of the table.

    $ dnagpt-fast score dna_gpt6m_m promoters.fa
    $ dnagpt-fast score dna_gpt6m_m genome.2bit --region one:0-600 -o scores.tsv
    """
    from dnagpt_fast.cli.sequence_jobs import (
        SUBSTITUTION_COLUMNS,
        Where,
        open_model,
        substitution_rows,
        use_compared_products,
        write_rows,
        write_scores,
    )
    from dnagpt_fast.ops.traits import refuse_products

    where = Where(tuple(region or ()), bed, window_bp)
    if resume and (substitution or output is None or is_stream(output)):
        raise typer.BadParameter("wanted with -o FILE, and without --substitution", param_hint="--resume")
    if shuffles and (substitution or shuffles < 2):
        raise typer.BadParameter("wanted 2 or more, and not with --substitution", param_hint="--shuffles")
    if seed and not shuffles:
        raise typer.BadParameter("goes with --shuffles", param_hint="--seed")
    if substitution and (where != Where() or both_strands or overlap is not None):
        raise typer.BadParameter("goes with --prefix only", param_hint="--substitution")
    refuse_inputs(output, model, genome, bed)
    refuse_products(products, "--products")
    opened, tokenizer = open_model(model, device, dtype, num_heads, products if substitution else "float32")
    if substitution:
        rows = substitution_rows(opened, tokenizer, genome, substitution, prefix)
        count = write_rows(SUBSTITUTION_COLUMNS, rows, output, as_json=as_json)
    else:
        if products != "float32":
            typer.echo(use_compared_products(opened, tokenizer, genome, where, prefix, products), err=True)
        settings = {
            "both_strands": both_strands,
            "prefix": prefix,
            "overlap": overlap,
            "max_tokens": max_tokens,
        }
        count = write_scores(
            opened,
            tokenizer,
            genome,
            output,
            where,
            settings,
            controls=shuffles,
            seed=seed,
            resume=resume,
            as_json=as_json,
        )
    if output is None:
        return None
    return Report(f"{output}: {count:,} rows", {"output": output, "rows": count}, output=output)


@prints("output", "form")
def convert(
    source: Model,
    target: Annotated[Path, typer.Argument(help="file or folder to write; must not exist")],
    to: Annotated[
        str, typer.Option(help="official (.pth), safetensors (one file), folder or hf (Hugging Face)")
    ],
    num_heads: Heads = None,
) -> Report:
    """Convert a model from any of its forms on disk to another; the bits of every tensor are kept.

    $ dnagpt-fast convert dna_gpt6m_m model.safetensors --to safetensors
    $ dnagpt-fast convert dna_gpt6m_m hf_folder --to hf
    """
    from dnagpt_fast.weights.forms import convert as convert_model

    with working(f"converting {source}"):
        convert_model(source, target, to, num_heads=num_heads)
    return Report(f"{target}: {to}", {"output": target, "form": to}, output=target)
