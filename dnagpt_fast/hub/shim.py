"""Files in a saved folder with which a process that did not import this package can load it.

`auto_map` in config.json and tokenizer_config.json names a module in the folder that imports this package.
With `trust_remote_code=True`, transformers and libraries built on it (vLLM, TRL, servers) load the folder
through this module; if the package is missing, the error names it. With `import dnagpt_fast.hub` the module
is not used.
"""

from pathlib import Path

from dnagpt_fast.output_files import whole

MODULE = "modeling_dnagpt"
AUTO_MAP = {
    "AutoConfig": f"{MODULE}.DNAGPTConfig",
    "AutoModel": f"{MODULE}.DNAGPTModel",
    "AutoModelForCausalLM": f"{MODULE}.DNAGPTForCausalLM",
    "AutoModelForSequenceClassification": f"{MODULE}.DNAGPTForSequenceClassification",
    "AutoModelForTokenClassification": f"{MODULE}.DNAGPTForTokenClassification",
}
TOKENIZER_AUTO_MAP = {"AutoTokenizer": [f"{MODULE}.DNAGPTTokenizer", None]}
SOURCE = '''"""Loads DNAGPT for `trust_remote_code=True`. The code is a package: pip install "dnagpt-fast[hf]"."""

from dnagpt_fast.hub import (
    DNAGPTConfig,
    DNAGPTForCausalLM,
    DNAGPTForSequenceClassification,
    DNAGPTForTokenClassification,
    DNAGPTModel,
    DNAGPTTokenizer,
)
'''
CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [dna, genomics, dnagpt]
---

# A DNAGPT model

A generative model of DNA sequences over 6-mer tokens ([DNAGPT](https://arxiv.org/abs/2307.05628)), saved by
dnagpt-fast.

```
pip install "dnagpt-fast[hf]"
```

```python
import dnagpt_fast.hub  # registers the model with transformers; no remote code is run
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path or name of this model"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
prompt = tokenizer("<R>ACGTTGACGGATTACCA", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=20)[0]))
```

Without the import line, `trust_remote_code=True` does the same. Text is upper-case A C G T N after a species token
(`<R>` human); other letters become the unknown token. Whoever publishes this model should add its data, training and
limits here.
"""


def write_beside(folder: str | Path) -> None:
    """Writes the module and, if there is no README.md yet, the model card."""
    folder = Path(folder)
    texts = {f"{MODULE}.py": SOURCE}
    if not (folder / "README.md").exists():
        texts["README.md"] = CARD
    for name, text in texts.items():
        with whole(folder / name) as temporary:
            temporary.write_text(text)
