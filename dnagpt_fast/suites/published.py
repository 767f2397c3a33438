"""Numbers that others published for the tasks of a suite, each with its source. They were not measured here."""

from dataclasses import dataclass

DNABERT2 = "Zhou et al. 2023, fine-tuned"
FENG = "Feng et al. 2025, frozen"
"""Nature Communications 2025, doi:10.1038/s41467-025-65823-8, tables 1 and 2: mean-pooled vectors, AUROC."""
GRESOVA = "genomic_benchmarks 03c4658, experiments/README.md"

_FENG_MODELS = ("DNABERT-2", "NT-v2", "HyenaDNA", "Caduceus-Ph", "GROVER")
_FENG = {
    "gue": {
        "prom_300_all": (0.9426, 0.9445, 0.9394, 0.9519, 0.9402),
        "prom_core_all": (0.8311, 0.8527, 0.8320, 0.8748, 0.8506),
        "prom_300_notata": (0.9765, 0.9758, 0.9662, 0.9834, 0.9728),
        "prom_core_notata": (0.8531, 0.8729, 0.8516, 0.8961, 0.8704),
        "prom_300_tata": (0.7646, 0.7791, 0.8077, 0.7600, 0.7800),
        "prom_core_tata": (0.7781, 0.7947, 0.7827, 0.8103, 0.7960),
    },
    "genomic-benchmarks": {
        "human_enhancers_cohn": (0.8223, 0.7894, 0.7754, 0.8210, 0.8161),
        "human_enhancers_ensembl": (0.9369, 0.9389, 0.9356, 0.9431, 0.9382),
        "human_ocr_ensembl": (0.7253, 0.7183, 0.7191, 0.7650, 0.7455),
        "human_nontata_promoters": (0.9297, 0.8905, 0.9280, 0.9426, 0.9395),
    },
}


@dataclass(frozen=True)
class Published:
    model: str
    value: float
    source: str


_OTHERS: dict[tuple[str, str, str], list[Published]] = {
    ("gue", "prom_core_all", "mcc"): [Published("DNABERT-2", 0.694, DNABERT2)],
    ("gue", "prom_core_notata", "mcc"): [Published("DNABERT-2", 0.680, DNABERT2)],
    ("gue", "prom_core_tata", "mcc"): [Published("DNABERT-2", 0.742, DNABERT2)],
    ("genomic-benchmarks", "human_nontata_promoters", "accuracy"): [Published("CNN", 0.837, GRESOVA)],
    ("genomic-benchmarks", "human_enhancers_cohn", "accuracy"): [Published("CNN", 0.696, GRESOVA)],
    ("genomic-benchmarks", "human_enhancers_ensembl", "accuracy"): [Published("CNN", 0.798, GRESOVA)],
}


def published(suite: str, task: str, measure: str) -> list[Published]:
    """The published numbers of a task, in the same measure; most often none."""
    found = list(_OTHERS.get((suite, task, measure), []))
    if measure == "auroc" and task in _FENG.get(suite, {}):
        values = _FENG[suite][task]
        found += [Published(name, value, FENG) for name, value in zip(_FENG_MODELS, values, strict=True)]
    return found
