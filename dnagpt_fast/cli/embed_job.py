"""The work of the command embed: vectors of places, kept row by row until the output is written in one of its forms."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnagpt_fast.cli.sequence_jobs import Where, bases_done, check_lengths, identity, ranges
from dnagpt_fast.extras import need
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.embed import embed
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.output_files import TextFile, VectorFile, refuse_inputs, whole
from dnagpt_fast.training.job_folder import JobFolder
from dnagpt_fast.training.row_journal import row_journal
from dnagpt_fast.training.run_folder import versions

ROWS_OF_PARQUET = 4096
ENDINGS = (".npy", ".safetensors", ".parquet", ".h5ad")
NAMES_IN_H5AD = {"model": "model_sha256", "sequences": "sequences_sha256"}
COLUMNS = ("name", "contig", "start_bp", "end_bp", "strand")


@dataclass(frozen=True)
class Vectors:
    """What is written: places, and their rows (D,), or (L, D) of several layers. about: what made them."""

    places: Iterable[Place]
    rows: Callable[[], Iterator[np.ndarray]]
    count: int
    shape: tuple[int, ...]
    layers: int | Sequence[int]
    about: dict[str, Any]


def embed_file(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    source: Path,
    output: Path,
    where: Where,
    settings: dict[str, Any],
    *,
    resume: bool = False,
    name: str = "",
) -> tuple[int, tuple[int, ...]]:
    """Writes the vectors of places and returns (rows, shape of a row).

    output    .npy or .safetensors, with the names of the rows in OUTPUT.names, one per line; .parquet or .h5ad, with
              the places as columns
    settings  of model.embed.embed
    resume    continue the unfinished job of this output
    name      of the model, for .h5ad
    Raises ValueError (JournalError for a job that cannot be continued), OSError, and ImportError for a missing library.
    """
    write = _writer(output)
    refuse_inputs(output, source, where.bed)
    if write is _write_with_names:
        refuse_inputs(f"{output}.names", source, where.bed)
    layers = settings["layer"]
    of_layers = () if isinstance(layers, int) else (len(layers),)
    shape = (*of_layers, model.embedding_dim)
    with Genome.open(source) as genome:
        chosen = where.places(genome)
        check_lengths(tokenizer, genome, chosen)
        job = identity(model, tokenizer, genome, chosen, settings)
        with row_journal(JobFolder(output, "vectors"), job, shape, "<f4", resume=resume) as journal:
            rest = itertools.islice(chosen, journal.count, None)
            done = itertools.islice(chosen, journal.count)
            with bases_done(chosen.total_bp, settings["both_strands"], done) as progress:
                for row in embed(model, tokenizer, ranges(genome, rest), progress=progress, **settings):
                    journal.append(row)
            about = {"model": name, **{NAMES_IN_H5AD.get(key, key): value for key, value in job.items()}}
            write(output, Vectors(chosen, journal.rows, journal.count, shape, layers, about))
            return journal.count, shape if journal.count else (0,)


def _writer(output: Path) -> Callable[[Path, Vectors], None]:
    """Raises ValueError for another ending, ImportError without the library, before any work."""
    if output.suffix == ".parquet":
        need("pyarrow.parquet")
        return _write_parquet
    if output.suffix == ".h5ad":
        need("anndata", "h5ad")
        return _write_h5ad
    if output.suffix not in ENDINGS:
        raise ValueError(f"{output}: wanted a name that ends in {', '.join(ENDINGS)}")
    return _write_with_names


def _write_with_names(output: Path, vectors: Vectors) -> None:
    with TextFile(f"{output}.names") as names, VectorFile(output) as file:
        for place, row in zip(vectors.places, vectors.rows(), strict=True):
            file.write([row])
            names.write(place.name)
        # both are complete before either gets its name
        for one in (file, names):
            one.finish()


def _write_parquet(output: Path, vectors: Vectors) -> None:
    """A column `embedding`, or with several layers a column `embedding_<layer>` for each."""
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    layers = vectors.layers
    names = ["embedding"] if isinstance(layers, int) else [f"embedding_{layer}" for layer in layers]
    if not vectors.count:
        raise ValueError(f"{output}: no sequence to embed")
    with whole(output) as temporary, ExitStack() as stack:
        pairs, writer = zip(vectors.places, vectors.rows(), strict=True), None
        while some := list(itertools.islice(pairs, ROWS_OF_PARQUET)):
            columns = {name: [getattr(place, name) for place, _ in some] for name in COLUMNS}
            width = vectors.shape[-1]
            by_layer = np.stack([row for _, row in some]).reshape(len(some), len(names), width)
            for number, name in enumerate(names):
                flat = pa.array(by_layer[:, number].reshape(-1))
                columns[name] = pa.FixedSizeListArray.from_arrays(flat, width)
            table = pa.table(columns)
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(temporary, table.schema))
            writer.write_table(table)


def _write_h5ad(output: Path, vectors: Vectors) -> None:
    """X has the vectors of the first layer, `layers["layer_<layer>"]` those of the others, obs the places, and
    uns["dnagpt_fast"] what made them. All rows are in memory at once."""
    anndata, pd = need("anndata", "h5ad"), need("pandas", "h5ad")
    layers = [vectors.layers] if isinstance(vectors.layers, int) else list(vectors.layers)
    width = vectors.shape[-1]
    matrices = [np.empty((vectors.count, width), np.float32) for _ in layers]
    for i, row in enumerate(vectors.rows()):
        for matrix, of_layer in zip(matrices, row.reshape(len(layers), width), strict=True):
            matrix[i] = of_layer
    places = list(vectors.places)
    obs = pd.DataFrame({name: [getattr(place, name) for place in places] for name in COLUMNS})
    obs["length_bp"] = obs["end_bp"] - obs["start_bp"]
    obs["name"] = obs["name"].astype(object)
    for name in ("contig", "strand"):
        obs[name] = obs[name].astype("category")
    obs.index = anndata.utils.make_index_unique(pd.Index(obs["name"].tolist(), dtype=object))
    version = versions().get("dnagpt-fast", "unknown")
    # HDF5 has no missing values and no mixed lists: every entry is a text, a number or a list of numbers
    about = {key: str(value) if value is None else value for key, value in vectors.about.items()}
    found = anndata.AnnData(
        X=matrices[0],
        obs=obs,
        var=pd.DataFrame(index=[f"d{i}" for i in range(width)]),
        layers={f"layer_{layer}": matrix for layer, matrix in zip(layers[1:], matrices[1:], strict=True)},
        uns={"dnagpt_fast": {"version": version, **about, "layer": np.array(layers)}},
    )
    with whole(output) as temporary:
        found.write_h5ad(temporary)
