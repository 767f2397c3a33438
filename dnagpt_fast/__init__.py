"""Train, fine-tune and use DNAGPT, a GPT over 6-mer DNA tokens, straight from packed 2-bit genomes.

    import dnagpt_fast as df

    model, tokenizer = df.load_model("dna_gpt6m_m")        # packaged; also .pth, run folder, Hugging Face folder
    genome = df.Genome.open("chr20.2bit")                  # .2bit or FASTA, plain or gzip
    vectors = list(df.embed(model, tokenizer, [genome["chr20:1000-4000"], "ACGTACGT"]))
    scores = list(df.score(model, tokenizer, ["ACGTACGT"]))
    for made in df.generate_sequences(model, tokenizer, ["<R>"], max_tokens=100, bases_only=True):
        print(tokenizer.decode_bases(made.new_ids))

Wherever a sequence is wanted it may be a str, bytes, a range of a Genome, a numpy array of letters, or a sequence of
Biopython, pyfaidx or pysam; a list of sequences may be a list, an iterator, a numpy array or a column of pandas or
polars. An error names the row.

Models     load_model, load_pretrained, load_official, DNAGPT, ModelConfig, KmerTokenizer, CheckpointError
Genomes    Genome, pack_fasta
Use        embed, score, generate_sequences, variant_scores, substitution_scores, base_probabilities,
           attention_weights, mutate, dinucleotide_shuffle
Learn      Embedder (scikit-learn), predict_sequences (a fine-tuned run); packages dnagpt_fast.finetune and
           dnagpt_fast.pretrain, of which `finetune` and `pretrain` are the runs, with their settings
Kernels    ops, with kmer_tokenize, gc_count, attention, combined_loss and others
transformers: `import dnagpt_fast.hub` registers the Auto classes.

`help(df.embed)` and the others have the details and an example each. The command line is `dnagpt-fast`.
"""

from typing import TYPE_CHECKING

from dnagpt_fast.lazy_names import load_on_first_use

if TYPE_CHECKING:
    from dnagpt_fast import ops
    from dnagpt_fast.evaluation.embedder import Embedder
    from dnagpt_fast.evaluation.shuffle import dinucleotide_shuffle
    from dnagpt_fast.finetune.predict import predict_sequences
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.pack import pack_fasta
    from dnagpt_fast.model import DNAGPT, KmerTokenizer, ModelConfig
    from dnagpt_fast.model.attention_maps import attention_weights
    from dnagpt_fast.model.embed import embed
    from dnagpt_fast.model.generation import generate_sequences
    from dnagpt_fast.model.marginals import base_probabilities, substitution_scores
    from dnagpt_fast.model.score import score
    from dnagpt_fast.official import CheckpointError, load_official
    from dnagpt_fast.tracks.mutate import mutate
    from dnagpt_fast.variants.places import variant_scores
    from dnagpt_fast.weights.forms import load_model, load_pretrained

__version__ = "0.1.0"

__all__ = [
    "DNAGPT",
    "CheckpointError",
    "Embedder",
    "Genome",
    "KmerTokenizer",
    "ModelConfig",
    "attention_weights",
    "base_probabilities",
    "dinucleotide_shuffle",
    "embed",
    "generate_sequences",
    "load_model",
    "load_official",
    "load_pretrained",
    "mutate",
    "ops",
    "pack_fasta",
    "predict_sequences",
    "score",
    "substitution_scores",
    "variant_scores",
]

HOMES = {
    "DNAGPT": "dnagpt_fast.model",
    "CheckpointError": "dnagpt_fast.official",
    "Embedder": "dnagpt_fast.evaluation.embedder",
    "Genome": "dnagpt_fast.genome",
    "KmerTokenizer": "dnagpt_fast.model",
    "ModelConfig": "dnagpt_fast.model",
    "attention_weights": "dnagpt_fast.model.attention_maps",
    "base_probabilities": "dnagpt_fast.model.marginals",
    "dinucleotide_shuffle": "dnagpt_fast.evaluation.shuffle",
    "embed": "dnagpt_fast.model.embed",
    "generate_sequences": "dnagpt_fast.model.generation",
    "load_model": "dnagpt_fast.weights.forms",
    "load_official": "dnagpt_fast.official",
    "load_pretrained": "dnagpt_fast.weights.forms",
    "mutate": "dnagpt_fast.tracks.mutate",
    "pack_fasta": "dnagpt_fast.genome.pack",
    "predict_sequences": "dnagpt_fast.finetune.predict",
    "score": "dnagpt_fast.model.score",
    "substitution_scores": "dnagpt_fast.model.marginals",
    "variant_scores": "dnagpt_fast.variants.places",
}
load_on_first_use(__name__, HOMES, packages=("ops", "hub"))
